"""Files that others have published, for tests and benchmarks: read where they are at hand, never downloaded.

They are looked for in the folder that the environment variable REALCOMPO_DATA names, by default in `shared/data` beside
the checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "REALCOMPO_DATA"
DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"

MULTIGEN_PROMPTS = "multigen_coco_5x1000.json"
COCO_CAPTIONS = "tokencompose_coco_captions_1500.jsonl"
LMD_REPLIES = "lmd_gpt35_layout_replies.json"
SOURCES = {
    MULTIGEN_PROMPTS: "multigen/coco_obj_comp_5_1k.json in https://github.com/mlpc-ucsd/TokenCompose",
    COCO_CAPTIONS: (
        "the first 1500 lines of train/data/coco_gsam_img/train/metadata.jsonl in "
        "https://github.com/mlpc-ucsd/TokenCompose"
    ),
    LMD_REPLIES: "cache/cache_lmd_v0.1_gpt-3.5-turbo.json in https://github.com/TonyLianLong/LLM-groundedDiffusion",
}


def published_file(name: str) -> Path:
    """The path of one of `SOURCES`, or a FileNotFoundError that says where it is published and where to put it."""
    given = os.environ.get(VARIABLE)
    path = (Path(given) if given else DEFAULT) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} is not in {path.parent}: save {SOURCES[name]} there under this name, or set {VARIABLE} to the "
            "folder that has it"
        )
    return path
