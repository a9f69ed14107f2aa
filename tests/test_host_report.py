"""The Balance Report node in a real ComfyUI: in a process of its own, as the host has a top-level `nodes` itself."""

import host_server
import pytest

HOSTS = host_server.find_hosts()


@pytest.mark.skipif(not HOSTS, reason=host_server.NO_HOST)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_report_in_the_host(host):
    host_server.run_checks(host, "report_checks.py")
