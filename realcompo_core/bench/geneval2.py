"""GenEval 2: questions about every object, attribute, count and relation, scored as Soft-TIFA (Kamath et al. 2025)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from .benchmark import Benchmark
from .prompts import Prompt, record_of, text_of
from .scores import Metric, Picture, Scores, mean
from .seen import Question, Seen, Wanted

SKILLS = ("object", "attribute", "count", "position", "verb")


class GenEval2(Benchmark):
    """Soft-TIFA: the mean over prompts of the arithmetic (AM) and geometric (GM) mean of the answers' probabilities."""

    name = "geneval2"
    title = "GenEval 2"
    source = "Kamath et al. 2025 (GenEval 2)"
    pictures = 1
    folders = "geneval2"
    models = MappingProxyType({"vqa": "Qwen/Qwen3-VL-8B-Instruct"})
    required = ("vqa",)

    def parse(self, index: int, record: Any) -> Prompt:
        known = record_of(record)
        questions, skills = known["vqa_list"], known["skills"]
        if not isinstance(questions, list) or not questions:
            raise ValueError("vqa_list is empty: there is nothing to ask")
        if len(skills) != len(questions):
            raise ValueError(f"{len(questions)} questions and {len(skills)} skills: one each was expected")
        if unknown := [skill for skill in skills if skill not in SKILLS]:
            raise ValueError(f"skill {unknown[0]!r}: expected one of {', '.join(SKILLS)}")
        if not isinstance(known["atom_count"], int):
            raise ValueError(f"atom_count is {known['atom_count']!r}: a number was expected")
        _questions(known)
        return Prompt(index, text_of(known["prompt"], "prompt"), (), known)

    def wanted(self, prompt: Prompt) -> Wanted:
        return Wanted(questions=tuple(dict.fromkeys(_questions(prompt.record))))

    def score(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Scores:
        answered: dict[Picture, list[float]] = {}
        for picture, one in seen.items():
            questions = _questions(prompts[picture.index].record)
            if all(question in one.answers for question in questions):
                answered[picture] = [one.answers[question] for question in questions]
        missing = ("answers: no model was there that answers questions (--vqa)",) if len(answered) < len(seen) else ()
        geometric = {p: geometric_mean(values) for p, values in answered.items()}
        skills: dict[str, list[float]] = {skill: [] for skill in SKILLS}
        atoms: dict[int, list[float]] = {}
        for picture, values in answered.items():
            record = prompts[picture.index].record
            for skill, value in zip(record["skills"], values, strict=True):
                skills[skill].append(value)
            atoms.setdefault(record["atom_count"], []).append(geometric[picture])
        metrics: tuple[Metric, ...] = (
            mean("Soft-TIFA AM", [float(np.mean(values)) for values in answered.values()]),
            mean("Soft-TIFA GM", list(geometric.values())),
        )
        groups = {
            "Soft-TIFA AM by skill": tuple(mean(skill, values) for skill, values in skills.items()),
            "Soft-TIFA GM by number of atoms": tuple(mean(f"{n} atoms", atoms[n]) for n in sorted(atoms)),
        }
        return Scores(metrics, groups, geometric, missing)

    def official(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> dict[str, str]:
        lists = []
        for index in sorted(prompts):
            one = seen.get(Picture(index, 0))
            lists.append([one.answers.get(q) for q in _questions(prompts[index].record)] if one else None)
        return {"score_lists.json": json.dumps(lists)}


def geometric_mean(values: Sequence[float]) -> float:
    """0 where one of them is 0."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(values))))


def _questions(record: Mapping[str, Any]) -> list[Question]:
    found = []
    for pair in record["vqa_list"]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"vqa_list: {pair!r}, expected a question and its answer")
        found.append((text_of(pair[0], "question"), text_of(pair[1], "answer")))
    return found
