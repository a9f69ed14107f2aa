"""A user study: one HTML page with pairs of pictures, which does not say whose they are, and the key that does."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import combinations, zip_longest
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from PIL import Image

from realcompo_core.bench.scores import Picture
from realcompo_core.errors import RealCompoError

from ..files import png

QUESTIONS = {
    "realism": "Which looks more realistic?",
    "compositionality": "Which shows better what the sentence says?",
    "overall": "Which is better overall?",
}
TITLE = "Which picture is better?"
TEMPLATE = Path(__file__).with_name("study.html")
JPEG_QUALITY = 92
PNG_BYTES = 40_000  # pictures that are no larger as PNG stay without loss


class StudyRun(NamedTuple):
    """A run as the study needs it: the prompts by their indices, and the files of its pictures."""

    name: str
    prompts: Mapping[int, str]
    pictures: Mapping[Picture, Path]


@dataclass(frozen=True)
class Study:
    """`html` goes to the voters. `key`, data for a JSON file, says whose pictures they saw, and stays at home."""

    html: str
    key: dict[str, Any]


class _Pair(NamedTuple):
    """A picture that two runs both have."""

    first: StudyRun
    second: StudyRun
    picture: Picture


def make_study(
    runs: Sequence[StudyRun], *, pairs: int | None = None, seed: int = 0, title: str = TITLE, side: int = 512
) -> Study:
    """A study of the pictures that runs have in common. Raises RealCompoError.

    pairs: at most so many, chosen evenly over the pairs of runs. seed: of this choice, of the sides and of the order in
    the page, which each voter's browser shuffles again. side: larger pictures are shrunk to so many pixels.
    """
    for name, value in (("pairs", pairs), ("side", side)):
        if value is not None and value < 1:
            raise RealCompoError(f"{name} is {value}: at least 1 is needed")
    _check_names(runs, title)
    random = Random(seed)
    sides = _on_sides(_choose(_common(runs), pairs, random), random)

    pictures: dict[str, int] = {}  # what is embedded, and its place in the page
    urls: dict[Path, str] = {}

    def embedded(path: Path) -> int:
        if path not in urls:
            urls[path] = _data_url(path, side)
        return pictures.setdefault(urls[path], len(pictures))

    shown, meant = [], {}
    for n, (left, right, picture) in enumerate(sides, 1):
        name, prompt = f"p{n:04}", left.prompts[picture.index]
        places = {"left": embedded(left.pictures[picture]), "right": embedded(right.pictures[picture])}
        shown.append({"id": name, "prompt": prompt} | places)
        meant[name] = {"left": left.name, "right": right.name, "prompt": prompt} | picture._asdict()
    content = {"questions": QUESTIONS, "pairs": shown, "pictures": list(pictures)}
    key = {"runs": [run.name for run in runs], "pairs": meant}
    study = hashlib.sha256(json.dumps([content, key]).encode()).hexdigest()[:12]
    return Study(_page(title, {"study": study} | content), {"study": study} | key)


def _check_names(runs: Sequence[StudyRun], title: str) -> None:
    names = [run.name for run in runs]
    if len(names) < 2:
        raise RealCompoError(f"a study compares runs, and there is {names or 'none'}: give two or more")
    for name in names:
        if names.count(name) > 1:
            raise RealCompoError(f"two runs have the name {name!r}: the votes could not be told apart. Rename one")
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", title, re.IGNORECASE):
            raise RealCompoError(
                f"the title {title!r} has the run's name {name!r}, which voters must not see: change it"
            )


def _common(runs: Sequence[StudyRun]) -> list[list[_Pair]]:
    """The pairs of pictures of each pair of runs that has some. Raises RealCompoError."""
    groups = []
    for first, second in combinations(runs, 2):
        both = sorted(first.pictures.keys() & second.pictures.keys())
        for index, _ in both:
            texts = first.prompts[index], second.prompts[index]
            if texts[0] != texts[1]:
                raise RealCompoError(
                    f"prompt {index} is {texts[0]!r} in the run {first.name} and {texts[1]!r} in the run "
                    f"{second.name}: compare runs of the same prompts"
                )
        if both:
            groups.append([_Pair(first, second, picture) for picture in both])
    if not groups:
        names = ", ".join(run.name for run in runs)
        raise RealCompoError(f"no two of the runs {names} have a picture of the same prompt: compare others")
    return groups


def _choose(groups: list[list[_Pair]], count: int | None, random: Random) -> list[_Pair]:
    """`count` of all (None: all), as many of each group as possible; groups stay together."""
    for group in groups:
        random.shuffle(group)
    random.shuffle(groups)
    by_turns = [pair for one_each in zip_longest(*groups) for pair in one_each if pair]
    return sorted(by_turns[:count], key=lambda pair: (pair.first.name, pair.second.name))


def _on_sides(pairs: list[_Pair], random: Random) -> list[tuple[StudyRun, StudyRun, Picture]]:
    """Left and right run and picture, shuffled. Within each pair of runs both are as often left, give or take one."""
    swap = random.randrange(2)
    sides = [
        (pair.second, pair.first, pair.picture) if n % 2 == swap else (pair.first, pair.second, pair.picture)
        for n, pair in enumerate(pairs)
    ]
    random.shuffle(sides)
    return sides


def _data_url(path: Path, side: int) -> str:
    """The picture alone, without what its file says of how it was made. Raises RealCompoError."""
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RealCompoError(f"{path} cannot be read as a picture ({error}): make it again, or remove it") from error
    picture.info = {}
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    kind, data = "png", png(picture)
    if len(data) > PNG_BYTES:
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        kind, data = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def _page(title: str, content: dict[str, Any]) -> str:
    data = json.dumps(content).replace("<", "\\u003c")  # "</script>" in a prompt would end the data
    template = TEMPLATE.read_text(encoding="utf-8")
    return template.replace("{{title}}", escape(title)).replace("{{study}}", data)
