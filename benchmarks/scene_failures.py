"""Why scenes of the text-to-image model are not exact, with and without TokenCompose's LoRA.

    python benchmarks/scene_failures.py

Three measurements, by the number of objects:

- What the judge finds. `exact` and `present` are shares of the pictures: with what the prompt states and no more, and
  with all of its objects, whatever else there is (MultiGen's measure). Each object of a prompt is `right` (its shape in
  its colour), of the `wrong_colour`, of the `wrong_shape`, or `missing`; `swapped` are the wrong colours that another
  object of the prompt has. `extra` are shapes that belong to no object, and `relation` scenes whose objects are right
  and stand otherwise than stated.
- How far the attention of two nouns of a picture overlaps: the sum of the smaller of both normalised maps, 0 for maps
  apart and 1 for the same map, at the noise levels of the validation, on drawings of the same prompts.
- What the text encoder binds: a linear probe reads from the last layer's embedding of an object's noun what its colour
  is (`own`); another, trained for that, what the colour of another object is (`other`). Trained on captions of the
  training set, read on captions that no training run has seen. Chance is 0.17.

Writes results/scene_failures.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from realcompo_core.diffusers import RealCompoPipeline
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.text.tokens import phrase_tokens
from shapescenes import DEFAULTS
from shapescenes.judge import Detection, detect, load_judge, objects_present, states_hold
from shapescenes.measuring import as_tensor
from shapescenes.models import pipelines, tokencompose_pipeline
from shapescenes.tokencompose import RememberedLatents, example
from shapescenes.world import COLOURS, Kind, Prompt, Scene, held_out_scenes, training_scene
from tokencompose_core.losses import noun_targets
from tokencompose_core.runtime import Runtime
from tokencompose_core.supervision import SupervisedAttention
from tokencompose_core.training import noisy_inputs, sample_generator, supervised_layers
from tokencompose_core.validation import TIMESTEP_SHARES

RESULTS = Path(__file__).parent / "results"
BATCH = 20
PROBE_SEED, PROBE_CAPTIONS = 11, 3000
OUTCOMES = ("right", "wrong_colour", "wrong_shape", "missing")
PICTURES = ("exact", "present", "extra", "relation")


def outcomes(prompt: Prompt, found: Sequence[Detection]) -> Counter[str]:
    """How many objects of a prompt came out how, and the other counts of one picture (see above)."""
    found = list(found)
    wanted, left = list(prompt.kinds), found.copy()
    counts: Counter[str] = Counter()

    def match(name: str, same) -> None:
        for kind in list(wanted):
            detection = next((d for d in left if same(kind, d)), None)
            if detection is None:
                continue
            wanted.remove(kind)
            left.remove(detection)
            counts[name] += 1
            others = {other.colour for other in prompt.kinds} - {kind.colour}
            counts["swapped"] += name == "wrong_colour" and detection.colour in others

    match("right", lambda kind, d: (kind.shape, kind.colour) == (d.shape, d.colour))
    match("wrong_colour", lambda kind, d: kind.shape == d.shape)
    match("wrong_shape", lambda kind, d: kind.colour == d.colour)
    counts["missing"], counts["extra"] = len(wanted), len(left)
    all_right = counts["right"] == len(prompt.kinds) and not left
    counts["exact"], counts["present"] = int(states_hold(prompt, found)), int(objects_present(prompt, found))
    counts["relation"] = int(all_right and not counts["exact"])
    return counts


def confusion(pipeline: StableDiffusionPipeline, scenes: Sequence[Scene], seeds: int) -> dict[str, dict[str, float]]:
    """By the number of objects: shares of the objects by outcome, and the other counts a picture."""
    alone = BalanceSettings(fixed=torch.tensor([1.0, 0.0]))
    model, judge = RealCompoPipeline(pipeline, pipeline), load_judge()
    sums: dict[int, Counter[str]] = defaultdict(Counter)
    for seed, first in itertools.product(range(seeds), range(0, len(scenes), BATCH)):
        part = scenes[first : first + BATCH]
        output = model(
            [scene.prompt.caption for scene in part],
            [scene.layout for scene in part],
            **{**DEFAULTS, "balance": alone, "seed": 1000 * seed + first},
        )
        for scene, found in zip(part, detect(judge, as_tensor(output.images)), strict=True):
            count = len(scene.prompt.kinds)
            sums[count] += outcomes(scene.prompt, found) + Counter(pictures=1, objects=count)
    return {
        str(count): {
            **{name: round(total[name] / total["objects"], 3) for name in (*OUTCOMES, "swapped")},
            **{name: round(total[name] / total["pictures"], 3) for name in PICTURES},
        }
        for count, total in sorted(sums.items())
    }


@torch.no_grad()
def overlap(pipeline: StableDiffusionPipeline, scenes: Sequence[Scene], adjectives: bool) -> dict[str, float]:
    """Overlap of two nouns' attention by number of objects: the mean over pairs, layers, heads and noise levels."""
    model, runtime = RememberedLatents(pipeline), Runtime()
    supervised = SupervisedAttention(model.attention, supervised_layers(model.attention))
    found: dict[int, list[float]] = defaultdict(list)
    for number, scene in enumerate(scenes):
        shown = example(scene, pipeline.tokenizer, 10**7 + number, adjectives)
        if len(shown["tokens"]) < 2:
            continue
        wanted = noun_targets([shown["tokens"]], [shown["masks"]])
        for share in TIMESTEP_SHARES:
            timestep = torch.tensor([int(share * len(model.alphas))])
            noisy, _, conditioning = noisy_inputs(
                model, [shown], [shown["caption"]], [sample_generator(0, number)], timestep, runtime
            )
            with supervised.recording(wanted.columns, tuple(noisy.shape[-2:])) as maps:
                model.predict(model.network, noisy, timestep, conditioning)
            found[len(scene.objects)] += [pair_overlap(columns, wanted.members[0]) for columns in maps.values()]
    return {str(count): round(sum(values) / len(values), 3) for count, values in sorted(found.items())}


