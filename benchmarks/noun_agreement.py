"""How far the nouns that `extract_nouns` finds agree with those of the official TokenCompose training data.

    python benchmarks/noun_agreement.py [RECORDS.jsonl]

RECORDS: one JSON object per line, "text" the caption, "attn_list" a list of [noun, mask or null]; by default the
published 1500 (see published_data.py). Per record the set of our nouns is compared with the set of the official ones:
the whole string, compounds and case included, has to be equal (the official lists hold no noun twice). Hits, ours and
official ones are summed over the records for precision, recall and f1. `words f1` is the same on the nouns' single
words, whatever compounds they make. The halves of the file are given apart to show the spread. A tagger that cannot be
loaded is named with the reason. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

from benchmarks.published_data import COCO_CAPTIONS, published_file
from tokencompose_core.taggers import TAGGERS, TaggerError, extract_nouns, get_tagger

Pair = tuple[set[str], set[str]]
"""Our nouns and the official ones of a record."""


def read_records(path: Path) -> list[tuple[str, set[str]]]:
    """Caption and official nouns of each line."""
    records = []
    for number, line in enumerate(path.open(encoding="utf-8"), start=1):
        try:
            record = json.loads(line)
            records.append((record["text"], {noun for noun, _ in record["attn_list"]}))
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"{path}, line {number} is no record with text and attn_list: {error!r}") from error
    if not records:
        raise SystemExit(f"{path} holds no record")
    return records


def agreement(pairs: list[Pair]) -> dict[str, float]:
    hits = sum(len(ours & official) for ours, official in pairs)
    found = sum(len(ours) for ours, _ in pairs)
    wanted = sum(len(official) for _, official in pairs)
    precision, recall, f1 = hits / max(found, 1), hits / max(wanted, 1), 2 * hits / max(found + wanted, 1)
    return {"precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}


def split(nouns: set[str]) -> set[str]:
    return {word for noun in nouns for word in noun.split()}


def measure(records: list[tuple[str, set[str]]], tagger: Callable) -> tuple[dict[str, float], list[Pair]]:
    pairs = [({noun.text for noun in extract_nouns(text, tagger)}, official) for text, official in records]
    middle = len(pairs) // 2
    result = agreement(pairs)
    result["f1_first_half"] = agreement(pairs[:middle])["f1"]
    result["f1_second_half"] = agreement(pairs[middle:])["f1"]
    result["words_f1"] = agreement([(split(ours), split(official)) for ours, official in pairs])["f1"]
    return result, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="?", metavar="RECORDS.jsonl")
    parser.add_argument("--taggers", nargs="+", choices=list(TAGGERS), default=list(TAGGERS))
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N records that disagree per tagger")
    arguments = parser.parse_args()
    records = read_records(arguments.records or published_file(COCO_CAPTIONS))
    official = sum(len(nouns) for _, nouns in records)
    print(f"{len(records)} records, {official} official nouns")
    results: dict[str, dict | str] = {}
    for name in arguments.taggers:
        try:
            tagger = get_tagger(name)
        except TaggerError as error:
            results[name] = str(error)
            print(f"{name}: not measured, {error}")
            continue
        results[name], pairs = measure(records, tagger)
        print(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in results[name].items()))
        differing = [(text, pair) for (text, _), pair in zip(records, pairs, strict=True) if pair[0] != pair[1]]
        for text, (ours, theirs) in differing[: arguments.show]:
            print(f"  {text.strip()}\n    ours only {sorted(ours - theirs)}, official only {sorted(theirs - ours)}")
    print(json.dumps({"records": len(records), "official_nouns": official, "taggers": results}))


if __name__ == "__main__":
    main()
