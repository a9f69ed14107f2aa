"""A disk that becomes full, in miniature: no file may grow beyond a number of bytes."""

import os
from contextlib import contextmanager

import pytest

needs_limits = pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for the size of files")


@contextmanager
def files_of_at_most(size):
    """Writing more is an OSError, behind what still fits."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
