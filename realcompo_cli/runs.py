"""Runs of one prompt: each branch alone, then both balanced, from the same noise; and the report about them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from PIL import Image

from realcompo_core.diffusers import Output, RealCompoPipeline
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.mixing import RegionWeights
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout

from .report import Picture, Report

ALONE = {"fidelity": (1.0, 0.0), "spatial": (0.0, 1.0)}


class MemoryFullError(RealCompoError):
    """A picture too large for the device's memory."""


@dataclass(frozen=True)
class Run:
    """One sampling: its name ("fidelity", "spatial" or "balanced"), its result and the seconds it took."""

    name: str
    output: Output
    seconds: float

    @property
    def image(self) -> Image.Image:
        return self.output.images[0]


def run_names(layout: Layout, alone: bool) -> list[str]:
    """What `sample` is to be called with. Without objects the balanced run is the fidelity branch alone."""
    return [*(ALONE if alone and layout.objects else ()), "balanced"]


def sample(
    pipeline: RealCompoPipeline,
    name: str,
    prompt: str,
    layout: Layout,
    settings: dict[str, Any],
    progress: Callable[[int, int], None],
) -> Run:
    """One run. `settings` are keyword arguments of RealCompoPipeline's call, with `balance` among them.

    `progress(done, steps)` is called after each step. Raises MemoryFullError.
    """
    if name in ALONE:
        settings = settings | {"balance": replace(settings["balance"], fixed=torch.tensor(ALONE[name]))}
    start = time.perf_counter()
    try:
        output = pipeline(prompt, layout, progress=progress, **settings)
    except torch.OutOfMemoryError as error:
        raise MemoryFullError(f"not enough memory for the {name} run: choose a smaller --size or --dtype") from error
    return Run(name, output, time.perf_counter() - start)


def report_on(
    prompt: str,
    runs: list[Run],
    settings: dict[str, Any],
    facts: dict[str, str],
    notes: dict[str, str] | None = None,
) -> Report:
    """The report about `runs`, the balanced one last. `notes` are lines below the pictures, by the run's name."""
    output = runs[-1].output
    return Report(
        prompt=prompt,
        layout=output.layout,
        pictures=[Picture(run.name, run.image, (notes or {}).get(run.name, "")) for run in runs],
        trace=output.trace,
        facts=facts | _settings_facts(settings) | {"time": _times(runs), "versions": _versions()},
    )


def balance_settings(
    own: BalanceSettings, mode: str, spatial_weight: float | None, outside: float | None
) -> BalanceSettings:
    """The settings `own` in the mode asked for. Raises RealCompoError for weights in another mode than fixed."""
    if mode == "fixed":
        inside = 0.5 if spatial_weight is None else spatial_weight
        return replace(own, fixed=RegionWeights(inside, inside if outside is None else outside))
    for option, value in (("--spatial-weight", spatial_weight), ("--spatial-weight-outside", outside)):
        if value is not None:
            raise RealCompoError(f"{option} {value:g} has no meaning with --mode {mode}: take --mode fixed")
    return replace(own, mode=mode)


def _balance_facts(balance: BalanceSettings) -> dict[str, str]:
    if isinstance(balance.fixed, RegionWeights):
        inside, outside = (f"{share:g}" for share in balance.fixed)
        where = "everywhere" if inside == outside else f"on the objects, {outside} elsewhere"
        return {"balance": f"fixed, the spatial branch's weight is {inside} {where}"}
    return {
        "balance": f"{balance.mode}, rule {balance.rule} × {balance.rate:g}, initial coefficients: {balance.initial}",
        "branches": f"balanced until {balance.t1:.0%} of the steps, then the fidelity branch alone",
    }


def _settings_facts(settings: dict[str, Any]) -> dict[str, str]:
    width, height = settings.get("width"), settings.get("height")
    words = "adjectives and nouns" if settings["include_adjectives"] else "nouns"
    return {
        "seed": str(settings["seed"]),
        "sampling": f"{settings['steps']} steps of {settings['sampler']}, guidance {settings['guidance_scale']:g}"
        + (f", {width}×{height} pixels" if width else ""),
        **_balance_facts(settings["balance"]),
        "attention": f"{words}, layers {_layers(settings['layers'])}",
    }


def _layers(layers: int | str) -> str:
    return f"at 1/{layers} of the latent's resolution" if isinstance(layers, int) else f"named {layers}"


def _times(runs: list[Run]) -> str:
    return ", ".join(f"{run.name} {run.seconds:.1f} s" for run in runs)


def _versions() -> str:
    try:
        own = version("realcompo")
    except PackageNotFoundError:  # run from the source folder
        own = "from source"
    others = (f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return f"realcompo {own}, {', '.join(others)}, Python {platform.python_version()}"
