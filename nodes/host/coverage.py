"""In which steps a branch has a conditioning that acts, and one whose attention can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.schedule import Schedule
from realcompo_core.guidance.settings import BalanceSettings


class Covering(Protocol):
    """What a branch must be able to say of a noise level."""

    name: str

    def acts_at(self, sigma: float) -> bool: ...

    def can_be_read_at(self, sigma: float) -> bool: ...


def check_coverage(branches: Sequence[Covering], schedule: Schedule, settings: BalanceSettings) -> list[str]:
    """What the user should know of steps in which a branch says nothing, or in which its attention is not read.

    Raises RealCompoError if no branch acts in some step, or if maps are wanted and none can be read in any step.
    """
    steps = range(schedule.steps)

    def acting(step: int) -> list[Covering]:
        return [branch for branch in branches if branch.acts_at(schedule.sigmas[step])]

    if nobody := [step for step in steps if not acting(step)]:
        raise RealCompoError(
            f"no branch has a positive conditioning that acts in {in_words(nobody)} of {schedule.steps}: widen a range "
            "of ConditioningSetTimestepRange"
        )
    warnings = []
    for branch in branches:
        if silent := [step for step in steps if branch not in acting(step)]:
            warnings.append(
                f"{branch.name} branch: none of its positive conditionings acts in {in_words(silent)} of "
                f"{schedule.steps} (ConditioningSetTimestepRange): the other branches work alone there"
            )
    if settings.fixed is not None or len(branches) == 1:
        return warnings
    balancing = [step for step in steps if settings.t0 <= step / schedule.steps < settings.t1 and len(acting(step)) > 1]
    unread = {
        branch.name: [
            step for step in balancing if branch in acting(step) and not branch.can_be_read_at(schedule.sigmas[step])
        ]
        for branch in branches
    }
    if balancing and all(found == balancing for found in unread.values()):
        raise RealCompoError(
            "no attention can be read: of no branch a positive conditioning covers the whole picture in a step that "
            "balances. Keep one of the layout's prompt without area or mask, or use fixed weights"
        )
    return warnings + [
        f"{name} branch: its attention is not read in {in_words(found)} of {schedule.steps}, because no positive "
        "conditioning of it covers the whole picture: keep one without area or mask"
        for name, found in unread.items()
        if found
    ]


def in_words(steps: Sequence[int]) -> str:
    """Rising numbers of steps, from 0: `steps 0-3, 7`."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    named = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{'step' if len(steps) == 1 else 'steps'} {', '.join(named)}"
