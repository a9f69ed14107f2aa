"""Balance settings by the names that users write: on the command line, in Balance Settings, on the axes of a sweep.

They are those of `BalanceSettings`, but for `fixed`, which is written as `mode` fixed with `spatial_weight`,
`spatial_weight_outside` and `schedule`; `t1` is then the schedule's end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from ..errors import RealCompoError
from .mixing import RegionWeights
from .settings import BalanceSettings
from .weight_schedule import SHAPES, WeightSchedule

CONSTANT = "constant"  # the schedule of weights that never change
SCHEDULES = (CONSTANT, *SHAPES)
MODES = ("one_pass", "lookahead", "fixed")
FIXED_ONLY = ("spatial_weight", "spatial_weight_outside", "schedule")
MOVING_ONLY = ("rule", "rate", "initial", "update_every", "update_until", "sources", "layers", "include_adjectives")
MAPS_ONLY = tuple(name for name in MOVING_ONLY if name != "rule")  # which the rule superdiff does not have
SCHEDULED = ("t0", "t1")  # which weights that never change do not have


class Unused(NamedTuple):
    """Why a setting does nothing: another one's value. `instead`: values of that one with which it would."""

    setting: str
    value: str
    instead: str


def named_settings(balance: BalanceSettings) -> dict[str, Any]:
    """The settings by their written names. Raises RealCompoError for `fixed` weights that have none."""
    named = {field.name: getattr(balance, field.name) for field in fields(balance) if field.name != "fixed"}
    fixed = balance.fixed
    if fixed is None:
        return named | {"spatial_weight": 0.5, "spatial_weight_outside": None, "schedule": CONSTANT}
    named["mode"] = "fixed"
    if isinstance(fixed, WeightSchedule) and fixed.end == RegionWeights(0, 0):
        named |= {"schedule": fixed.shape, "t0": fixed.t0, "t1": fixed.until}
        fixed = fixed.start
    elif isinstance(fixed, RegionWeights):
        named["schedule"] = CONSTANT
    else:
        raise RealCompoError(
            f"fixed is {fixed!r}: only RegionWeights, and a WeightSchedule that ends in the fidelity branch, can be "
            "written as settings"
        )
    return named | {"spatial_weight": fixed.inside, "spatial_weight_outside": fixed.outside}


def balance_settings(named: Mapping[str, Any]) -> BalanceSettings:
    """The inverse of `named_settings`. What is unused beside the others, or of no BalanceSettings, is not looked at.

    A `spatial_weight_outside` of None is `spatial_weight`.
    """
    own = {field.name: named[field.name] for field in fields(BalanceSettings) if field.name in named}
    if named["mode"] != "fixed":
        return BalanceSettings(**own)
    inside, outside = named["spatial_weight"], named["spatial_weight_outside"]
    weights = RegionWeights(inside, inside if outside is None else outside)
    if named["schedule"] != CONSTANT:
        weights = WeightSchedule(weights, until=named["t1"], shape=named["schedule"], t0=named["t0"])
    return BalanceSettings(**(own | {"mode": BalanceSettings.mode, "fixed": weights}))


def unused(named: Mapping[str, Any]) -> dict[str, Unused]:
    """The names of settings that do nothing beside the others, and why."""
    if named["mode"] != "fixed":
        found = dict.fromkeys(FIXED_ONLY, Unused("mode", named["mode"], "fixed"))
        if named["rule"] == "superdiff":
            found |= dict.fromkeys(MAPS_ONLY, Unused("rule", "superdiff", "rms, max or official"))
        return found
    found = dict.fromkeys(MOVING_ONLY, Unused("mode", "fixed", "one_pass or lookahead"))
    if named["schedule"] == CONSTANT:
        found |= dict.fromkeys(SCHEDULED, Unused("schedule", CONSTANT, "step, linear or cosine"))
    return found
