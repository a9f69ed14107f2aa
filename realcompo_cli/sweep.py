"""A sweep over two settings: each cell sampled, measured and kept, and all of them drawn as one grid."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from realcompo_core.diffusers import Control, Output, RealCompoPipeline
from realcompo_core.diffusers.denoisers import denoiser_of, network_of
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.named_settings import balance_settings, named_settings, unused
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout
from realcompo_core.sweep import measures
from realcompo_core.sweep.drawing import draw_grid
from realcompo_core.sweep.plan import BALANCE, PIPELINE, Plan, parse_axis, parse_value, setting_name
from shapescenes import DEFAULTS
from shapescenes.files import WEIGHTS
from shapescenes.judge import detect, found_in_boxes, load_judge
from shapescenes.measuring import as_tensor, judge_pictures, real_features
from shapescenes.measuring import measures as scene_measures
from shapescenes.world import held_out_scenes

from .files import Files, fingerprint_of, png
from .runs import ALONE, MemoryFullError, own_version, versions
from .systems import Models

SETTINGS = {**BALANCE, **PIPELINE}
SIZES = ("width", "height")  # which the bundled models and their judge have fixed
BATCH = 20  # held-out prompts in one sampling
REAL_SEED = 10**6  # of the real pictures that realism is a distance to, as in the published table
ONLY_SPATIAL = ("balance", "beta", "layers", "include_adjectives")  # what the fidelity model's own picture has not
CELLS = "cells"  # the folder of what was sampled

Tell = Callable[[int, int], None]
"""Called with how many steps are done of how many."""
Numbers = measures.Numbers


def parse_plan(x: str, y: str | None, bundled: bool) -> Plan:
    """The axes from what was written, "t0=0,0.1". Raises RealCompoError."""
    settings = _settings(bundled)
    axes = []
    for option, text in (("--x", x), ("--y", y)):
        if text is not None:
            name, equals, values = text.partition("=")
            if not equals:
                raise RealCompoError(f"{option} is {text!r}: write a setting and its values, such as t0=0,0.2,0.4")
            axes.append(parse_axis(name, values, settings))
    return Plan(*axes)


def parse_given(texts: Sequence[str], bundled: bool) -> dict[str, Any]:
    """The settings of all cells from what was written, "steps=8". Raises RealCompoError."""
    settings, given = _settings(bundled), {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise RealCompoError(f"--set is {text!r}: write a setting and its value, such as steps=8")
        found = setting_name(name, settings)
        if found in given:
            raise RealCompoError(f"--set has {found} twice")
        given[found] = parse_value(found, value.strip(), settings)
    return given


def _settings(bundled: bool) -> dict:
    return {name: parse for name, parse in SETTINGS.items() if not (bundled and name in SIZES)}


def own_settings(bundled: bool) -> dict[str, Any]:
    """What holds where nothing is given: as `realcompo demo` or `generate` has it where a setting is given."""
    chosen = DEFAULTS if bundled else {"steps": 50, "sampler": "plms", "guidance_scale": 7.5, "layers": 4}
    own = named_settings(chosen.get("balance", BalanceSettings())) | {
        "beta": 1.0,
        "cfg": chosen["guidance_scale"],
        "seed": 7 if bundled else 0,
        "negative": "",
        "include_adjectives": chosen.get("include_adjectives", False),
    }
    own |= {name: chosen[name] for name in ("steps", "sampler", "layers")}
    return own if bundled else own | dict.fromkeys(SIZES)


def call_arguments(named: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of RealCompoPipeline's call."""
    same = ("beta", "steps", "seed", "sampler", "layers", "include_adjectives", "width", "height")
    return {name: named[name] for name in same if name in named} | {
        "guidance_scale": named["cfg"],
        "negative_prompt": named["negative"] or None,
        "balance": balance_settings(named),
    }


def check_settings(pipeline: RealCompoPipeline, settings: Sequence[Mapping[str, Any]]) -> None:
    """Raises RealCompoError for `layers` that a model does not have, and `layout_guidance` that no branch takes."""
    for named in settings:
        if named["layout_guidance"] not in (None, *pipeline.layout_guidance(balance_settings(named))):
            raise RealCompoError("layout_guidance has no meaning: the spatial branch has Layout Guidance of its own")
    for layers in dict.fromkeys(named["layers"] for named in settings):
        for each in pipeline.pipelines:
            denoiser_of(network_of(each)).source().choose(layers)


@dataclass(frozen=True)
class Subject:
    """What all cells draw, and with which models. `models`: which these are, so that no others are taken for them."""

    prompt: str
    layout: Layout
    pipeline: RealCompoPipeline
    controls: Sequence[Control]
    models: Any

    def sample(self, arguments: Mapping[str, Any], tell: Tell) -> Output:
        return self.sample_all([self.prompt], [self.layout], arguments, tell)

    def sample_all(
        self, prompts: Sequence[str], layouts: Sequence[Layout], arguments: Mapping[str, Any], tell: Tell
    ) -> Output:
        try:
            return self.pipeline(prompts, layouts, controls=self.controls, progress=tell, **arguments)
        except torch.OutOfMemoryError as error:
            raise MemoryFullError("not enough memory for a cell: choose a smaller --set width or --dtype") from error


