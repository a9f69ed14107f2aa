"""Families of models through a real ComfyUI: see also `test_host_models.py`."""

import host_server


def test_unets_in_the_host(host_folder):
    """SD1.5 and SDXL through the host's own loaders, as small as these accept."""
    host_server.run_checks(host_folder, "family_checks.py")


def test_joint_attention_in_the_host(host_folder):
    """SD3, Flux, Qwen-Image and Wan, with their real architectures at a small width."""
    host_server.run_checks(host_folder, "joint_checks.py")
