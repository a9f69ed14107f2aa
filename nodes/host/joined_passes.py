"""Branches on one model at one x: all their conditionings go to the host at once, which batches what it can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import comfy.samplers
from torch import Tensor, nn


class Joinable(Protocol):
    """What a branch must have to be joined with others."""

    network: nn.Module
    joined: JoinedPasses | None
    """Set while its passes are to be taken together with others'."""

    def is_plain(self) -> bool:
        """Whether nothing of another pack sees its passes."""

    def conditionings(self, positive: bool) -> list:
        """Positive (None unless asked for) and negative, None where it is not needed."""


class JoinedPasses:
    """The conditionings of some branches, and what the host made of them."""

    def __init__(self, branches: Sequence[Joinable], reading: Sequence[Joinable]):
        self._conds = {branch: branch.conditionings(branch not in reading) for branch in branches}
        self._found: dict[Joinable, list[Tensor]] = {}

    def calculate(self, branch: Joinable, args: dict) -> list[Tensor]:
        """The predictions of this branch's conditionings. The first branch that asks has all branches' computed."""
        if not self._found:
            self._conds[branch] = args["conds"]
            outputs = calculate({**args, "conds": [cond for conds in self._conds.values() for cond in conds]})
            self._found = dict(zip(self._conds, zip(outputs[::2], outputs[1::2], strict=True), strict=True))
        return list(self._found[branch])


@contextmanager
def joined_passes(branches: Sequence[Joinable], reading: Sequence[Joinable]) -> Iterator[None]:
    """Inside, these branches are run at one x, those in `reading` with gradient of their positive conditionings."""
    groups: dict[int, list[Joinable]] = {}
    for branch in branches:
        if branch.is_plain():
            groups.setdefault(id(branch.network), []).append(branch)
    try:
        for group in groups.values():
            if len(group) > 1:
                joined = JoinedPasses(group, reading)
                for branch in group:
                    branch.joined = joined
        yield
    finally:
        for branch in branches:
            branch.joined = None


def calculate(args: dict) -> list[Tensor]:
    """The host's own step from conditionings to predictions."""
    return comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
    )