class Measure(Protocol):
    """How a cell is measured. `kind`: what decides its numbers beside the settings."""

    kind: str

    def numbers(self, subject: Subject, arguments: dict, output: Output, tell: Tell) -> Numbers:
        """The cell's numbers by name."""

    def lines(self, numbers: Numbers) -> list[str]:
        """What is written below the cell's picture."""

    def captions(self, numbers: Numbers) -> list[str]:
        """What that means."""


class JudgedPicture:
    """The judge's verdict on the cell's own picture."""

    kind = "judge"
    lines, captions = staticmethod(measures.lines), staticmethod(measures.captions)

    def __init__(self):
        self._judge = load_judge()

    def numbers(self, subject: Subject, arguments: dict, output: Output, tell: Tell) -> Numbers:
        (found,) = detect(self._judge, as_tensor(output.images))
        hits, others = found_in_boxes(subject.layout, found)
        return {"found": sum(hits), "objects": len(hits), "others": len(others)}


class HeldOutScenes:
    """Accuracy and realism on prompts that no training run has seen, with their true layouts."""

    def __init__(self, count: int):
        self._judge, self._scenes = load_judge(), held_out_scenes(count)
        self._layouts = [scene.layout for scene in self._scenes]
        self._real = real_features(self._scenes, self._judge, REAL_SEED)
        self.kind = f"{count} held-out scenes"

    def numbers(self, subject: Subject, arguments: dict, output: Output, tell: Tell) -> Numbers:
        judged, features = [], []
        for first in range(0, len(self._scenes), BATCH):
            part = slice(first, first + BATCH)
            prompts = [scene.prompt.caption for scene in self._scenes[part]]
            own = {**arguments, "seed": arguments["seed"] + first}
            images = subject.sample_all(prompts, self._layouts[part], own, tell).images
            told, seen = judge_pictures(self._judge, self._scenes[part], self._layouts[part], images)
            judged += told
            features.append(seen)
        values = scene_measures(judged, np.concatenate(features), self._real)
        return {name: None if np.isnan(value) else round(value, 4) for name, value in values.items()}

    def lines(self, numbers: Numbers) -> list[str]:
        return [f"exact {numbers['accuracy_all']:.2f}", f"distance {numbers['realism']:.2f}"]

    def captions(self, numbers: Numbers) -> list[str]:
        count = len(self._scenes)
        return [
            f"exact: share of {count} held-out scenes, drawn with their true layouts, in which the judge finds the "
            "stated objects in the stated relations and nothing more.",
            "distance: Fréchet distance of these pictures to real scenes; smaller is more real. It grows as scenes get "
            f"fewer, so compare it with that of {count} scenes only.",
        ]


class AttentionAndDifference:
    """Without a judge: the attention inside the regions, and what is left of the fidelity model's own picture."""

    kind = "attention"
    lines, captions = staticmethod(measures.lines), staticmethod(measures.captions)

    def __init__(self):
        self._alone: dict[str, np.ndarray] = {}  # the fidelity model's own pictures

    def numbers(self, subject: Subject, arguments: dict, output: Output, tell: Tell) -> Numbers:
        return {
            "attention_inside": measures.attention_inside(output.trace),
            "difference": measures.rms_difference(
                _pixels(output.images[0]), self._fidelity_alone(subject, arguments, tell)
            ),
        }

    def _fidelity_alone(self, subject: Subject, arguments: dict, tell: Tell) -> np.ndarray:
        """Its own picture, with the cell's seed, steps, guidance and so on."""
        alone = {**arguments, "balance": BalanceSettings(fixed=torch.tensor(ALONE["fidelity"]))}
        key = str({name: value for name, value in alone.items() if name not in ONLY_SPATIAL})
        if key not in self._alone:
            self._alone[key] = _pixels(subject.sample(alone, tell).images[0])
        return self._alone[key]


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")) / 255


@dataclass(frozen=True)
class Cell:
    """A finished cell: its picture, its numbers, and the seconds that both took."""

    image: Image.Image
    numbers: Numbers
    seconds: float