def pair_overlap(columns: Tensor, members: Tensor) -> float:
    """columns: (1, heads, columns, h, w) of one layer; members: (nouns, columns), which columns are a noun's."""
    maps = torch.einsum("hcp,nc->nhp", columns[0].flatten(2).float(), members.float())
    maps = maps / maps.sum(-1, keepdim=True).clamp_min(1e-12)
    return float(torch.stack([torch.minimum(a, b).sum(-1).mean() for a, b in itertools.combinations(maps, 2)]).mean())


@torch.no_grad()
def nouns(pipeline: StableDiffusionPipeline, scenes: Sequence[Scene]) -> list[tuple[Tensor, Kind, Kind, int]]:
    """For each object with others of another colour beside it: embedding of its noun, it, another one, their number."""
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    chunk, found = tokenizer.model_max_length, []
    for scene in scenes:
        kinds = list(dict.fromkeys(scene.prompt.kinds))
        if len({kind.colour for kind in kinds}) < 2:
            continue
        caption = scene.prompt.caption
        phrases = [kind.phrase for kind in scene.prompt.kinds]
        places = phrase_tokens(tokenizer, caption, phrases, include_adjectives=False, weights=False, chunk=chunk)
        ids = tokenizer([caption], padding="max_length", truncation=True, return_tensors="pt").input_ids
        states = encoder(ids).last_hidden_state[0]
        for kind, tokens in zip(scene.prompt.kinds, places, strict=True):
            other = next(o for o in (*kinds[kinds.index(kind) + 1 :], *kinds) if o.colour != kind.colour)
            found.append((states[list(tokens)].mean(0), kind, other, len(scene.objects)))
    return found


def probe(pipeline: StableDiffusionPipeline, scenes: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """Share of colours that a linear probe reads right, of the noun's object and of another, by number of objects."""
    training = [training_scene(PROBE_SEED, i, (0, 0.4, 0.3, 0.3)) for i in range(PROBE_CAPTIONS)]
    known, unseen = nouns(pipeline, training), nouns(pipeline, scenes)
    colours = list(COLOURS)
    features, tested = (torch.stack([state for state, *_ in part]) for part in (known, unseen))
    mean, spread = features.mean(0), features.std(0).clamp_min(1e-6)
    result: dict[str, dict[str, float]] = defaultdict(dict)
    for name, place in (("own", 1), ("other", 2)):
        wanted, truth = (torch.tensor([colours.index(row[place].colour) for row in part]) for part in (known, unseen))
        read = fit((features - mean) / spread, wanted)((tested - mean) / spread).argmax(1)
        for count in sorted({row[3] for row in unseen}):
            chosen = torch.tensor([row[3] == count for row in unseen])
            result[str(count)][name] = round(float((read == truth)[chosen].float().mean()), 3)
    return dict(result)


def fit(features: Tensor, wanted: Tensor) -> torch.nn.Linear:
    """Multinomial logistic regression with a little weight decay."""
    torch.manual_seed(0)
    model = torch.nn.Linear(features.shape[1], len(COLOURS))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(features), wanted) + 1e-4 * model.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model.requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3, help="pictures a prompt")
    parser.add_argument("--output", type=Path, default=RESULTS / "scene_failures.json")
    arguments = parser.parse_args()
    scenes = held_out_scenes(arguments.prompts)
    text_to_image, _ = pipelines()
    document: dict = {"prompts": arguments.prompts, "seeds": arguments.seeds, "torch": torch.__version__}
    document["text_encoder"] = probe(text_to_image, scenes)
    print(document, flush=True)
    for name, model in (("frozen", text_to_image), ("tokencompose", tokencompose_pipeline(text_to_image))):
        document[name] = {
            "objects": confusion(model, scenes, arguments.seeds),
            "overlap": {kind: overlap(model, scenes[:100], kind == "phrases") for kind in ("nouns", "phrases")},
        }
        print(name, document[name], flush=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
