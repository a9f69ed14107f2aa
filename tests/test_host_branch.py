"""Gradients through a real ComfyUI's own model objects."""

import host_server


def test_branch_in_the_host(host_folder):
    host_server.run_checks(host_folder, "branch_checks.py")


def test_layout_guidance_in_the_host(host_folder):
    host_server.run_checks(host_folder, "guidance_checks.py")


def test_composable_and_structured_diffusion_in_the_host(host_folder):
    host_server.run_checks(host_folder, "prompt_checks.py")


def test_the_hosts_own_nodes_on_a_branch(host_folder):
    host_server.run_checks(host_folder, "composition_checks.py")


def test_pictures_are_inverted_in_the_host(host_folder):
    host_server.run_checks(host_folder, "inversion_checks.py")


def test_prompts_are_edited_in_the_host(host_folder):
    host_server.run_checks(host_folder, "editing_checks.py")
