"""Time and memory of one call, on the CPU or the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds(call: Callable) -> float:
    synchronise()
    start = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - start


def peak_bytes(call: Callable) -> float:
    """Peak of live tensor memory during `call`, above its start: from the allocator's events, or CUDA's counters."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cost(call: Callable) -> float:
    """Seconds: of the GPU's clock, or of the process alone on a CPU, whose other programs do not count then."""
    if torch.cuda.is_available():
        return seconds(call)
    start = time.process_time()
    call()
    return time.process_time() - start
