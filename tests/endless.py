"""A guard against what does not end in any time that a user would wait."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT = 300  # seconds: far above what the slowest machine takes, far below what quadratic work on a megabyte does


class Endless(AssertionError):
    """Work that was still going on after LIMIT."""


@contextmanager
def ends() -> Iterator[None]:
    """Raises Endless in the body after LIMIT. For the main thread."""

    def stop(*_):
        raise Endless(f"still at work after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
