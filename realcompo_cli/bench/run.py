"""The folder of one run of a benchmark: what was asked for, its pictures, and what models have seen in them.

    run.json          what was asked for, by which versions
    commands.txt      the commands that drew and looked
    prompts/          a copy of the file of prompts
    layouts/          the layout of each prompt, where one was proposed
    pictures/         as the official code expects them
    generated/        a line for each picture: seed, seconds, memory, or why it was not made
    seen/             a line for each picture: boxes, answers, likeness
    scores.json       the scores

Each process of a run writes a file of its own into `generated` and `seen`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from realcompo_core.bench.benchmark import Benchmark
from realcompo_core.bench.folders import FOLDERS, all_pictures
from realcompo_core.bench.prompts import Problem, Prompt, PromptFile
from realcompo_core.bench.registry import NAMES, T2I
from realcompo_core.bench.registry import benchmark_of as core_benchmark_of
from realcompo_core.bench.scores import Picture
from realcompo_core.bench.seen import Seen
from realcompo_core.errors import RealCompoError
from realcompo_core.files import remove_stale_parts, write_file
from shapescenes.benchmark import ShapeScenes

from ..files import Files, OutputError
from ..json_lines import JsonLines, entries_of
from ..runs import versions

FORMAT = 1
PICTURES, PROMPTS, COMMANDS, MODELS = "pictures", "prompts", "commands.txt", "seen/models.json"
ASKED = ("benchmark", "category", "prompts", "prompts_sha256", "limit", "pictures", "layout", "seed", "source")
ADVICE = "free some room and run the same command again: what is there already is kept"
SEEDS = 1000  # between the seeds of one prompt and those of the next


class RunError(RealCompoError):
    """A folder that is no run, or one of another request."""


class Shard(NamedTuple):
    """The part `index`, from 0, of `count` of the prompts: every `count`-th."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "2/8", the second of eight. Raises RealCompoError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise RealCompoError(f"--shard is {text!r}: write for example 2/8, the second of eight")
        return cls(int(index) - 1, int(count))

    def split(self, index: int, count: int) -> Shard:
        """The part `index` of `count` of this part."""
        return Shard(self.index + self.count * index, self.count * count)

    def __contains__(self, prompt: int) -> bool:
        return prompt % self.count == self.index

    @property
    def name(self) -> str:
        return f"{self.index + 1}-of-{self.count}"


@dataclass(frozen=True)
class Request:
    """What decides a run's pictures. `prompts`: the file; `source`: who draws, as JSON.

    `limit`: only so many of the prompts; a run may be asked for more, or for fewer, later.
    """

    benchmark: str
    prompts: Path
    source: Mapping[str, Any]
    category: str | None = None
    pictures: int | None = None
    layout: str | None = None
    limit: int | None = None
    seed: int = 0

    def document(self) -> dict[str, Any]:
        """As JSON. Raises RealCompoError for a benchmark, file or layout that cannot be used."""
        known = benchmark_of(self.benchmark, self.prompts, self.category)
        if self.layout is not None and self.layout not in FOLDERS:
            raise RealCompoError(f"--layout is {self.layout!r}: choose one of {', '.join(FOLDERS)}")
        found, pictures = known.read(self.prompts), self.pictures or known.pictures
        if pictures > SEEDS:
            raise RealCompoError(f"--pictures is {pictures}: up to {SEEDS} have seeds of their own")
        for prompt in found.prompts[: self.limit]:
            FOLDERS[self.layout or known.folders].path(prompt, 0, pictures)  # or it has no name there
        return {
            "benchmark": self.benchmark,
            "category": getattr(known, "category", None),
            "prompts": self.prompts.name,
            "prompts_sha256": found.digest,
            "limit": self.limit,
            "pictures": pictures,
            "layout": self.layout or known.folders,
            "seed": self.seed,
            "source": dict(self.source),
        }

    def files(self) -> list[Path]:
        """The file of prompts, and the lists that T2I-CompBench has beside it."""
        stem = self.prompts.stem
        beside = [self.prompts.with_name(f"{stem}_{about}.txt") for about in ("spatial", "action")]
        return [self.prompts, *(path for path in beside if self.benchmark == T2I and path.exists())]


