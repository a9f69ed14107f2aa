"""The official TokenCompose records through our reader and aligner.

    python benchmarks/official_records.py --tokenizer FOLDER [RECORDS.jsonl]

FOLDER: a CLIP tokenizer as transformers loads it, the `tokenizer` folder of SD1.x or `comfy/sd1_tokenizer` of ComfyUI.
RECORDS: by default the published 1500 (see published_data.py).
Counts records that parse, nouns that are found among their caption's tokens, and captions past the text encoder's
limit. How far our own nouns agree with the official ones: noun_agreement.py. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

from transformers import CLIPTokenizer

from benchmarks.published_data import COCO_CAPTIONS, published_file
from realcompo_core.text.tokens import CHUNK
from tokencompose_core.formats import MetadataRecords
from tokencompose_core.nouns import noun_tokens
from tokencompose_core.records import RecordError, each_record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="?", metavar="RECORDS.jsonl")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    tokenizer = CLIPTokenizer.from_pretrained(arguments.tokenizer)
    counts: Counter = Counter()
    for record in each_record(MetadataRecords(arguments.records or published_file(COCO_CAPTIONS))):
        if isinstance(record, RecordError):
            print(record)
            continue
        counts["records"] += 1
        nouns = [noun for noun, _ in record.nouns]
        for noun, occurrences in zip(nouns, noun_tokens(tokenizer, record.caption, nouns), strict=True):
            counts["nouns"] += 1
            counts["found"] += bool(occurrences)
            counts["repeated"] += len(occurrences) > 1
            if not occurrences:
                print(f"{record.where}: {noun!r} is not in {record.caption!r}")
        length = len(tokenizer(record.caption).input_ids)
        counts["captions past the limit"] += length > CHUNK
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
