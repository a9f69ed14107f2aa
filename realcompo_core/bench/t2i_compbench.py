"""T2I-CompBench(++): attributes by questions, places and numbers by a detector, actions by CLIP (Huang et al. 2023).

Prompts are read with this project's parser, whose weights are those that the official code takes from spaCy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ..text.noun_chunks import chunk_text, noun_chunks
from ..text.parser import Token, parse, tokens_of
from ..text.words import NUMBERS, singular
from .benchmark import Benchmark
from .prompts import Problem, Prompt, PromptFile, PromptFileError, lines_of, read_text, text_of
from .scores import Metric, Picture, Scores, mean, mean_over_rounds
from .seen import Box, Detection, Question, Seen, Wanted

ATTRIBUTES = ("color", "shape", "texture")
CATEGORIES = (*ATTRIBUTES, "spatial", "non_spatial", "numeracy", "complex")
FILE = re.compile(rf"(3d_spatial|{'|'.join(CATEGORIES)})(_val|_train)?\.txt")
NOUNS = ("NN", "NNS")
PROPER = ("NNP", "NNPS")
ADJECTIVES = ("JJ", "JJR", "JJS")

QUESTIONS = 8  # of noun chunks, at most
NOT_ASKED = ("top", "the side", "the left", "the right")
YES = "yes"

PLACES = ("on side of", "next to", "near", "on the left of", "on the right of", "on the bottom of", "on the top of")
MATERIALS = ("cotton", "fabric", "glass", "leather", "metal", "paper", "plastic", "rubber", "stone", "wood", "wool")
SIDES = ("top", "bottom", "left", "right", "side")
NEAR = ("on side of", "next to", "near")
BETWEEN = (
    "on top of",
    "on bottom of",
    "on the left",
    "on the right",
    "next to",
    "on side of",
    "near",
)  # complex prompts
DETECTED = 0.5  # the official detector's threshold
SMALL_OVERLAP = 0.1  # IoU
DISTANCE = 150 / 480  # of the longer side: the official code measures in pictures of at most 480 pixels
SAME_OBJECT = 0.9  # overlap of two boxes of one name, by either box or both

MODELS = {
    "detector": "google/owlv2-large-patch14-ensemble",  # the official one, UniDet, is in no library
    "vqa": "Salesforce/blip-vqa-capfilt-large",
    "clip": "openai/clip-vit-base-patch32",
}
MODELS_OF = {
    "attribute": ("vqa",),
    "spatial": ("detector",),
    "numeracy": ("detector",),
    "non_spatial": ("clip",),
    "complex": ("vqa", "detector", "clip"),
}
DETECTED_AS = {"girl": "person", "boy": "person", "man": "person", "woman": "person"}
COUNTED_AS = DETECTED_AS | {"ship": "boat", "television": "tv", "goldfish": "fish", "painting": "picture"}
CONDITIONAL = "all objects detected"


class T2ICompBench(Benchmark):
    """One category. Scores are in 0..1: the mean over all pictures of what is asked of the category's prompts.

    color, shape and texture: BLIP-VQA, the product of P(yes) over up to eight noun chunks. spatial: a quarter of both
    scores and a half of their position, 0 below a half. numeracy: half a point for each name that is there, half for
    its exact number. non_spatial: CLIPScore. complex: the mean of those three that the prompt is about.

    Conditional metrics (TokenCompose, table 7 and figure 6) are of the pictures that show all nouns of their prompts.
    """

    title = "T2I-CompBench"
    unit = "Scores are from 0 to 1, the object accuracy is in percent."
    source = "Huang et al. 2023 (T2I-CompBench)"
    pictures = 10
    folders = "t2i-compbench"
    threshold = 0.1  # of the object accuracy, as in MultiGen
    stored_above = 0.01

    def __init__(self, category: str):
        if category not in CATEGORIES:
            raise PromptFileError(f"category is {category!r}: choose one of {', '.join(CATEGORIES)}")
        self.category = category
        self.name = "t2i-compbench"
        self.title = f"T2I-CompBench, {category.replace('_', '-')}"
        self.required = MODELS_OF["attribute" if category in ATTRIBUTES else category]
        self.models = {what: MODELS[what] for what in (*self.required, "detector")}
        self._about: dict[str, str] = {}

    @classmethod
    def of_file(cls, path: Path) -> T2ICompBench:
        """The category that the file's name says, as `spatial_val.txt` does. Raises PromptFileError."""
        known = FILE.fullmatch(path.name)
        if known is None:
            raise PromptFileError(
                f"{path.name} names no category of T2I-CompBench: keep the official names ({CATEGORIES[0]}_val.txt …), "
                "or give --category"
            )
        if known[1] == "3d_spatial":
            raise PromptFileError("3d_spatial_val.txt is scored by estimated depth, which this project does not have")
        return cls(known[1])

    def read(self, path: Path) -> PromptFile:
        """Prompts of the category complex are scored by what their lists beside the file say they are about."""
        self._about, problems = {}, []
        if self.category == "complex":
            for about in ("action", "spatial"):  # a prompt of both lists is one of spatial, as officially
                lines = path.with_name(f"{path.stem}_{about}.txt")
                if lines.exists():
                    self._about |= dict.fromkeys(map(_plain, lines_of(read_text(lines)[0])), about)
                else:
                    problems.append(Problem(lines.name, f"not beside {path.name}: no prompt counts as one of {about}"))
        found = super().read(path)
        return PromptFile(found.prompts, (*problems, *found.problems), found.digest, found.unread)

    def parse(self, index: int, record: Any) -> Prompt:
        text = text_of(record, "the line")
        chunks = noun_chunks(text)
        heads = [_compound(chunk) for chunk in chunks if chunk[-1].tag in (*NOUNS, *PROPER)]
        nouns = [DETECTED_AS.get(noun, noun) for noun in heads if noun not in SIDES]
        facts: dict[str, Any] = {"nouns": tuple(dict.fromkeys(nouns))}
        if self.category in (*ATTRIBUTES, "complex"):
            asked = [chunk_text(chunk, text) for chunk in chunks]
            facts["questions"] = tuple((f"{c}?", YES) for c in asked if c not in NOT_ASKED)[:QUESTIONS]
            if not facts["questions"]:
                raise ValueError(f"{text!r} has no noun to ask for")
        if self.category in ("spatial", "complex"):
            facts["pair"] = pair_of(text) if self.category == "spatial" else pair_around(text)
            facts["place"] = next((place for place in PLACES if place in text), None)
            if self.category == "spatial" and (facts["pair"] is None or facts["place"] is None):
                raise ValueError(f"{text!r} does not say where one object is from another")
        if self.category == "numeracy":
            facts["counts"] = counts_of(text)
            if not facts["counts"]:
                raise ValueError(f"{text!r} counts nothing")
        if self.category in ("non_spatial", "complex"):
            facts["text"] = without_adjectives(text) if self.category == "complex" else text
        if self.category == "complex":
            facts["about"] = self._about.get(_plain(text), "both")
        names = dict.fromkeys([*facts["nouns"], *(facts.get("pair") or ()), *(n for n, _ in facts.get("counts", ()))])
        return Prompt(index, text, tuple(names), facts)

    def wanted(self, prompt: Prompt) -> Wanted:
        facts = prompt.record
        texts = (facts["text"],) if "text" in facts else ()
        return Wanted(prompt.names, facts.get("questions", ()), texts)

    def score(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Scores:
        all_there = {
            p: set(prompts[p.index].record["nouns"]) <= one.names_above(self.threshold)
            for p, one in seen.items()
            if one.detected
        }
        values: dict[Picture, float] = {}
        missing = {"object accuracy: no detector was there (--detector)"} if len(all_there) < len(seen) else set()
        for picture, one in seen.items():
            try:
                values[picture] = self._value(prompts[picture.index].record, one)
            except KeyError as error:
                missing.add(str(error.args[0]))
        label = {"spatial": "2D-spatial", "non_spatial": "CLIPScore", "complex": "3-in-1"}.get(
            self.category, "BLIP-VQA" if self.category in ATTRIBUTES else self.category
        )
        conditional = mean(f"{label}, {CONDITIONAL}", [v for p, v in values.items() if all_there.get(p)], scale=1.0)
        metrics: list[Metric] = [mean_over_rounds(label, values, scale=1.0), conditional]
        metrics.append(mean_over_rounds("object accuracy", {p: float(there) for p, there in all_there.items()}))
        return Scores(tuple(metrics), {}, values, tuple(sorted(missing)))

    def _value(self, facts: Mapping[str, Any], seen: Seen) -> float:
        """A picture's score. Raises KeyError, with what was needed, where a model was not there."""
        if self.category in ATTRIBUTES:
            return blip_vqa(facts["questions"], seen)
        if self.category == "spatial":
            return spatial(facts["pair"], facts["place"], seen)
        if self.category == "numeracy":
            return numeracy(facts["counts"], seen)
        if self.category == "non_spatial":
            return clip_score(facts["text"], seen)
        parts = [blip_vqa(facts["questions"], seen)]
        if facts["about"] != "action":
            parts.append(spatial(facts["pair"], facts["place"], seen))
        if facts["about"] != "spatial":
            parts.append(clip_score(facts["text"], seen))
        return float(np.mean(parts))


def blip_vqa(questions: Sequence[Question], seen: Seen) -> float:
    """The product of the answers' probabilities. Raises KeyError without them."""
    if any(question not in seen.answers for question in questions):
        raise KeyError("questions: no model was there that answers them (--vqa)")
    return float(np.prod([seen.answers[question] for question in questions]))


def clip_score(text: str, seen: Seen) -> float:
    """The cosine of the picture and the text. Raises KeyError without it."""
    if text not in seen.likeness:
        raise KeyError("likeness to the text: no CLIP was there (--clip)")
    return seen.likeness[text]


def spatial(pair: tuple[str, str] | None, place: str | None, seen: Seen) -> float:
    """0.25 · (both scores) + 0.5 · position, and 0 below a half, of the surest object of each name.

    Raises KeyError without a detector.
    """
    _check_detected(seen)
    if pair is None:
        return 0.0
    first, second = (seen.above(DETECTED, name)[:1] for name in pair)
    score = 0.25 * sum(d.score for d in (*first, *second))
    if first and second:
        score += 0.5 * position(place, first[0].box, second[0].box, max(seen.width, seen.height))
    return score if score >= 0.5 else 0.0


def _check_detected(seen: Seen) -> None:
    if not seen.detected:
        raise KeyError("boxes: no detector was there (--detector)")


def position(place: str | None, box: Box, other: Box, side: float) -> float:
    """How well `box` is in this place of `other`, in 0..1. `side`: the longer one of the picture, in pixels.

    Near: a centre less than DISTANCE away in x or y, or else the less the further. Left, right, top and bottom: the
    centres are further apart in that direction than across it; boxes that overlap count the less, the more they do.
    "On top of" without "the" is no place to the official code, and so not here.
    """
    x = (other[0] + other[2] - box[0] - box[2]) / 2
    y = (other[1] + other[3] - box[1] - box[3]) / 2
    if place in NEAR:
        away = DISTANCE * side
        return 1.0 if min(abs(x), abs(y)) < away else away / max(abs(x), abs(y))
    along, across = {
        "on the left of": (x, y),
        "on the right of": (-x, y),
        "on the top of": (y, x),
        "on the bottom of": (-y, x),
    }.get(place or "", (0.0, 0.0))
    if along <= abs(across) or along <= 0:
        return 0.0
    overlap = iou(box, other)
    return 1.0 if overlap < SMALL_OVERLAP else SMALL_OVERLAP / overlap


def numeracy(counts: Sequence[tuple[str, int]], seen: Seen) -> float:
    """Half a point for each name that is there, half for its exact number, by the number of names.

    Raises KeyError without a detector.
    """
    _check_detected(seen)
    points = 0.0
    for name, count in counts:
        found = apart(seen.above(DETECTED, name))
        points += 0.5 * bool(found) + 0.5 * (bool(found) and len(found) == count)
    return points / len(counts)


def apart(detections: Sequence[Detection]) -> list[Detection]:
    """The detections of one name without those that lie on a surer one."""
    kept: list[Detection] = []
    for detection in detections:
        if not any(same_object(detection.box, other.box) for other in kept):
            kept.append(detection)
    return kept


def same_object(box: Box, other: Box) -> bool:
    """Whether two boxes overlap by more than SAME_OBJECT of both together, or of either. Sides count whole pixels."""
    inter = max(0, min(box[2], other[2]) - max(box[0], other[0]) + 1) * max(
        0, min(box[3], other[3]) - max(box[1], other[1]) + 1
    )
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
    return any(inter / area > SAME_OBJECT for area in (*areas, sum(areas) - inter))


def iou(box: Box, other: Box) -> float:
    """Intersection over union; 0 of two boxes without area."""
    width = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def pair_of(text: str) -> tuple[str, str] | None:
    """The first and the last noun of a simple prompt, as a detector knows them."""
    nouns = [token.text for token in parse(tokens_of(text)) if token.tag in NOUNS]
    return (_detected(nouns[0]), _detected(nouns[-1])) if len(nouns) > 1 else None


def pair_around(text: str) -> tuple[str, str] | None:
    """The nouns before and after the place that a complex prompt names, if it names exactly one.

    The parser may take words like "the red bookshelf" for a name. The last word of one counts after the place, where no
    other noun is.
    """
    tokens = parse(tokens_of(text))
    words = [token.text.lower() for token in tokens]
    found = []
    for i in range(len(tokens)):
        length = next((n for n in (3, 2, 1) if " ".join(words[i : i + n]) in BETWEEN), 0)
        if length:
            before = [t for t in tokens[:i] if t.tag in (*NOUNS, *PROPER)]
            rest = tokens[i + length :]
            names = [t for t, following in zip_longest(rest, rest[1:]) if _is_proper(t) and not _is_proper(following)]
            after = [*(t for t in rest if t.tag in NOUNS), *names]
            found += [group[place].text for group, place in ((before, -1), (after, 0)) if group]
    return (_detected(found[0]), _detected(found[1])) if len(found) == 2 else None


def _is_proper(token: Token | None) -> bool:
    return token is not None and token.tag in PROPER


def counts_of(text: str) -> tuple[tuple[str, int], ...]:
    """How many of each object a prompt counts: each number or article, and the nouns after it."""
    tokens, found = parse(tokens_of(text)), []
    for i, token in enumerate(tokens[:-1]):
        number = NUMBERS.get(token.text.lower(), 1 if token.text.lower() in ("a", "an") else 0)
        if number:
            end = i + 2
            while end < len(tokens) and (tokens[end - 1].tag in ADJECTIVES or tokens[end].tag in NOUNS):
                end += 1
            name = _compound(tokens[i + 1 : end])
            found.append((COUNTED_AS.get(name, name), number))
    return tuple(found)


def _compound(chunk: Sequence[Token]) -> str:
    """The head noun of a chunk in the singular, with the nouns right before it, but for what it is made of."""
    start = len(chunk) - 1
    while start > 0 and chunk[start - 1].tag in NOUNS and chunk[start - 1].text.lower() not in MATERIALS:
        start -= 1
    words = [token.text.lower() for token in chunk[start:]]
    return " ".join([*words[:-1], singular(words[-1])])


def without_adjectives(text: str) -> str:
    """The words of a text but its adjectives, as CLIP is asked for complex prompts."""
    return " ".join(token.text for token in parse(tokens_of(text)) if token.tag not in ADJECTIVES)


def _detected(noun: str) -> str:
    return DETECTED_AS.get(noun.lower(), noun.lower())


def _plain(line: str) -> str:
    """A line as the official lists of complex prompts are compared."""
    return line.strip().split(".")[0].lower()