class Run:
    """A run that is there. Raises RunError for a folder that is none."""

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / "run.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            self.asked: dict[str, Any] = document["asked"]
            self.versions = str(document["versions"])
            if document["format"] != FORMAT:
                raise ValueError(f"its format is {document['format']}, not {FORMAT}")
            if missing := [name for name in ASKED if name not in self.asked]:
                raise ValueError(f"it does not say {missing[0]}")
            if self.asked["layout"] not in FOLDERS or not isinstance(self.asked["source"], dict):
                raise ValueError("its layout or source is nothing that a run has")
        except FileNotFoundError as error:
            raise RunError(
                f"{folder} is no run of a benchmark, it has no run.json: make one with `realcompo bench generate`"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error}): put it back, or begin a new run in another folder") from error

    @classmethod
    def open(cls, folder: Path, request: Request, command: str) -> Run:
        """The run in this folder, made if it is not there. Raises RunError where it is one of another request."""
        asked = request.document()
        remove_stale_parts(folder)
        if (folder / "run.json").exists():
            run = cls(folder)
            if changed := _difference(run.asked, asked):
                name, before, now = changed
                raise RunError(
                    f"{folder} has another run: its {name} is {before!r}, not {now!r}. Choose another folder, or ask "
                    "for the same"
                )
            if asked != run.asked:
                run._write("run.json", _document(asked, run.versions))
        else:
            run = cls.__new__(cls)
            run.folder = folder
            for path in request.files():
                if path.resolve() != (folder / PROMPTS / path.name).resolve():
                    run._write(f"{PROMPTS}/{path.name}", path.read_bytes())
            run._write("run.json", _document(asked, versions()))
        run = cls(folder)
        if run.pictures_folder == folder / PICTURES:
            for path, content in run.folders.companions(run.prompts, run.asked["pictures"]):
                if not (folder / PICTURES / path).exists() or path.suffix == ".json":
                    run._write(str(Path(PICTURES) / path), content)
        run.add_command(command)
        return run

    def _write(self, name: str, content: bytes | str) -> None:
        """A file that several processes may write at once. Raises OutputError."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content, shared=True)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}. Choose another place") from error

    @property
    def commands(self) -> list[str]:
        """Those that changed what is in the folder, each once."""
        path = self.folder / COMMANDS
        return list(dict.fromkeys(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []

    def add_command(self, command: str) -> None:
        """Raises OutputError."""
        if command in self.commands:
            return
        try:
            with (self.folder / COMMANDS).open("a", encoding="utf-8") as file:
                file.write(command + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.folder / COMMANDS}: {error.strerror or error}") from error

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def benchmark(self) -> Benchmark:
        return benchmark_of(self.asked["benchmark"], self._prompts_path, self.asked["category"])

    @cached_property
    def prompt_file(self) -> PromptFile:
        """Raises RunError where the copy of the prompts is another one by now."""
        found = self.benchmark.read(self._prompts_path)
        if found.digest != self.asked["prompts_sha256"]:
            raise RunError(f"{self._prompts_path} has changed since the run began: put it back")
        return found

    @property
    def _prompts_path(self) -> Path:
        return self.folder / PROMPTS / self.asked["prompts"]

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return self.prompt_file.prompts[: self.asked["limit"]]

    @property
    def folders(self):
        return FOLDERS[self.asked["layout"]]

    @property
    def pictures_folder(self) -> Path:
        given = self.asked["source"].get("pictures")
        return Path(given) if given else self.folder / PICTURES

    @property
    def files(self) -> Files:
        return Files(self.folder)

    @cached_property
    def pictures(self) -> dict[Picture, Path]:
        """Where each of the run's pictures is, or will be."""
        prompts = {prompt.index: prompt for prompt in self.prompts}
        count = self.asked["pictures"]
        return {
            p: self.pictures_folder / self.folders.path(prompts[p.index], p.number, count)
            for p in all_pictures(self.prompts, count)
        }

    def seed_of(self, picture: Picture) -> int:
        return self.asked["seed"] + SEEDS * picture.index + picture.number

    def generated(self) -> dict[Picture, dict[str, Any]]:
        """The last line of each picture that was made."""
        return {p: entry for p, entry in self._entries("generated") if "problem" not in entry}

    def add_generated(self, shard: Shard) -> JsonLines:
        """Where this process says which pictures it made. What was not made is forgotten: it is tried again."""
        path = self.folder / "generated" / f"{shard.name}.jsonl"
        return JsonLines(path, "the list of pictures", ADVICE, lambda entry: "problem" not in entry)

    def seen(self) -> dict[Picture, Seen]:
        """What models have seen in the pictures that are still as they were."""
        found = {}
        for picture, entry in self._entries("seen"):
            path = self.pictures.get(picture)
            if path is not None and picture not in found and "problem" not in entry and is_current(path, entry):
                with suppress(KeyError, TypeError, ValueError, AttributeError):  # what is no line of ours is not seen
                    found[picture] = Seen.from_json(entry)
        return found

    def add_seen(self, shard: Shard) -> JsonLines:
        path = self.folder / "seen" / f"{shard.name}.jsonl"
        return JsonLines(path, "the list of what was seen", ADVICE, lambda entry: "problem" not in entry)

    def keep_experts(self, experts: Mapping[str, Any]) -> None:
        """Which models look at the pictures. Raises RunError where others have begun."""
        if (self.folder / MODELS).exists():
            if changed := _difference(self.experts, experts):
                name, before, now = changed
                raise RunError(
                    f"the pictures of {self.folder} were looked at with another {name}: {before!r}, not {now!r}. "
                    f"Remove {(self.folder / MODELS).parent} to look again, or ask for the same"
                )
        else:
            self._write(MODELS, json.dumps(experts, indent=1, ensure_ascii=False) + "\n")

    @property
    def experts(self) -> dict[str, dict[str, Any]]:
        """Raises RunError for a file that is damaged."""
        path = self.folder / MODELS
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if not all(isinstance(model, dict) and "name" in model for model in found.values()):
                raise ValueError("it has no names of models")
            return found
        except (OSError, ValueError, AttributeError) as error:
            raise RunError(f"{path} is damaged ({error}): remove {path.parent}, and look again") from error

    def problems(self, seen: Mapping[Picture, Seen]) -> list[Problem]:
        """What is not in the scores, and why; and pictures whose size differs from most."""
        told = list(self.prompt_file.problems)
        failed = {p: e["problem"] for p, e in self._entries("generated") if "problem" in e}
        unread: dict[Picture, str] = {}
        for picture, entry in self._entries("seen"):
            if "problem" in entry and picture in self.pictures and is_current(self.pictures[picture], entry):
                unread[picture] = str(entry["problem"])
        for picture, path in self.pictures.items():
            if picture in seen:
                continue
            if not path.exists():
                why = f"not made: {failed[picture]}" if picture in failed else "missing"
            else:
                why = unread.get(picture, "not looked at: run `realcompo bench detect` again")
            told.append(Problem(self.shown_path(path), why))
        sizes: dict[tuple[int, int], list[Picture]] = {}
        for picture, one in seen.items():
            sizes.setdefault((one.width, one.height), []).append(picture)
        usual = max(sizes, key=lambda size: len(sizes[size]), default=(0, 0))
        for size in sizes:
            for picture in sizes[size] if size != usual else ():
                what = f"{size[0]}×{size[1]} pixels, where most have {usual[0]}×{usual[1]}; scored as it is"
                told.append(Problem(self.shown_path(self.pictures[picture]), what))
        return told

    def shown_path(self, path: Path) -> str:
        return str(path.relative_to(self.pictures_folder))

    def _entries(self, kind: str) -> Iterator[tuple[Picture, dict[str, Any]]]:
        """The lines of all processes, each with its picture. Raises RunError for a file that cannot be read."""
        for path in sorted((self.folder / kind).glob("*.jsonl")):
            try:
                content = path.read_bytes()
            except OSError as error:
                raise RunError(f"cannot read {path}: {error.strerror or error}. Remove it, or put it back") from error
            for entry in entries_of(content):
                index, number = entry.get("index"), entry.get("number")
                if isinstance(index, int) and isinstance(number, int):
                    yield Picture(index, number), entry


