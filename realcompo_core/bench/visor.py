"""VISOR: are both objects there, and do they stand as the prompt says (Gokhale et al. 2022, section 3)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .benchmark import Benchmark
from .multigen import by_class, classes_of, present
from .prompts import Prompt, PromptFile, PromptFileError, record_of, text_of
from .scores import Metric, Picture, Scores, mean, mean_over_rounds
from .seen import Seen

RELATIONS = {  # the sign of the first centre's place minus the second's
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}


class Visor(Benchmark):
    """OA, VISOR conditional and unconditional, VISOR-1 to VISOR-4. Prompts without a relation are not scored."""

    name = "visor"
    title = "VISOR"
    source = "Gokhale et al. 2022 (VISOR)"
    pictures = 4
    folders = "multigen"
    models = MappingProxyType({"detector": "google/owlvit-base-patch32"})
    stored_above = 0.1

    def parse(self, index: int, record: Any) -> Prompt:
        known = record_of(record)
        relation = text_of(known["rel_type"], "rel_type")
        if relation not in RELATIONS and relation not in ("and", "single"):
            raise ValueError(f"rel_type is {relation!r}: expected one of {', '.join(RELATIONS)}, and, single")
        classes = classes_of(known)
        if relation in RELATIONS and len(classes) != 2:
            raise ValueError(f"rel_type {relation!r} is between two objects, and there are {len(classes)}")
        return Prompt(index, text_of(known["text"], "text"), classes, known)

    def read(self, path: Path) -> PromptFile:
        """The prompts with a relation: 25 280 of the official file, whose others its authors do not score."""
        found = super().read(path)
        related = tuple(p for p in found.prompts if p.record["rel_type"] in RELATIONS)
        if not related:
            raise PromptFileError(f"no prompt of {path} has a rel_type of {', '.join(RELATIONS)}")
        return PromptFile(related, found.problems, found.digest, found.unread)

    def score(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Scores:
        shown = {p: present(prompts[p.index].names, one, self.threshold) for p, one in seen.items()}
        both = {p: float(all(classes.values())) for p, classes in shown.items()}
        right = {
            p: both[p] * holds(prompts[p.index].record["rel_type"], prompts[p.index].names, one, self.threshold)
            for p, one in seen.items()
        }
        conditional = mean("VISOR cond", [right[p] for p in right if both[p]])
        metrics = (
            mean_over_rounds("OA", both),
            mean_over_rounds("VISOR uncond", right),
            conditional,
            *prompts_right(right),
        )
        relations = {
            relation: [right[p] for p in right if prompts[p.index].record["rel_type"] == relation]
            for relation in RELATIONS
        }
        groups = {
            "VISOR uncond by relation": tuple(mean(relation, values) for relation, values in relations.items()),
            "Success rate by class": by_class(shown),
        }
        return Scores(metrics, groups, {p: (both[p] + right[p]) / 2 for p in right})

    def official(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> dict[str, str]:
        results = {}
        for picture, one in seen.items():
            prompt = prompts[picture.index]
            found = one.above(self.threshold)
            both = all(present(prompt.names, one, self.threshold).values())
            relation = prompt.record["rel_type"]
            results[f"{picture.index}_{picture.number}"] = {
                "classes": [d.name for d in found],
                "centroid": [list(d.centre) for d in found],
                "recall": sum(present(prompt.names, one, self.threshold).values()),
                "sra": int(both and holds(relation, prompt.names, one, self.threshold)),
                "rel_type": relation,
                "text": prompt.text,
            }
        return {"results.json": json.dumps(results)}


def holds(relation: str, names: Sequence[str], seen: Seen, threshold: float) -> bool:
    """Whether the centres of any pair of boxes of the two names are in this order, however little."""
    dx, dy = RELATIONS[relation]
    firsts, seconds = (seen.above(threshold, name) for name in names)
    return any(
        (a.centre[0] - b.centre[0]) * dx > 0 or (a.centre[1] - b.centre[1]) * dy > 0
        for a, b in product(firsts, seconds)
    )


def prompts_right(right: Mapping[Picture, float]) -> tuple[Metric, ...]:
    """VISOR-n: the share of prompts of which at least n pictures are right, of those that have all their pictures."""
    each: dict[int, list[float]] = {}
    for picture, value in right.items():
        each.setdefault(picture.index, []).append(value)
    pictures = max(map(len, each.values()), default=0)
    counts = [sum(values) for values in each.values() if len(values) == pictures]
    return tuple(mean(f"VISOR-{n}", [float(count >= n) for count in counts]) for n in range(1, pictures + 1))
