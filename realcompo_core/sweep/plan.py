"""A sweep: which values of one or two settings meet in its cells, read from what a user wrote and checked at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RealCompoError
from ..guidance.layout_guidance import LayoutGuidance
from ..guidance.named_settings import MODES, SCHEDULES, Unused, balance_settings, unused
from ..guidance.presets import moves
from ..sampling.samplers import SAMPLERS, STOCHASTIC

Parse = Callable[[str], Any]
"""From a word to a value. Raises ValueError with what was expected."""


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("write a number")
    return value


def share(text: str) -> float:
    value = number(text)
    if not 0 <= value <= 1:
        raise ValueError("write a share from 0 to 1")
    return value


def not_negative(text: str) -> float:
    value = number(text)
    if value < 0:
        raise ValueError("write a number from 0 up")
    return value


def whole(least: int, multiple: int = 1) -> Parse:
    """Whole numbers from `least` up that `multiple` divides."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least or int(text) % multiple:
            divided = f" that {multiple} divides" if multiple > 1 else ""
            raise ValueError(f"write a whole number from {least} up{divided}")
        return int(text)

    return parse


def one_of(*words: str) -> Parse:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"choose one of {', '.join(words)}")
        return text

    return parse


def yes_or_no(text: str) -> bool:
    answers = {"yes": True, "true": True, "no": False, "false": False}
    if text.lower() not in answers:
        raise ValueError("write yes or no")
    return answers[text.lower()]


def branches(count: int) -> Parse:
    """ "all", "spatial", or numbers of branches such as "0+1", out of `count`; the fidelity branch is 0."""

    def parse(text: str) -> tuple[int, ...] | str | None:
        if text in ("all", "spatial"):
            return None if text == "all" else text
        numbers = text.split("+")
        if not all(n.isdecimal() and int(n) < count for n in numbers):
            raise ValueError(f"write all, spatial, or branches from 0 to {count - 1}, such as 0 or 0+1")
        return tuple(map(int, numbers))

    return parse


def guided_moves(text: str) -> LayoutGuidance | None:
    """The presets' Layout Guidance in this share of the steps; 0: none."""
    until = share(text)
    return moves(until) if until else None


def layers(text: str) -> int | str:
    """A resolution as a divisor of the latent's, or a layer's name."""
    return int(text) if text.isdecimal() else text


BALANCE: dict[str, Parse] = {
    "mode": one_of(*MODES),
    "t0": share,
    "t1": share,
    "spatial_weight": share,
    "spatial_weight_outside": share,
    "schedule": one_of(*SCHEDULES),
    "rule": one_of("rms", "max", "official", "superdiff"),
    "rate": number,
    "initial": one_of("layout", "zero", "random"),
    "update_every": whole(1),
    "update_until": share,
    "sources": branches(2),
    "guided_until": share,
    "layout_guidance": guided_moves,
}
"""Settings of the balancer that can be swept."""

PIPELINE: dict[str, Parse] = {
    "beta": share,
    "cfg": not_negative,
    "steps": whole(1),
    "seed": whole(0),
    "sampler": one_of(*SAMPLERS, *STOCHASTIC),
    "layers": layers,
    "include_adjectives": yes_or_no,
    "negative": str,
    "width": whole(8, 8),
    "height": whole(8, 8),
}
"""The other arguments of RealCompoPipeline's call; `cfg` is `guidance_scale`, and `negative` the negative prompt."""


@dataclass(frozen=True)
class Axis:
    """A setting and the values it takes. `labels`: the values as the user wrote them."""

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    @property
    def titles(self) -> list[str]:
        """ "t0 = 0.1" for each value."""
        return [f"{self.name} = {label}" for label in self.labels]


@dataclass(frozen=True)
class Plan:
    """The axes of a sweep. Without `y` it has one row."""

    x: Axis
    y: Axis | None = None

    def __post_init__(self):
        if self.y is not None and self.x.name == self.y.name:
            raise RealCompoError(f"both axes are {self.x.name}: choose another setting for one of them")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return 1 if self.y is None else len(self.y.values), len(self.x.values)

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The values in each cell by the settings' names, row by row."""
        return [dict(zip(self.names, values, strict=True)) for values in self._pairs("values")]

    @property
    def titles(self) -> list[str]:
        """ "t0 = 0.1, beta = 0.3" for each cell, row by row."""
        return [", ".join(titles) for titles in self._pairs("titles")]

    @property
    def labels(self) -> list[dict[str, str]]:
        """The values of each cell as they were written."""
        return [dict(zip(self.names, labels, strict=True)) for labels in self._pairs("labels")]

    @property
    def names(self) -> list[str]:
        return [axis.name for axis in (self.x, self.y) if axis is not None]

    def _pairs(self, what: str) -> Iterator[tuple]:
        for y in [()] if self.y is None else [(value,) for value in getattr(self.y, what)]:
            for x in getattr(self.x, what):
                yield (x, *y)


def parse_axis(name: str, text: str, settings: Mapping[str, Parse]) -> Axis:
    """The axis `name` with the values in `text`, which commas separate, or semicolons if there is one.

    Raises RealCompoError for a name that is not in `settings`, and for values that are none of this setting.
    """
    name = setting_name(name, settings)
    labels = [word.strip() for word in text.split(";" if ";" in text else ",")]
    values = [parse_value(name, label, settings) for label in labels]
    twice = [label for i, (label, value) in enumerate(zip(labels, values, strict=True)) if value in values[:i]]
    if twice:
        raise RealCompoError(f"{name} has {twice[0]} twice: a sweep has each value once")
    return Axis(name, tuple(values), tuple(labels))


def setting_name(name: str, settings: Mapping[str, Parse]) -> str:
    """The setting as it is called in code. Raises RealCompoError for one that is not in `settings`."""
    found = name.strip().replace("-", "_")
    if found not in settings:
        raise RealCompoError(f"{name.strip()!r} is no setting that can be swept: choose one of {', '.join(settings)}")
    return found


def parse_value(name: str, text: str, settings: Mapping[str, Parse]) -> Any:
    try:
        if not text:
            raise ValueError("write a value")
        return settings[name](text)
    except ValueError as error:
        raise RealCompoError(f"{name} is {text!r}: {error}") from error


def resolve(plan: Plan, own: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """All settings of each cell by name: `own`, above them `given`, above them the cell's.

    Raises RealCompoError for settings that BalanceSettings refuses, for one of `given` that is an axis, and for those
    that do nothing: one of an axis in any cell, one of `given` in all cells.
    """
    given = given or {}
    if both := [name for name in plan.names if name in given]:
        raise RealCompoError(f"{both[0]} is an axis, and given for all cells too: leave out one of them")
    cells: list[dict[str, Any]] = []
    idle: dict[str, Unused] = {}
    for cell, title in zip(plan.cells, plan.titles, strict=True):
        named = {**own, **given, **cell}
        without = unused(named)
        for name in cell:
            if name in without:
                raise RealCompoError(f"the cell {title}: {useless(name, cell[name], without[name])}")
        idle = {n: without[n] for n in given if n in without and (n in idle or not cells)}
        balance_settings(named)
        cells.append(named)
    for name, reason in idle.items():
        raise RealCompoError(useless(name, given[name], reason))
    return cells


def useless(name: str, value: Any, reason: Unused) -> str:
    value = f"{value:g}" if isinstance(value, float) else value
    return f"{name} {value} has no meaning with {reason.setting} {reason.value}: take {reason.setting} {reason.instead}"
