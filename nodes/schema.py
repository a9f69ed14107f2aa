"""Schemas that every supported host reads."""

from dataclasses import fields

from comfy_api.latest import io

ADVANCED = {"advanced": True}  # as an input's extra_dict: hosts whose inputs have no `advanced` pass it on as well

MAX_SIDE = 16384  # pixels; the host's own limit


def size_inputs(what: str, **settings) -> list[io.Input]:
    """Widgets for the width and height in pixels of `what`."""
    sides = {"default": 512, "min": 16, "max": MAX_SIDE, "step": 8}
    return [
        io.Int.Input(name, tooltip=f"{name.capitalize()} of {what} in pixels.", **sides, **settings)
        for name in ("width", "height")
    ]


def schema(**settings) -> io.Schema:
    """A schema in this pack's category, without the settings that the running host does not know."""
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(category="RealCompo", **{name: value for name, value in settings.items() if name in known})
