"""Prompt-to-Prompt on ShapeScenes: does the edit show, and does the rest stay where it is?

    python benchmarks/prompt_to_prompt.py                  # 100 prompts, two models
    python benchmarks/prompt_to_prompt.py --prompts 10 --output /tmp/quick.json

Prompts are captions that no training run has seen, of two and more objects that all differ, in which one word is
exchanged: the colour of an object, or its shape. Only pictures count whose source is exact, as the judge sees it:
`sources` is their number. `edited` is the share of them whose edited picture is exact, too; `kept` the share of the
other objects that are in both pictures within 8 of 128 pixels of each other. `apart` is the same prompts from the same
noise without Prompt-to-Prompt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import numpy as np
from diffusers import StableDiffusionPipeline
from rich.progress import track

from realcompo_core.attention.prompt_to_prompt import PromptToPrompt
from realcompo_core.diffusers.prompt_to_prompt import edit
from shapescenes import DEFAULTS
from shapescenes.judge import Detection, Judge, detect, load_judge, states_hold
from shapescenes.measuring import as_tensor
from shapescenes.models import pipelines, tokencompose_pipeline
from shapescenes.world import COLOURS, SHAPES, Kind, Prompt, held_out_scenes

RESULTS = Path(__file__).parent / "results" / "prompt_to_prompt.json"
NEAR = 8.0  # pixels
SETTINGS = {
    "apart": PromptToPrompt(cross=0.0, self_attention=0.0),
    "cross 0.4": PromptToPrompt(cross=0.4, self_attention=0.0),
    "cross 0.8": PromptToPrompt(cross=0.8, self_attention=0.0),
    "cross 0.8, self 0.4 (default)": PromptToPrompt(),
    "cross 0.8, self 0.8": PromptToPrompt(cross=0.8, self_attention=0.8),
    "default, blended": PromptToPrompt(),  # by the changed object's shape
}


class Case(NamedTuple):
    """kind: of change. blend: the shape's words in both prompts."""

    kind: str
    source: Prompt
    edited: Prompt
    blend: tuple[str, str]


def cases(count: int) -> Iterator[Case]:
    """Each prompt with one colour, or one shape, exchanged for one that it does not have."""
    rng = np.random.default_rng(0)
    for number, scene in enumerate(held_out_scenes(4 * count)):
        if count == 0:
            return
        prompt, changed = scene.prompt, number % 2 == 0
        kinds = prompt.kinds
        names = [kind.noun_phrase for kind in kinds]
        if len(kinds) < 2 or len({kind.shape for kind in kinds}) < len(kinds) or "two" in prompt.caption:
            continue
        first = kinds[0]
        unused = [c for c in COLOURS if all(c != k.colour for k in kinds)] if changed else None
        unused = unused or [s for s in SHAPES if all(s != k.shape for k in kinds)]
        if not unused or any(prompt.caption.count(name) != 1 for name in names):
            continue
        word = str(rng.choice(unused))
        new: Kind = replace(first, colour=word) if changed else replace(first, shape=word)
        caption = prompt.caption.replace(first.noun_phrase, new.noun_phrase)
        count -= 1
        yield Case(
            "colour" if changed else "shape",
            prompt,
            replace(prompt, caption=caption, kinds=(new, *kinds[1:])),
            (first.shape, new.shape),
        )


def kept(case: Case, source: list[Detection], edited: list[Detection]) -> float:
    """Share of the unchanged objects of an exact source that are near their place in the edited picture."""
    near = []
    for kind in case.source.kinds[1:]:
        (own,) = [d for d in source if (d.shape, d.colour) == (kind.shape, kind.colour)]
        found = [d for d in edited if (d.shape, d.colour) == (kind.shape, kind.colour)]
        near.append(any(np.hypot(d.x - own.x, d.y - own.y) <= NEAR for d in found))
    return float(np.mean(near))


def measured(pipeline: StableDiffusionPipeline, judge: Judge, settings: PromptToPrompt, case: Case, seed: int) -> tuple:
    """The case's kind, and with an exact source whether the edit is exact, and how much is kept."""
    options = {key: DEFAULTS[key] for key in ("steps", "sampler", "guidance_scale")}
    found = edit(pipeline, case.source.caption, case.edited.caption, settings, seed=seed, **options)
    source, edited = detect(judge, as_tensor([found.source, found.picture]))
    if not states_hold(case.source, source):
        return case.kind, None, None
    return case.kind, states_hold(case.edited, edited), kept(case, source, edited)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    judge, text_to_image = load_judge(), pipelines()[0]
    models = {"text_to_image": text_to_image, "tokencompose": tokencompose_pipeline(text_to_image)}
    rows = []
    for model, pipeline in models.items():
        for name, settings in SETTINGS.items():
            found = []
            for seed, case in track(list(enumerate(cases(arguments.prompts))), f"{model}, {name}"):
                own = replace(settings, blend=case.blend) if "blended" in name else settings
                found.append(measured(pipeline, judge, own, case, seed))
            row: dict = {"model": model, "settings": name, "prompts": len(found)}
            for kind in ("colour", "shape"):
                known = [(exact, share) for own, exact, share in found if own == kind and exact is not None]
                row[kind] = {"sources": len(known)}
                if known:
                    exact, share = (round(float(np.mean(values)), 3) for values in zip(*known, strict=True))
                    row[kind] |= {"edited": exact, "kept": share}
            rows.append(row)
            print(row, flush=True)
    document = {"command": f"python benchmarks/prompt_to_prompt.py --prompts {arguments.prompts}", "rows": rows}
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
