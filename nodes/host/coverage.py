"""In which steps a branch has a conditioning that acts, and one whose attention can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.schedule import Schedule, named_steps
from realcompo_core.guidance.settings import BalanceSettings


class Covering(Protocol):
    """What a branch must be able to say of a noise level."""

    name: str

    def acts_at(self, sigma: float) -> bool: ...

    def can_be_read_at(self, sigma: float) -> bool: ...


def check_coverage(
    branches: Sequence[Covering], sources: Sequence[int], schedule: Schedule, settings: BalanceSettings
) -> list[str]:
    """What the user should know of steps in which a branch says nothing, or in which its attention is not read.

    sources: indices of the branches whose attention drives the balance. Raises RealCompoError if no branch acts in some
    step, or if maps are wanted and none can be read in any step.
    """
    steps = range(schedule.steps)

    def acting(step: int) -> list[Covering]:
        return [branch for branch in branches if branch.acts_at(schedule.sigmas[step])]

    if nobody := [step for step in steps if not acting(step)]:
        raise RealCompoError(
            f"no branch has a positive conditioning that acts in {named_steps(nobody)} of {schedule.steps}: widen a "
            "range of ConditioningSetTimestepRange"
        )
    warnings = []
    for branch in branches:
        if silent := [step for step in steps if branch not in acting(step)]:
            warnings.append(
                f"{branch.name} branch: none of its positive conditionings acts in {named_steps(silent)} of "
                f"{schedule.steps} (ConditioningSetTimestepRange): the other branches work alone there"
            )
    if settings.fixed is not None or len(branches) == 1:
        return warnings
    balancing = [step for step in steps if settings.t0 <= step / schedule.steps < settings.t1 and len(acting(step)) > 1]
    unread = {
        branch.name: [s for s in balancing if branch in acting(s) and not branch.can_be_read_at(schedule.sigmas[s])]
        for branch in (branches[k] for k in sources)
    }
    if balancing and all(found == balancing for found in unread.values()):
        raise RealCompoError(
            f"no attention can be read: no positive conditioning of the {' and '.join(unread)} branch covers the whole "
            "picture in a step that balances. Keep one of the layout's prompt without area or mask, or use fixed "
            "weights"
        )
    return warnings + [
        f"{name} branch: its attention is not read in {named_steps(found)} of {schedule.steps}, because no positive "
        "conditioning of it covers the whole picture: keep one without area or mask"
        for name, found in unread.items()
        if found
    ]
