"""Runs of one prompt: each branch alone, then both balanced, from the same noise; and the report about them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from PIL import Image

from realcompo_core.diffusers import Output, RealCompoPipeline
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance import named_settings
from realcompo_core.guidance.branch import branch_names
from realcompo_core.guidance.latent_guidance import LatentGuidance
from realcompo_core.guidance.mixing import RegionWeights
from realcompo_core.guidance.presets import DEFAULT, PRESETS
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.weight_schedule import WeightSchedule
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
        alone = replace(settings["balance"], fixed=torch.tensor(ALONE[name]), layout_guidance=None)
        settings = settings | {"balance": alone}
    start = time.perf_counter()
    try:
        output = pipeline(prompt, layout, progress=progress, **settings)
    except torch.OutOfMemoryError as error:
        raise MemoryFullError(f"not enough memory for the {name} run: choose a smaller --size or --dtype") from error
    return Run(name, output, time.perf_counter() - start)


def report_on(
    pipeline: RealCompoPipeline,
    prompt: str,
    runs: list[Run],
    settings: dict[str, Any],
    facts: dict[str, str],
    notes: dict[str, str] | None = None,
) -> Report:
    """The report about `runs` of `pipeline`, the balanced one last. `notes` are lines below their pictures, by name."""
    output = runs[-1].output
    return Report(
        prompt=prompt,
        layout=output.layout,
        pictures=[Picture(run.name, run.image, (notes or {}).get(run.name, "")) for run in runs],
        trace=output.trace,
        facts=facts
        | _settings_facts(settings)
        | _guidance_facts(pipeline.layout_guidance(settings["balance"]))
        | {"time": _times(runs), "versions": versions()},
    )


def balance_settings(preset: str | None, **given: Any) -> BalanceSettings:
    """The preset's settings with what was `given` by name (see `named_settings`); None was not given.

    Without a preset it is the default one if nothing else is given, and the plain settings otherwise. Raises
    RealCompoError for an option that has no meaning beside the others.
    """
    given = {name: value for name, value in given.items() if value is not None}
    own = BalanceSettings() if given and preset is None else PRESETS[preset or DEFAULT]
    named = named_settings.named_settings(own) | given
    for name, reason in named_settings.unused(named).items():
        if name in given:
            raise RealCompoError(
                f"{_option(name)} {_plain(given[name])} has no meaning with {_option(reason.setting)} {reason.value}: "
                f"take {_option(reason.setting)} {reason.instead}"
            )
    return named_settings.balance_settings(named)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _balance_facts(balance: BalanceSettings) -> dict[str, str]:
    if isinstance(balance.fixed, RegionWeights):
        return {"balance": f"fixed, the spatial branch's weight is {_where(balance.fixed)}"}
    if isinstance(balance.fixed, WeightSchedule):
        return {"balance": f"fixed, {_schedule_fact(balance.fixed)}"}
    sources = {None: "all branches", "spatial": "the spatial branch"}.get(
        balance.sources, f"branches {balance.sources}"
    )
    return {
        "balance": f"{balance.mode}, by the attention of {sources}, rule {balance.rule} × {balance.rate:g}, initial "
        f"coefficients: {balance.initial}",
        "branches": _phases(balance.t0, "balanced", balance.t1, "the fidelity branch alone"),
    }


def _guidance_facts(branches: Sequence[LatentGuidance | None]) -> dict[str, str]:
    """branches: that of each, the fidelity branch first."""
    told: dict[str, list[str]] = {}
    for name, guidance in zip(branch_names(len(branches)), branches, strict=True):
        if guidance is not None:
            told.setdefault(guidance.name, []).append(guidance.told(f"the {name} branch's"))
    return {name: "; ".join(sentences) for name, sentences in told.items()}


def _where(weights: RegionWeights) -> str:
    inside, outside = (f"{share:g}" for share in weights)
    return f"{inside} everywhere" if inside == outside else f"{inside} on the objects, {outside} elsewhere"


def _schedule_fact(schedule: WeightSchedule) -> str:
    """What a WeightSchedule does, in words."""
    weights = f"the spatial branch's weight {_where(schedule.start)}"
    end = "the fidelity branch alone" if schedule.end == (0, 0) else f"the weight {_where(schedule.end)}"
    if schedule.shape != "step":
        weights += f", falling to {_where(schedule.end)} ({schedule.shape})"
    return _phases(schedule.t0, weights, schedule.until, end)


def _phases(t0: float, between: str, t1: float, end: str) -> str:
    """What was done when: the spatial branch alone until `t0`, then `between` until `t1`, then `end`."""
    phases = [f"the spatial branch alone until {t0:.0%} of the steps"] if t0 else []
    if t1 > t0:
        phases.append(f"{between} until {t1:.0%} of the steps" if t1 < 1 else f"{between} to the end")
    if max(t0, t1) < 1:
        phases.append(end)
    return ", then ".join(phases)


def _settings_facts(settings: dict[str, Any]) -> dict[str, str]:
    width, height = settings.get("width"), settings.get("height")
    words = "adjectives and nouns" if settings["include_adjectives"] else "nouns"
    guided = settings["balance"].guided_until
    until = f" until {guided:.0%} of the steps" if guided < 1 else ""
    return {
        "seed": str(settings["seed"]),
        "sampling": f"{settings['steps']} steps of {settings['sampler']}, guidance {settings['guidance_scale']:g}"
        + until
        + (f", {width}×{height} pixels" if width else ""),
        **_balance_facts(settings["balance"]),
        "attention": f"{words}, layers {_layers(settings['layers'])}",
    }


def _layers(layers: int | str) -> str:
    return f"at 1/{layers} of the latent's resolution" if isinstance(layers, int) else f"named {layers}"


def _times(runs: list[Run]) -> str:
    return ", ".join(f"{run.name} {run.seconds:.1f} s" for run in runs)


def versions() -> str:
    """Of this project and of what it rests on."""
    others = (f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return f"realcompo {own_version()}, {', '.join(others)}, Python {platform.python_version()}"


def own_version() -> str:
    try:
        return version("realcompo")
    except PackageNotFoundError:  # run from the source folder
        return "from source"
