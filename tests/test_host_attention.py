"""Attention recorded in a real ComfyUI's own models."""

import host_server
import pytest

HOSTS = host_server.find_hosts()


@pytest.mark.skipif(not HOSTS, reason=host_server.NO_HOST)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_recording_in_the_host(host):
    host_server.run_checks(host, "attention_checks.py")
