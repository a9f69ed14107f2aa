"""ShapeScenes as a benchmark: MultiGen's and VISOR's metrics over coloured shapes, and exact scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from realcompo_core.bench.benchmark import Benchmark
from realcompo_core.bench.multigen import at_least, by_class, present
from realcompo_core.bench.prompts import Prompt, record_of, text_of
from realcompo_core.bench.scores import Metric, Picture, Scores, mean, mean_over_rounds
from realcompo_core.bench.seen import Seen, Wanted
from realcompo_core.bench.visor import holds
from shapescenes import judge
from shapescenes.world import (
    CATEGORIES,
    COLOURS,
    RELATIONS,
    SHAPES,
    Kind,
    Relation,
    Scene,
    SceneObject,
    held_out_scenes,
)
from shapescenes.world import Prompt as Statement

KINDS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


def scenes_file(count: int) -> str:
    """The first `count` held-out scenes, one in a line of JSON."""
    return "".join(json.dumps(_record(scene)) + "\n" for scene in held_out_scenes(count))


def _record(scene: Scene) -> dict[str, Any]:
    return {
        "prompt": scene.prompt.caption,
        "category": scene.prompt.category,
        "objects": [asdict(item.kind) | {"x": item.x, "y": item.y, "radius": item.radius} for item in scene.objects],
        "relations": [asdict(relation) for relation in scene.prompt.relations],
    }


def scene_of(record: Mapping[str, Any]) -> Scene:
    """The scene of a line. Raises KeyError, TypeError or ValueError."""
    objects = []
    for item in record["objects"]:
        kind = Kind(str(item["size"]), item["colour"], item["shape"])
        if kind.colour not in COLOURS or kind.shape not in SHAPES:
            raise ValueError(f"{kind.phrase!r} is none of this world")
        objects.append(SceneObject(kind, float(item["x"]), float(item["y"]), float(item["radius"])))
    if not objects:
        raise ValueError("objects is empty: there is nothing to look for")
    if not all(isinstance(r[end], int) for r in record["relations"] for end in ("subject", "other")):
        raise ValueError(f"relations {record['relations']!r}: subject and other are numbers of objects")
    relations = tuple(Relation(int(r["subject"]), str(r["word"]), int(r["other"])) for r in record["relations"])
    if any(r.word not in RELATIONS or {r.subject, r.other} - set(range(len(objects))) for r in relations):
        raise ValueError(f"relations {record['relations']!r}: expected {', '.join(RELATIONS)} between two objects")
    kinds = tuple(item.kind for item in objects)
    return Scene(
        Statement(text_of(record["prompt"], "prompt"), str(record["category"]), kinds, relations), tuple(objects)
    )


class ShapeScenes(Benchmark):
    """MGk over the prompts that name at least k kinds, VISOR over those that state a relation, exact scenes over all.

    The kinds are colour and shape, "red circle". A relation of several instances holds if any pair of them has it, as
    in VISOR; an exact scene has every object, nothing more, and all relations of all instances.
    """

    name = "shapescenes"
    title = "ShapeScenes"
    source = "this project"
    pictures = 1
    folders = "multigen"
    models = MappingProxyType({"detector": "shapescenes"})
    threshold = 0.5
    stored_above = 0.1

    def parse(self, index: int, record: Any) -> Prompt:
        known = record_of(record)
        scene = scene_of(known)
        names = dict.fromkeys(_name(kind) for kind in scene.prompt.kinds)
        return Prompt(index, scene.prompt.caption, tuple(names), known)

    def wanted(self, prompt: Prompt) -> Wanted:
        """All kinds of the world: an exact scene has nothing more than its own."""
        return Wanted(KINDS)

    def score(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Scores:
        shown = {p: present(prompts[p.index].names, one, self.threshold) for p, one in seen.items()}
        scenes = {index: scene_of(prompts[index].record) for index in {p.index for p in seen}}
        exact = {p: float(judge.states_hold(scenes[p.index].prompt, self._found(one))) for p, one in seen.items()}
        metrics: list[Metric] = [mean_over_rounds("exact scenes", exact)]
        metrics += at_least(shown, (2, 3, 4))
        both, right = self._relations(scenes, seen)
        metrics += [
            mean_over_rounds("VISOR OA", both),
            mean_over_rounds("VISOR uncond", right),
            mean("VISOR cond", [right[p] for p in right if both[p]]),
        ]
        groups = {
            "Exact scenes by category": tuple(
                mean(c, [v for p, v in exact.items() if scenes[p.index].prompt.category == c]) for c in CATEGORIES
            ),
            "Exact scenes by number of objects": tuple(
                mean(f"{n} object{'s' * (n > 1)}", [v for p, v in exact.items() if len(scenes[p.index].objects) == n])
                for n in (1, 2, 3, 4)
            ),
            "Success rate by kind": by_class(shown),
        }
        success = {p: (exact[p] + sum(kinds.values()) / len(kinds)) / 2 for p, kinds in shown.items()}
        return Scores(tuple(metrics), groups, success)

    def _found(self, seen: Seen) -> list[judge.Detection]:
        """What the judge would say: its own detections, which went by their names."""
        found = []
        for d in (d for d in seen.above(self.threshold) if d.name in KINDS):
            colour, shape = d.name.split()
            found.append(judge.Detection(shape, colour, *d.centre, d.score))
        return found

    def _relations(
        self, scenes: Mapping[int, Scene], seen: Mapping[Picture, Seen]
    ) -> tuple[dict[Picture, float], dict[Picture, float]]:
        """Of the pictures whose prompts state relations: are all these objects there, and do all relations hold."""
        both, right = {}, {}
        for picture, one in seen.items():
            statement = scenes[picture.index].prompt
            pairs = {
                (r.word, _name(statement.kinds[r.subject]), _name(statement.kinds[r.other]))
                for r in statement.relations
            }
            if pairs:
                names = one.names_above(self.threshold)
                both[picture] = float(all({a, b} <= names for _, a, b in pairs))
                right[picture] = both[picture] * all(holds(word, (a, b), one, self.threshold) for word, a, b in pairs)
        return both, right


def _name(kind: Kind) -> str:
    return f"{kind.colour} {kind.shape}"