def benchmark_of(name: str, prompts: Path, category: str | None = None) -> Benchmark:
    """The benchmark of this name, ShapeScenes too. Raises RealCompoError."""
    check_name(name)
    if name == ShapeScenes.name and category is None:
        return ShapeScenes()
    return core_benchmark_of(name, prompts, category)


def check_name(benchmark: str) -> None:
    """Raises RealCompoError for a name that is no benchmark's."""
    known = (*NAMES, ShapeScenes.name)
    if benchmark not in known:
        raise RealCompoError(f"--benchmark is {benchmark!r}: choose one of {', '.join(known)}, or a file of prompts")


def mark_of(path: Path) -> dict[str, Any]:
    """By which a picture is known again."""
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime": stat.st_mtime_ns, "sha256": digest_of(path)}


def is_current(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the picture is the one that was marked: by its size and time, or else by its content."""
    try:
        stat = path.stat()
        if stat.st_size != entry.get("bytes"):
            return False
        return stat.st_mtime_ns == entry.get("mtime") or digest_of(path) == entry.get("sha256")
    except OSError:
        return False


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first thing by which two requests differ, as "source.settings.steps", with both values.

    How many of the prompts are wanted is no difference, nor where a folder of pictures is: what was seen in them is
    known again by their content.
    """
    for name in dict.fromkeys((*before, *now)):
        a, b = before.get(name), now.get(name)
        if a == b or name == "limit" or (name == "pictures" and isinstance(b, str)):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            if inner := _difference(a, b):
                return f"{name}.{inner[0]}", *inner[1:]
            continue
        return name, a, b
    return None


def _document(asked: Mapping[str, Any], versions: str) -> str:
    return json.dumps({"format": FORMAT, "asked": asked, "versions": versions}, indent=1, ensure_ascii=False) + "\n"
