"""Which conditioning each part of a batch is: the host runs several conditionings at once, in an order of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

PLACE = "realcompo_place"  # in a conditioning's options: at which of its tokens the layout's prompt begins
KINDS = ("positive", "negative")  # by the host's `cond_or_uncond`


def conditioning_rows(names: Sequence[str | None], batch: int) -> Iterator[tuple[str, slice]]:
    """The rows of each named part of a batch; of several parts of one name, the first."""
    size = batch // len(names)
    for name in dict.fromkeys(names):
        if name is not None:
            place = names.index(name)
            yield name, slice(place * size, (place + 1) * size)


def by_uuid(wanted: dict[Any, str]) -> Callable[[dict], list[str | None]]:
    """Names from the identities that the host gives conditionings; None for others."""
    return lambda options: [wanted.get(uuid) for uuid in options["uuids"]]


def whole_picture(conditioning: Sequence[dict], sigma: float) -> dict | None:
    """The entry that acts on the whole picture at this noise level; None if there is none.

    Its attention is what the prompt's words attend to; entries with an area or a mask are phrases of their own. Of
    several it is the first that is known to be of the layout's prompt, else the first.
    """
    found = [entry for entry in conditioning if acts_at(entry, sigma) and covers_picture(entry)]
    return next((entry for entry in found if PLACE in entry), found[0] if found else None)


def covers_picture(options: dict) -> bool:
    """Whether a conditioning with these options acts on the whole picture."""
    return "area" not in options and "mask" not in options


def acts_at(entry: dict, sigma: float) -> bool:
    """Whether a conditioning that the host has prepared acts at this noise level."""
    start, end = entry.get("timestep_start"), entry.get("timestep_end")
    return (start is None or sigma <= start) and (end is None or sigma >= end)
