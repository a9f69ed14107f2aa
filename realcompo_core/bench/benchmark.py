"""What every benchmark is: how its prompts are read, what is to be seen in a picture, and how that is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .prompts import Prompt, PromptFile
from .scores import Picture, Scores
from .seen import Seen, Wanted


class Benchmark(ABC):
    """A benchmark. Detections are stored above `stored_above`, and scored above `threshold`, as its authors do."""

    name: str
    title: str
    source: str
    """The paper."""
    pictures: int
    """Of each prompt."""
    folders: str
    """How its official code expects pictures to be named: a key of `folders.FOLDERS`."""
    unit: str = "Scores are in percent."
    """For the reader of a table."""
    models: Mapping[str, str]
    """The official ones, by what they do: detector, vqa, clip."""
    required: tuple[str, ...] = ("detector",)
    """Those without which nothing can be scored."""
    threshold: float = 0.1
    stored_above: float = 0.01

    def read(self, path: Path) -> PromptFile:
        """Raises PromptFileError."""
        return PromptFile.read(path, self.parse)

    @abstractmethod
    def parse(self, index: int, record: Any) -> Prompt:
        """A prompt from a record of the file. Raises KeyError, TypeError or ValueError."""

    def wanted(self, prompt: Prompt) -> Wanted:
        """What has to be known about a picture of this prompt."""
        return Wanted(prompt.names)

    @abstractmethod
    def score(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Scores:
        """The scores of the pictures that were seen; `prompts` are by their indices."""

    def official(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> dict[str, str]:
        """Files by their names, from which the official code computes scores, where it reads more than pictures."""
        return {}
