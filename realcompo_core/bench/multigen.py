"""MultiGen: how many of five classes a picture shows (Wang et al. 2024, TokenCompose, section 4.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .benchmark import Benchmark
from .prompts import Prompt, record_of, text_of
from .scores import Metric, Picture, Scores, mean, mean_over_rounds
from .seen import Seen


def classes_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of a record of MultiGen or VISOR: the first of each object's attributes."""
    count = record["num_objects"]
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"num_objects is {count!r}: a number from 1 up was expected")
    found = []
    for i in range(1, count + 1):
        attributes = record[f"obj_{i}_attributes"]
        if not isinstance(attributes, list) or not attributes:
            raise ValueError(f"obj_{i}_attributes is {attributes!r}: a list with the class was expected")
        found.append(text_of(attributes[0], f"obj_{i}_attributes"))
    return tuple(found)


class MultiGen(Benchmark):
    """MGk is the share of pictures with at least k of the prompt's classes, its ± the spread over the ten rounds."""

    source = "Wang et al. 2024 (TokenCompose)"
    pictures = 10
    folders = "multigen"
    models = MappingProxyType({"detector": "google/owlv2-large-patch14-ensemble"})

    def __init__(self, data: str):
        self.name, self.title = f"multigen-{data.lower()}", f"MultiGen, {data} instances"

    def parse(self, index: int, record: Any) -> Prompt:
        known = record_of(record)
        return Prompt(index, text_of(known["text"], "text"), classes_of(known), known)

    def score(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Scores:
        found = {picture: present(prompts[picture.index].names, one, self.threshold) for picture, one in seen.items()}
        largest = max(len(prompts[picture.index].names) for picture in found) if found else 0
        metrics = at_least(found, range(2, largest + 1)) or at_least(found, range(1, largest + 1))
        return Scores(
            metrics,
            {"Success rate by class": by_class(found)},
            {picture: sum(shown.values()) / len(shown) for picture, shown in found.items()},
        )

    def official(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> dict[str, str]:
        results = {
            f"{p.index}_{p.number}": {
                "classes": [d.name for d in one.detections],
                "scores": [d.score for d in one.detections],
            }
            for p, one in seen.items()
        }
        return {"results.json": json.dumps(results)}


def present(names: Sequence[str], seen: Seen, threshold: float) -> dict[str, bool]:
    """Whether each class is detected in the picture. A class that a prompt names twice counts once, as officially."""
    detected = seen.names_above(threshold)
    return {name: name in detected for name in names}


def at_least(found: Mapping[Picture, Mapping[str, bool]], numbers: Sequence[int]) -> tuple[Metric, ...]:
    """MGk for each k of `numbers`, of the prompts that name k classes. found: what `present` says of each picture."""
    return tuple(
        mean_over_rounds(
            f"MG{k}", {p: float(sum(classes.values()) >= k) for p, classes in found.items() if len(classes) >= k}
        )
        for k in numbers
    )


def by_class(found: Mapping[Picture, Mapping[str, bool]]) -> tuple[Metric, ...]:
    """The share of pictures that show each class, of those that should (figure 17); the most frequent failure last."""
    values: dict[str, list[float]] = {}
    for classes in found.values():
        for name, shown in classes.items():
            values.setdefault(name, []).append(float(shown))
    return tuple(sorted((mean(name, shown) for name, shown in values.items()), key=lambda m: (-m.value, m.name)))
