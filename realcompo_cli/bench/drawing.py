"""Drawing a run's pictures: those that are not there yet, one after the other, each written whole."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from realcompo_core.bench.scores import Picture
from realcompo_core.errors import RealCompoError

from ..files import OutputError, png
from ..runs import MemoryFullError
from .comfy import Unreachable
from .layouts import Layouts
from .run import Run, Shard
from .sources import Job, Source

IN_A_ROW = 10  # pictures that fail one after the other before a run gives up
FATAL = (OutputError, Unreachable, MemoryFullError)  # no other picture would do better
MEBIBYTE = 2**20

Tell = Callable[[Picture], None]


def wanted(run: Run, shard: Shard) -> list[Picture]:
    """The pictures of this part of the prompts that are not there."""
    return [p for p, path in run.pictures.items() if p.index in shard and not path.exists()]


def draw(run: Run, source: Source, layouts: Layouts, shard: Shard, tell: Tell) -> int:
    """Draws what is `wanted`, and returns how many could not be drawn; why is in the run's list.

    Raises RealCompoError where the disk is full, the server is gone, the memory too small, and after IN_A_ROW failures
    without a success between them.
    """
    lines = run.add_generated(shard)
    prompts = {prompt.index: prompt for prompt in run.prompts}
    failed = in_a_row = 0
    for picture in wanted(run, shard):
        prompt = prompts[picture.index]
        line = {"index": picture.index, "number": picture.number, "seed": run.seed_of(picture)}
        try:
            layout = layouts.of(run, prompt, source.size) if source.reads_layout else None
            _start_counting()
            start = time.perf_counter()
            image = source.draw(Job(prompt.text, line["seed"], layout))
            seconds = time.perf_counter() - start
        except FATAL:
            raise
        except RealCompoError as error:
            failed, in_a_row = failed + 1, in_a_row + 1
            lines.add(line | {"problem": str(error)})
            if in_a_row == IN_A_ROW:
                raise RealCompoError(f"{IN_A_ROW} pictures in a row could not be made. The last: {error}") from error
            tell(picture)
            continue
        in_a_row = 0
        path = run.pictures[picture]
        run.files.write(str(path.relative_to(run.folder)), png(image))
        lines.add(line | {"seconds": round(seconds, 4), **_memory()})
        tell(picture)
    return failed


def _start_counting() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _memory() -> dict[str, float]:
    """MiB: the peak of the GPU's memory for tensors since counting began, or else of the process since it began."""
    if torch.cuda.is_available():
        return {"gpu_mib": round(torch.cuda.max_memory_allocated() / MEBIBYTE, 1)}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"process_mib": round(peak / MEBIBYTE if sys.platform == "darwin" else peak / 1024, 1)}
