"""Attention recorded in a real ComfyUI's own models."""

import host_server


def test_recording_in_the_host(host_folder):
    host_server.run_checks(host_folder, "attention_checks.py")
