"""Attention mIoU: does a model attend to each noun where it is, in pictures that people have outlined."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from realcompo_core.attention.grounding_metrics import grounding_table, mask_target
from realcompo_core.bench.scores import Metric
from realcompo_core.diffusers.inversion import Inversion, cut_to_fit, invert
from realcompo_core.diffusers.latents import picture_size
from realcompo_core.errors import RealCompoError
from tokencompose_core.records import Record, RecordError, each_record

from ..attention import NO_MEMORY, Pipeline
from ..files import Files
from ..json_lines import JsonLines, entries_of
from ..runs import MemoryFullError
from .run import ADVICE, RunError

SETTINGS = "settings.json"
COLUMNS = ("iou", "share", "concentration")


@dataclass(frozen=True)
class Setting:
    """How pictures are inverted (R16); `identity`: of the set of pictures; `models`: by the results' names."""

    steps: int
    guidance_scale: float
    identity: str
    models: Mapping[str, Any]

    def keep_in(self, files: Files) -> None:
        """Raises RunError where the folder has results of another setting, or of another model of the same name."""
        path = files.folder / SETTINGS
        own = {"steps": self.steps, "guidance_scale": self.guidance_scale, "pictures": self.identity}
        known = _read_settings(path) if path.exists() else {**own, "models": {}}
        for name, value in own.items():
            if known[name] != value:
                raise RunError(
                    f"{files.folder} has results of {name} {known[name]}, not {value}. Choose another --output"
                )
        for name, model in self.models.items():
            if known["models"].get(name, model) != model:
                raise RunError(f"{files.folder} has results of another model {name}. Choose another --output")
        document = known | {"models": {**known["models"], **self.models}}
        files.write(SETTINGS, json.dumps(document, indent=1) + "\n")


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(known["models"], dict) or not {"steps", "guidance_scale", "pictures"} <= known.keys():
            raise ValueError("it does not say all")
        return known
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}): choose another --output") from error


def measure(
    files: Files,
    name: str,
    pipeline: Pipeline,
    records: Sequence[Record],
    setting: Setting,
    tell: Callable[[], None],
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """A line for each record, of which those that are there already are not measured again.

    A record that cannot be read, or has no noun with a mask, is told of in its line as a "problem".
    """
    path = files.folder / f"{name}.jsonl"
    lines = JsonLines(path, "the list of results", ADVICE, lambda entry: "problem" not in entry)
    known = {entry["key"]: entry for entry in entries_of(path.read_bytes() if path.exists() else b"") if "key" in entry}
    found = []
    for index, record in enumerate(each_record(records)):
        if limit is not None and index >= limit:
            break
        key = record.where if isinstance(record, RecordError) else record.key
        if key not in known:
            known[key] = {"key": key, "where": record.where} | _measured(pipeline, record, setting)
            lines.add(known[key])
        found.append(known[key])
        tell()
    return found


def _measured(pipeline: Pipeline, record: Record | RecordError, setting: Setting) -> dict[str, Any]:
    try:
        if isinstance(record, RecordError):
            raise record
        masks = {noun: source for noun, source in record.nouns if source is not None}
        if not masks:
            raise RealCompoError("no noun has a mask")
        picture = _picture(record, record.read(record.image)).convert("RGB")
        size = picture_size(pipeline, None, None)
        outlines = {
            noun: np.asarray(cut_to_fit(_picture(record, record.read(source)), size).convert("L")) > 127
            for noun, source in masks.items()
        }
        inverted = _inverted(pipeline, picture, record.caption, setting)
        branch = inverted.maps.branch()
        targets = [mask_target(branch, noun, torch.from_numpy(outline)) for noun, outline in outlines.items()]
        rows = grounding_table(branch, [targets])
    except MemoryFullError:
        raise
    except RecordError as error:
        return {"problem": f"{error.kind}: {error.message}"}
    except RealCompoError as error:
        return {"problem": str(error)}
    nouns = [{"noun": row.label} | {c: round(getattr(row, c), 6) for c in COLUMNS} for row in rows]
    return {"psnr": round(inverted.psnr, 3), "nouns": nouns}


def _inverted(pipeline: Pipeline, picture: Image.Image, caption: str, setting: Setting) -> Inversion:
    try:
        return invert(pipeline, picture, caption, steps=setting.steps, guidance_scale=setting.guidance_scale)
    except torch.OutOfMemoryError as error:
        raise MemoryFullError(NO_MEMORY + ", or --cfg 1, which needs no gradients") from error


def _picture(record: Record, content: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            return picture
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise record.error("undecodable image", str(error)) from error


def summary(lines: Sequence[Mapping[str, Any]]) -> tuple[list[Metric], list[str]]:
    """mIoU and the other grounding metrics, means over nouns; and what is not in them."""
    nouns = [noun for line in lines for noun in line.get("nouns", ())]
    named = {"iou": "mIoU", "share": "share inside", "concentration": "concentration"}
    metrics = [
        Metric(title, float(np.mean([n[column] for n in nouns])) if nouns else np.nan, len(nouns))
        for column, title in named.items()
    ]
    psnr = [line["psnr"] for line in lines if "psnr" in line]
    metrics.append(Metric("PSNR, dB", float(np.mean(psnr)) if psnr else np.nan, len(psnr)))
    return metrics, [f"{line['where']}: {line['problem']}" for line in lines if "problem" in line]


def table(results: Mapping[str, tuple[list[Metric], list[str]]], command: str) -> str:
    """The models side by side, in Markdown."""
    titles = [metric.name for metric in next(iter(results.values()))[0]]
    rows = [["", *results], ["---"] * (1 + len(results))]
    for i, title in enumerate(titles):
        rows.append([title, *(f"{metrics[i].value:.4f} ({metrics[i].count})" for metrics, _ in results.values())])
    lines = ["# Attention mIoU", "", *("| " + " | ".join(row) + " |" for row in rows), ""]
    lines += [
        "Means over nouns with a mask; in brackets how many. IoU as in DAAM: maps above 0.4 of their largest value."
    ]
    for name, (_, problems) in results.items():
        lines += ["", *(f"- {name}: {problem}" for problem in problems)] if problems else []
    return "\n".join([*lines, "", f"`{command}`"]) + "\n"
