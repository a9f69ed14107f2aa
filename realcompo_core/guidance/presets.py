"""Settings by what a run may cost, in runs of the fidelity model alone (`benchmarks/pareto.py`).

In all of them the spatial branches' latents move once a step by Layout Guidance at its authors' scale, for the first
steps; its authors move up to five times a step. So a GLIGEN or a ControlNet that follows the layout loosely follows it
well, as in LLM-grounded diffusion (Lian et al. 2024), and fewer steps have to be balanced.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import RealCompoError
from .layout_guidance import LayoutGuidance
from .settings import BalanceSettings

AUTHORS_STEPS = 51
DEFAULT = "balanced"


def moves(until: float) -> LayoutGuidance:
    """The presets' Layout Guidance, in this share of the steps from the start."""
    return LayoutGuidance(iterations=1, until=until, scale_steps=AUTHORS_STEPS)


_BALANCED = BalanceSettings(sources="spatial", t1=0.4, guided_until=0.65, layout_guidance=moves(0.25))
PRESETS = {
    "fast": replace(_BALANCED, t1=0.25),
    "balanced": _BALANCED,
    "best": replace(_BALANCED, layout_guidance=moves(0.4)),
}


def preset(name: str) -> BalanceSettings:
    """The settings of this name. Raises RealCompoError for one that there is not."""
    if name not in PRESETS:
        raise RealCompoError(f"preset is {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
