"""Settings by what a run may cost, measured by `benchmarks/pareto.py`.

Cost is the time of a whole run, in runs of the fidelity model alone.
"""

from __future__ import annotations

from ..errors import RealCompoError
from .settings import BalanceSettings

DEFAULT = "balanced"
PRESETS = {
    "fast": BalanceSettings(mode="one_pass", sources="spatial", t1=0.4, guided_until=0.75),
    "balanced": BalanceSettings(mode="lookahead", sources="spatial", t1=0.4, guided_until=0.75),
    "best": BalanceSettings(mode="lookahead"),
}


def preset(name: str) -> BalanceSettings:
    """The settings of this name. Raises RealCompoError for one that there is not."""
    if name not in PRESETS:
        raise RealCompoError(f"preset is {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
