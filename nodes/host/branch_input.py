"""What a branch is made of in the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from realcompo_core.guidance.latent_guidance import LatentGuidance


@dataclass(frozen=True)
class BranchInput:
    """What the Branch node collects: a MODEL, its conditionings, its guidance, and what moves its latent."""

    model: Any
    positive: list
    negative: list
    cfg: float
    layout_guidance: LatentGuidance | None = None