class CellStore:
    """Finished cells as files. `stem` is a file's name without its end; a picture counts once its numbers are there."""

    def __init__(self, files: Files):
        self._files = files

    def read(self, stem: str, identity: Mapping[str, Any]) -> Cell | None:
        """The cell, if it was made by the same `identity`."""
        folder = self._files.folder
        try:
            known = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
            if known["made_by"] != identity:
                return None
            with Image.open(folder / f"{stem}.png") as image:
                return Cell(image.convert("RGB"), known["numbers"], known["seconds"])
        except (OSError, ValueError, KeyError, TypeError):  # not there, or no file of ours: the cell is run
            return None

    def write(self, stem: str, identity: Mapping[str, Any], cell: Cell) -> None:
        self._files.write(f"{stem}.png", png(cell.image))
        document = {"made_by": identity, "numbers": cell.numbers, "seconds": round(cell.seconds, 2)}
        self._files.write(f"{stem}.json", json.dumps(document | {"versions": versions()}, indent=1) + "\n")


def cell_stem(title: str, identity: Mapping[str, Any]) -> str:
    """A name that a reader knows the cell by, and that no other cell has."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
    return f"{re.sub(r'[^A-Za-z0-9._=-]+', '_', title.replace(' = ', '='))[:60]}_{digest}"


@dataclass(frozen=True)
class Sweep:
    """What is swept, and how it is measured. `settings`: all of each cell's, row by row, as `resolve` gives them."""

    subject: Subject
    plan: Plan
    settings: list[dict[str, Any]]
    measure: Measure

    def identity(self, index: int) -> dict[str, Any]:
        """What decides a cell, as JSON."""
        arguments = call_arguments(self.settings[index])
        return {
            "prompt": self.subject.prompt,
            "layout": json.loads(self.subject.layout.to_json()),
            "models": self.subject.models,
            "measured_by": self.measure.kind,
            "version": own_version(),
            "settings": {name: str(value) for name, value in arguments.items()},
        }

    def stem(self, index: int) -> str:
        return cell_stem(self.plan.titles[index], self.identity(index))

    def run(self, index: int, tell: Tell) -> Cell:
        """One cell. `tell` is called for the picture's steps, then for those of what measures it."""
        start, arguments = time.perf_counter(), call_arguments(self.settings[index])
        output = self.subject.sample(arguments, tell)
        numbers = self.measure.numbers(self.subject, arguments, output, tell)
        return Cell(output.images[0], numbers, time.perf_counter() - start)


def write_results(files: Files, sweep: Sweep, cells: Sequence[Cell | None], command: str) -> None:
    """The grid, and the numbers as CSV and JSON. Cells that were not run are empty; one was at least."""
    lines = [[] if cell is None else sweep.measure.lines(cell.numbers) for cell in cells]
    captions = next(sweep.measure.captions(cell.numbers) for cell in cells if cell is not None)
    pictures = [None if cell is None else cell.image for cell in cells]
    grid = draw_grid(sweep.plan, pictures, lines, sweep.subject.prompt, captions)
    files.write_picture("sweep.png", grid)
    rows = [
        {**labels, **cell.numbers, "seconds": round(cell.seconds, 2), "picture": f"{CELLS}/{sweep.stem(i)}.png"}
        for i, (labels, cell) in enumerate(zip(sweep.plan.labels, cells, strict=True))
        if cell is not None
    ]
    files.write("sweep.csv", measures.as_csv(rows))
    idle = set.intersection(*(set(unused(named)) for named in sweep.settings))
    axes = {axis.name: list(axis.labels) for axis in (sweep.plan.x, sweep.plan.y) if axis is not None}
    shared = {name: value for name, value in sweep.settings[0].items() if name not in axes and name not in idle}
    document = {
        "command": command,
        "prompt": sweep.subject.prompt,
        "models": sweep.subject.models,
        "axes": axes,
        "settings": {name: value for name, value in shared.items() if value is not None},
        "numbers": captions,
        "versions": versions(),
        "cells": rows,
    }
    files.write("sweep.json", json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n")


def check_options(models: Models, system: str, prompts: int) -> None:
    """Raises RealCompoError for options that do not go together."""
    if models.fidelity is None:
        for option in models.given():
            raise RealCompoError(f"{option} has no meaning with the bundled models: give --fidelity too")
        return
    models.check()
    if system != "v1":
        raise RealCompoError(f"--system {system} is one of the bundled models: leave it out with --fidelity")
    if prompts > 1:
        raise RealCompoError(
            f"--prompts {prompts} has no meaning with your own models: no judge can tell what is in their pictures"
        )


def bundled_models(system: str) -> str:
    """Which weights the bundled models have."""
    return f"ShapeScenes {system} " + hashlib.sha256((WEIGHTS / "checksums.json").read_bytes()).hexdigest()[:10]


def named_models(models: Models) -> dict[str, Any]:
    """Which files the user's models are: their places, sizes and times, and how they are used."""
    found = {}
    for name, value in asdict(models).items():
        paths = [value] if isinstance(value, Path) else value if name == "controlnets" else []
        files = [{"path": str(path.resolve()), "files": fingerprint_of(path)} for path in paths]
        found[name] = files or (list(value) if isinstance(value, tuple) else value)
    return found
