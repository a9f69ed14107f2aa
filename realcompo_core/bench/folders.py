"""Where a run's pictures are: the names that the benchmarks' official code expects."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from ..errors import RealCompoError
from .prompts import Prompt
from .scores import Picture

LONGEST_NAME = 255  # bytes that file systems allow


class Folders(ABC):
    """The path of each picture below a run's pictures, and the files that belong to them."""

    name: str

    @abstractmethod
    def path(self, prompt: Prompt, number: int, pictures: int) -> PurePosixPath:
        """Of picture `number`, from 0, of `pictures` of this prompt. Raises RealCompoError where that is no name."""

    def companions(self, prompts: Sequence[Prompt], pictures: int) -> Iterable[tuple[PurePosixPath, str]]:
        """The other files that the official code reads, with their content."""
        return ()


class Flat(Folders):
    """`{prompt}_{picture}.png`: MultiGen and VISOR."""

    name = "multigen"

    def path(self, prompt: Prompt, number: int, pictures: int) -> PurePosixPath:
        return PurePosixPath(f"{prompt.index}_{number}.png")


class GenEvalFolders(Folders):
    """`00000/samples/0000.png`, and the prompt's record as `00000/metadata.jsonl`."""

    name = "geneval"

    def path(self, prompt: Prompt, number: int, pictures: int) -> PurePosixPath:
        return PurePosixPath(f"{prompt.index:05}", "samples", f"{number:04}.png")

    def companions(self, prompts: Sequence[Prompt], pictures: int) -> Iterable[tuple[PurePosixPath, str]]:
        for prompt in prompts:
            record = {"prompt": prompt.text} if prompt.record is None else dict(prompt.record)
            yield PurePosixPath(f"{prompt.index:05}", "metadata.jsonl"), json.dumps(record)


class GenEval2Folders(Flat):
    """As MultiGen, with a JSON file of each prompt's picture; of several pictures of one prompt the first counts."""

    name = "geneval2"

    def companions(self, prompts: Sequence[Prompt], pictures: int) -> Iterable[tuple[PurePosixPath, str]]:
        paths = {prompt.text: str(self.path(prompt, 0, pictures)) for prompt in prompts}
        yield PurePosixPath("image_paths.json"), json.dumps(paths, indent=1, ensure_ascii=False) + "\n"


class T2ICompBenchFolders(Folders):
    """`samples/{prompt}_{number}.png`: a running number of six digits over all prompts."""

    name = "t2i-compbench"

    def path(self, prompt: Prompt, number: int, pictures: int) -> PurePosixPath:
        name = f"{prompt.text}_{prompt.index * pictures + number:06}.png"
        if "/" in name or "\\" in name or "\0" in name or len(name.encode()) > LONGEST_NAME:
            raise RealCompoError(
                f"prompt {prompt.index} cannot be part of a file's name, as --layout {self.name} has it: choose "
                f"--layout {Flat.name}"
            )
        if "_" in prompt.text:
            raise RealCompoError(
                f"prompt {prompt.index} has an underscore, which the official code of {self.name} reads as its end: "
                f"choose --layout {Flat.name}"
            )
        return PurePosixPath("samples", name)


FOLDERS: dict[str, Folders] = {
    folders.name: folders for folders in (Flat(), GenEvalFolders(), GenEval2Folders(), T2ICompBenchFolders())
}


def all_pictures(prompts: Iterable[Prompt], pictures: int) -> list[Picture]:
    """`pictures` of each prompt: the first of all prompts before the second of any."""
    known = list(prompts)
    return [Picture(prompt.index, number) for number in range(pictures) for prompt in known]
