"""The layout nodes in a real ComfyUI: in a process of their own, as the host has a top-level `nodes` itself."""

import host_server


def test_layout_nodes_in_the_host(host_folder):
    host_server.run_checks(host_folder, "layout_nodes_checks.py")
