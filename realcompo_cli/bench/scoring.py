"""The scores of a run: the benchmark's own, what pictures cost, and how real and how much in style they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from realcompo_core.bench.prompts import Problem, Prompt
from realcompo_core.bench.scores import Metric, Picture, Scores
from realcompo_core.bench.seen import Seen
from realcompo_core.errors import RealCompoError
from shapescenes.benchmark import ShapeScenes, scene_of
from shapescenes.judge import frechet_distance, load_judge
from shapescenes.measuring import SIZE, as_tensor, real_features

from .looking import read_picture
from .run import Run
from .style import Encoder, style_metrics

REAL_SEED = 10**6  # of the real scenes that the distance is to, as in the published table
COST = "What a picture costs"
QUALITY = "Realism"
STYLE = "Style"
FILE = "scores.json"
WRITTEN = ("asked", "commands", "versions", "models", "pictures", "scored", "success", "problems")


@dataclass(frozen=True)
class Scored:
    """A run's scores and all that a report says of them. `pictures`: how many should be there."""

    scores: Scores
    problems: Sequence[Problem]
    pictures: int
    scored: int
    models: Mapping[str, Any]
    commands: Sequence[str]

    def document(self, run: Run) -> dict[str, Any]:
        return {
            "run": run.name,
            "asked": run.asked,
            "commands": list(self.commands),
            "versions": run.versions,
            "models": dict(self.models),
            "pictures": self.pictures,
            "scored": self.scored,
            "scores": self.scores.to_json(),
            "success": [[p.index, p.number, round(value, 6)] for p, value in self.scores.success.items()],
            "problems": [list(problem) for problem in self.problems],
        }


def score(
    run: Run,
    command: str,
    real: Path | None = None,
    weights: Path | None = None,
    reference: Path | None = None,
    encoder: Encoder | None = None,
) -> Scored:
    """Raises RealCompoError where no picture has been looked at.

    real: a folder of real pictures, for FID and KID. weights: of torch-fidelity's Inception, where it is offline.
    reference, encoder: the run of a stylised model alone, and by which features the distance to its style is measured.
    """
    seen = run.seen()
    if not seen:
        raise RealCompoError(f"no picture of {run.folder} has been looked at: run `realcompo bench detect` first")
    prompts = {prompt.index: prompt for prompt in run.prompts}
    scores = run.benchmark.score(prompts, seen)
    groups = dict(scores.groups)
    if quality := _quality(run, prompts, seen, real, weights):
        groups[QUALITY] = quality
    if reference is not None and encoder is not None:
        groups[STYLE] = style_metrics(run, list(seen), reference, encoder)
    if cost := _cost({p: entry for p, entry in run.generated().items() if p in run.pictures}):
        groups[COST] = cost
    for name, text in run.benchmark.official(prompts, seen).items():
        run.files.write(f"official/{name}", text)
    scored = Scored(
        replace(scores, groups=groups),
        run.problems(seen),
        len(run.pictures) + (0 if run.asked["limit"] else run.prompt_file.unread * run.asked["pictures"]),
        len(seen),
        run.experts,
        list(dict.fromkeys([*run.commands, command])),
    )
    run.files.write(FILE, json.dumps(scored.document(run), indent=1, ensure_ascii=False) + "\n")
    return scored


def _cost(generated: Mapping[Picture, Mapping[str, Any]]) -> tuple[Metric, ...]:
    """Seconds and memory of the pictures that this run made itself."""
    seconds = [entry["seconds"] for entry in generated.values() if "seconds" in entry]
    found = []
    if seconds:
        found.append(Metric("seconds, median", float(np.median(seconds)), len(seconds), lower=True))
        found.append(Metric("seconds, mean", float(np.mean(seconds)), len(seconds), float(np.std(seconds)), lower=True))
    for key, title in (
        ("gpu_mib", "peak of the GPU's memory, MiB"),
        ("process_mib", "peak of the process so far, MiB"),
    ):
        if peaks := [entry[key] for entry in generated.values() if key in entry]:
            found.append(Metric(title, float(max(peaks)), len(peaks), lower=True))
    return tuple(found)


def _quality(
    run: Run, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen], real: Path | None, weights: Path | None
) -> tuple[Metric, ...]:
    found: tuple[Metric, ...] = ()
    if run.asked["benchmark"] == ShapeScenes.name:
        found += (_scene_distance(run, prompts, seen),)
    if real is not None:
        from .fidelity import fid_and_kid

        found += fid_and_kid([run.pictures[p] for p in seen], real, weights)
    return found


def _scene_distance(run: Run, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Metric:
    """The Fréchet distance of the judge's features to those of real pictures of the same scenes."""
    judge = load_judge()
    scenes = [scene_of(prompts[index].record or {}) for index in sorted({p.index for p in seen})]
    features = []
    for picture in seen:
        image = read_picture(run.pictures[picture])
        image = image if image.size == SIZE else image.resize(SIZE, 4)
        features.append(judge.features(as_tensor([image])).detach().numpy())
    value = np.nan
    if len(features) > 1:
        value = frechet_distance(np.concatenate(features), real_features(scenes, judge, REAL_SEED))
    return Metric("distance to real scenes", float(value), len(features), lower=True)


def read_scored(folder: Path) -> dict[str, Any]:
    """What `score` has written there. Raises RealCompoError where it has not."""
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        Scores.from_json(document["scores"])
        if missing := [name for name in WRITTEN if name not in document]:
            raise ValueError(f"it does not say {missing[0]}")
        if not all(len(entry) == 3 and None not in entry for entry in document["success"]):
            raise ValueError("its successes are not whole")
        return document
    except FileNotFoundError as error:
        raise RealCompoError(f"{folder} has no scores: run `realcompo bench score` first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RealCompoError(f"{path} is damaged ({error}): run `realcompo bench score` again") from error
