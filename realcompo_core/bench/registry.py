"""The benchmarks by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import RealCompoError
from .benchmark import Benchmark
from .geneval import GenEval
from .geneval2 import GenEval2
from .multigen import MultiGen
from .own_prompts import OwnPrompts
from .t2i_compbench import T2ICompBench
from .visor import Visor

BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "multigen-coco": lambda: MultiGen("COCO"),
    "multigen-ade20k": lambda: MultiGen("ADE20K"),
    "visor": Visor,
    "geneval": GenEval,
    "geneval2": GenEval2,
    "prompts": OwnPrompts,
}
T2I = "t2i-compbench"
NAMES = (*BENCHMARKS, T2I)


def benchmark_of(name: str, prompts: Path, category: str | None = None) -> Benchmark:
    """The benchmark of this name for a file of prompts. Raises RealCompoError for a name that is none.

    category: of T2I-CompBench, where the file's name does not say it.
    """
    if name == T2I:
        return T2ICompBench(category) if category else T2ICompBench.of_file(prompts)
    if category:
        raise RealCompoError(f"category {category!r} has no meaning with {name}: only {T2I} has categories")
    if name not in BENCHMARKS:
        raise RealCompoError(f"benchmark is {name!r}: choose one of {', '.join(NAMES)}")
    return BENCHMARKS[name]()
