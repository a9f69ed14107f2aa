"""Gradients through a real ComfyUI's own model objects."""

import host_server
import pytest

HOSTS = host_server.find_hosts()


@pytest.mark.skipif(not HOSTS, reason=host_server.NO_HOST)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_branch_in_the_host(host):
    host_server.run_checks(host, "branch_checks.py")
