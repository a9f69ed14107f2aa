"""Where a benchmark's prompts come from: the user's file, the bundled world, or the authors' own, fetched once."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path
from typing import NamedTuple

from realcompo_core.bench.own_prompts import kind_of_file
from realcompo_core.bench.registry import NAMES
from realcompo_core.bench.t2i_compbench import CATEGORIES
from realcompo_core.errors import RealCompoError
from realcompo_core.files import cache_folder
from shapescenes.benchmark import ShapeScenes, scenes_file

from ..files import Files
from .run import PROMPTS, check_name

SCENES = 300  # of ShapeScenes: as many as the published table has
FETCHED_WITHIN = 60  # seconds


class Origin(NamedTuple):
    """A file on the Hugging Face hub (`repo`, a dataset), or at an address. `sha256`: of the file; "" if not known."""

    file: str
    repo: str = ""
    address: str = ""
    sha256: str = ""


TOKENCOMPOSE = "https://raw.githubusercontent.com/mlpc-ucsd/TokenCompose/main/multigen/"
ORIGINS = {
    "multigen-coco": Origin(
        "coco_obj_comp_5_1k.json",
        address=TOKENCOMPOSE,
        sha256="fdac55817fbab0dc3710e60b82a8b238e41a1ed771660b6050e27ba96dea35cd",
    ),
    "multigen-ade20k": Origin(
        "ade20k_obj_comp_5_1k.json",
        address=TOKENCOMPOSE,
        sha256="5e30e03d4ce55c2d5bc99e40976ff392c79a8ff5e3f374188b3748da5ad52618",
    ),
    "visor": Origin("text_spatial_rel_phrases.json", repo="tgokhale/sr2d_visor"),
    "geneval": Origin(
        "evaluation_metadata.jsonl",
        address="https://raw.githubusercontent.com/djghosh13/geneval/main/prompts/",
        sha256="5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
    ),
    "geneval2": Origin(
        "geneval2_data.jsonl",
        address="https://raw.githubusercontent.com/facebookresearch/GenEval2/main/",
        sha256="09233adbc9f877fba205f1a20efa4a8640e7e62a91dfd55893562bed8a928e43",
    ),
}
T2I = "https://raw.githubusercontent.com/Karine-Huang/T2I-CompBench/main/examples/dataset/"


def named(benchmark: str, prompts: Path | None) -> tuple[str, Path | None]:
    """The benchmark's name and its file, where `benchmark` may itself be a file of prompts. Raises RealCompoError."""
    path = Path(benchmark)
    if benchmark in (*NAMES, ShapeScenes.name):
        return benchmark, prompts
    if path.suffix or path.is_file():
        if prompts is not None:
            raise RealCompoError(f"--benchmark {benchmark} is a file of prompts, and so is --prompts: give one of them")
        return kind_of_file(path), path
    return benchmark, prompts


def prompts_of(benchmark: str, given: Path | None, category: str | None, folder: Path) -> Path:
    """The file of prompts. `folder`: the run's, into which ShapeScenes' scenes are written. Raises RealCompoError."""
    if given is not None:
        return given
    if benchmark == ShapeScenes.name:
        path = folder / PROMPTS / "shapescenes.jsonl"
        return path if path.exists() else Files(path.parent).write(path.name, scenes_file(SCENES))
    if benchmark == "t2i-compbench":
        if category == "3d_spatial":
            raise RealCompoError("--category 3d_spatial is scored by estimated depth, which this project does not have")
        if category is not None and category not in CATEGORIES:
            raise RealCompoError(f"--category is {category!r}: choose one of {', '.join(CATEGORIES)}")
        if category is None:
            raise RealCompoError("--benchmark t2i-compbench: give --prompts, or --category to fetch them")
        names = [f"{category}_val.txt"]
        if category == "complex":
            names += [f"complex_val_{about}.txt" for about in ("spatial", "action")]
        return [fetched(Origin(name, address=T2I)) for name in names][0]
    check_name(benchmark)
    if benchmark not in ORIGINS:
        raise RealCompoError(f"--benchmark {benchmark}: give its prompts with --prompts")
    return fetched(ORIGINS[benchmark])


def fetched(origin: Origin) -> Path:
    """The file, from the cache if it was fetched before. Raises RealCompoError where there is no network."""
    advice = f"Download it yourself and name it with --prompts {origin.file}"
    if origin.repo:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(origin.repo, origin.file, repo_type="dataset"))
        except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise RealCompoError(
                f"cannot fetch {origin.file} from the dataset {origin.repo} of the Hugging Face hub: {error}. {advice}"
            ) from error
    path = cache_folder("benchmarks") / origin.file
    if path.exists():
        return path
    try:
        with urllib.request.urlopen(origin.address + origin.file, timeout=FETCHED_WITHIN) as reply:
            content = reply.read()
    except (OSError, ValueError) as error:
        raise RealCompoError(f"cannot fetch {origin.address}{origin.file}: {error}. {advice}") from error
    if origin.sha256 and hashlib.sha256(content).hexdigest() != origin.sha256:
        raise RealCompoError(f"{origin.address}{origin.file} is not the file that was published. {advice}")
    return Files(path.parent).write(path.name, content)
