"""SD1.5 and SDXL through a real ComfyUI's own loaders, as small as these accept: see also `test_host_models.py`."""

import host_server


def test_families_in_the_host(host_folder):
    host_server.run_checks(host_folder, "family_checks.py")
