"""A disk that becomes full, in miniature: no file may grow beyond a number of bytes."""

from contextlib import contextmanager


@contextmanager
def files_of_at_most(size):
    """Writing more is an OSError, behind what still fits. On systems that have no such limit the test fails."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
