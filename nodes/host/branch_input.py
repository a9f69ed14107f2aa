"""What a branch is made of in the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BranchInput:
    """What the Branch node collects: a MODEL, its conditionings and its guidance."""

    model: Any
    positive: list
    negative: list
    cfg: float
