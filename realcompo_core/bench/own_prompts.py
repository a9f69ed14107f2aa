"""The user's own prompts as a benchmark: which of the objects that each one names are in its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..text.noun_chunks import noun_chunks
from ..text.words import singular
from .benchmark import Benchmark
from .multigen import at_least, by_class, present
from .prompts import Prompt, PromptFileError, lines_of, read_text, record_of, text_of
from .scores import Picture, Scores, mean_over_rounds
from .seen import Seen, Wanted
from .t2i_compbench import FILE as T2I_FILE

SUFFIXES = (".json", ".jsonl", ".txt")
TEXT_KEYS = ("prompt", "text", "caption")


class OwnPrompts(Benchmark):
    """Lines of text, or JSON with a `prompt` (or `text`, `caption`) and, if it likes, a list of its `objects`.

    Without that list the objects are the prompt's nouns. Scored as MultiGen: the share of pictures with at least one,
    two … of the objects, and with all of them; with a CLIP also CLIPScore.
    """

    name = "prompts"
    title = "Own prompts"
    unit = "Scores are in percent, CLIPScore is a cosine."
    source = "this project"
    pictures = 4
    folders = "multigen"
    models = MappingProxyType(
        {"detector": "google/owlv2-large-patch14-ensemble", "clip": "openai/clip-vit-base-patch32"}
    )

    def parse(self, index: int, record: Any) -> Prompt:
        if isinstance(record, str):
            return Prompt(index, record, nouns_of(record), {"prompt": record})
        known = record_of(record)
        key = next((key for key in TEXT_KEYS if key in known), TEXT_KEYS[0])
        text = text_of(known[key], key)
        given = known.get("objects")
        if given is not None and (not isinstance(given, list) or not given):
            raise ValueError(f"objects is {given!r}: a list of names was expected")
        names = nouns_of(text) if given is None else tuple(text_of(name, "objects") for name in given)
        return Prompt(index, text, tuple(dict.fromkeys(names)), known)

    def wanted(self, prompt: Prompt) -> Wanted:
        return Wanted(prompt.names, texts=(prompt.text,))

    def score(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Scores:
        found = {p: present(prompts[p.index].names, one, self.threshold) for p, one in seen.items()}
        largest = max((len(classes) for classes in found.values()), default=0)
        everything = {p: float(all(classes.values())) for p, classes in found.items()}
        texts = {p: prompts[p.index].text for p in seen}
        likeness = {p: one.likeness[texts[p]] for p, one in seen.items() if texts[p] in one.likeness}
        metrics = (mean_over_rounds("all objects", everything), *at_least(found, range(1, largest + 1)))
        if likeness:
            metrics += (mean_over_rounds("CLIPScore", likeness, scale=1.0),)
        missing = () if len(likeness) == len(seen) else ("CLIPScore: no CLIP was there (--clip)",)
        success = {p: sum(classes.values()) / len(classes) if classes else 1.0 for p, classes in found.items()}
        return Scores(metrics, {"Success rate by object": by_class(found)}, success, missing)


def nouns_of(text: str) -> tuple[str, ...]:
    """The heads of a prompt's noun chunks, in the singular. Raises ValueError where there is none."""
    heads = [chunk[-1] for chunk in noun_chunks(text)]
    nouns = dict.fromkeys(singular(head.text.lower()) for head in heads if head.tag.startswith("NN"))
    if not nouns:
        raise ValueError(f"{text!r} names no object: nothing can be looked for")
    return tuple(nouns)


def kind_of_file(path: Path) -> str:
    """The benchmark that a file of prompts is made for, by its name or first record; "prompts" for any other.

    Raises PromptFileError for a file that cannot be read, and for one that is neither JSON nor lines of text.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise PromptFileError(f"{path} is no file of prompts: expected one of {', '.join(SUFFIXES)}")
    if T2I_FILE.fullmatch(path.name):
        return "t2i-compbench"
    text, _ = read_text(path)
    try:
        if path.suffix.lower() == ".json":
            records = json.loads(text)
            first = records[0] if isinstance(records, list) and records else None
        else:
            first = json.loads(next(filter(str.strip, lines_of(text)), ""))
    except (ValueError, RecursionError):
        first = None
    if not isinstance(first, dict):
        return OwnPrompts.name
    if "obj_1_attributes" in first and "rel_type" not in first and "ade20k" in path.name.lower():
        return "multigen-ade20k"
    keys = set(first)
    for name, needed in (
        ("visor", {"rel_type", "obj_1_attributes"}),
        ("multigen-coco", {"obj_1_attributes"}),
        ("geneval2", {"vqa_list"}),
        ("geneval", {"tag", "include"}),
    ):
        if needed <= keys:
            return name
    return OwnPrompts.name
