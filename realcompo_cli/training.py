"""A training run of the command line: its data, checkpoints and logs, and the model files that it writes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline

from realcompo_core.errors import RealCompoError
from tokencompose_core.batches import training_batches
from tokencompose_core.cache import CachedModel
from tokencompose_core.checking import NO_MASKS, kept_records
from tokencompose_core.checkpoints import Checkpoints
from tokencompose_core.dataset import TokenComposeDataset
from tokencompose_core.diffusers_model import DiffusersModel, pipeline_fingerprint
from tokencompose_core.export import UnknownLayoutError, metadata, save_checkpoint, save_lora, save_unet
from tokencompose_core.formats import open_records
from tokencompose_core.identity import RunSettings
from tokencompose_core.lora import add_lora
from tokencompose_core.records import each_record, fingerprint
from tokencompose_core.runtime import Runtime
from tokencompose_core.shards import ShardSet
from tokencompose_core.training import StepReport, train
from tokencompose_core.validation import evaluate

from .files import Files
from .history import History
from .models import best_device

SEEN_BY = 100  # steps after which a set that was not checked should have shown a mask
VALIDATION_STEPS = 25  # of sampling
LAUNCHED = {"LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"}  # variables that torchrun and `accelerate launch` set


@dataclass(frozen=True)
class TrainOptions:
    """What a run has beside its settings: where files are, what is drawn and logged."""

    data: Path
    output: Path
    masks: Path | None = None
    prompts: tuple[str, ...] = ()
    checkpointing: bool = True
    cache: bool = False
    on_problem: Literal["refuse", "skip"] = "refuse"
    workers: int = 0
    log: Literal["none", "tensorboard", "wandb"] = "none"


class TrainingRun:
    """One run: call `prepare`, then `train`. Of several processes only the main one writes files."""

    def __init__(self, pipeline: DiffusionPipeline, settings: RunSettings, options: TrainOptions, device: str | None):
        self.pipeline, self.settings, self.options = pipeline, settings, options
        self.runtime = _runtime(settings.precision, device)
        self.done = 0

    @property
    def processes(self) -> str:
        """How many they are, and on what."""
        runtime, precision = self.runtime, self.settings.precision
        if runtime.processes > 1:
            return f"{runtime.processes} processes, this one on {runtime.device}, {precision}"
        hint = ""
        if "ACCELERATE_MIXED_PRECISION" in os.environ and runtime.device.type == "cpu":
            hint = ". accelerate starts no more on a CPU; torchrun --nproc_per_node 2 -m realcompo_cli train does"
        return f"1 process on {runtime.device}, {precision}{hint}"

    @property
    def _size(self) -> tuple[int, int]:
        """Width and height of the training images."""
        height, width = self.settings.size
        return width, height

    def prepare(self, find_problems: Callable | None, warn: Callable[[str], None]) -> None:
        """Check the data and make the model ready. Raises RealCompoError for data that cannot be used.

        find_problems(records, tokenizer): the problems, and the number of nouns that can be trained on; None to check
        nothing, so that a large set starts at once. Then `train` leaves out what cannot be used.
        """
        records = open_records(self.options.data, self.options.masks)
        self._watch_for_masks = self.settings.token_weight > 0 or self.settings.pixel_weight > 0
        if find_problems is not None:
            problems, grounded = find_problems(records, self.pipeline.tokenizer)
            records = kept_records(records, problems, self.options.on_problem)
            if self._watch_for_masks and not grounded and self.runtime.is_main:
                warn(NO_MASKS)
            self._watch_for_masks = False
        self.fingerprint = records.fingerprint() if isinstance(records, ShardSet) else fingerprint(each_record(records))
        held = self.settings.validation
        if held and (isinstance(records, ShardSet) or held >= len(records)):
            raise RealCompoError(
                f"validation is {held} of {len(records)} records: it must be fewer, and shards cannot be divided"
            )
        size, tokenizer = self._size, self.pipeline.tokenizer
        chunk = tokenizer.model_max_length
        self._held_out = [TokenComposeDataset(records, size, tokenizer, chunk=chunk)[-1 - i] for i in range(held)]
        self._records = _FirstRecords(records, len(records) - held) if held else records
        workers = self.options.workers if isinstance(records, ShardSet) else 0
        self.settings = replace(self.settings, model=pipeline_fingerprint(self.pipeline), workers=workers)
        self.pipeline.to(self.runtime.device)
        unet = self.pipeline.unet.float()
        if self.settings.rank:
            add_lora(unet, self.settings.rank, seed=self.settings.seed)
        else:
            unet.requires_grad_(True)
        self.model = DiffusersModel(self.pipeline, self.options.checkpointing)
        if self.options.cache:
            folder = self.options.output / "cache" / f"{self.fingerprint[:16]}-{self.settings.model}"
            self.model = CachedModel(self.model, folder)
        self.checkpoints = Checkpoints(
            self.options.output / "checkpoints", self.settings.keep_checkpoints, self.fingerprint
        )
        paths = self.checkpoints.paths()
        self.done = int(paths[-1].stem.split("-")[1]) if paths else 0

    def train(self, show: Callable[[StepReport, float], None], tell: Callable[[str], None]) -> list[Path]:
        """Train until done or stopped; returns the files that were written."""
        files = Files(self.options.output)
        began, first = time.monotonic(), self.done
        with (
            _history(self.options, self.done, self.runtime.is_main) as log,
            _stop_on_interrupt(self._tell_once(tell)) as stopped,
        ):

            def report(step: StepReport) -> None:
                figures = {**step.losses, "learning_rate": step.learning_rate, "gradient_norm": step.gradient_norm}
                log(step.step, figures)
                self._watch_for_masks &= isnan(step.losses["share"])
                if self._watch_for_masks and step.step in (first + SEEN_BY, self.settings.steps):
                    self._tell_once(tell)(f"Warning: in {step.step - first} steps {NO_MASKS}")
                show(step, (step.step - first) / (time.monotonic() - began))

            def validate(step: int) -> None:
                if not self.runtime.is_main:
                    return
                found = evaluate(self.model, self._held_out, self.runtime)
                if found:
                    log(step, {f"validation/{name}": value for name, value in found.items()})
                    tell(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
                for i, image in enumerate(self.draw()):
                    files.write_picture(f"validation/step-{step:06}-{i}.png", image)

            self.done = train(
                self.model,
                training_batches(
                    self._records,
                    self._size,
                    self.pipeline.tokenizer,
                    self.settings,
                    self.runtime,
                    self.options.workers,
                    lambda problem: tell(f"left out: {problem}"),
                ),
                self.settings,
                self.checkpoints,
                self.runtime,
                report,
                validate,
                stopped,
            )
        return [*files.written, *self._save(tell)] if self.runtime.is_main else []

    def _tell_once(self, tell: Callable[[str], None]) -> Callable[[str], None]:
        return tell if self.runtime.is_main else lambda text: None

    def draw(self) -> Iterator[Any]:
        """A picture of each validation prompt, always from the same noise."""
        width, height = self._size
        for prompt in self.options.prompts:
            generator = torch.Generator().manual_seed(self.settings.seed)
            options = {"width": width, "height": height, "num_inference_steps": VALIDATION_STEPS}
            yield self.pipeline(prompt, generator=generator, **options).images[0]

    def _save(self, tell: Callable[[str], None]) -> list[Path]:
        """Write the model, also of a run that was stopped: a LoRA, or a diffusers UNet and a ComfyUI checkpoint."""
        about = metadata(asdict(self.settings), self.done, self.fingerprint)
        if self.settings.rank:
            path = self.options.output / "lora.safetensors"
            save_lora(self.pipeline.unet, path, about)
            return [path]
        folder, file = self.options.output / "unet", self.options.output / "checkpoint.safetensors"
        save_unet(self.pipeline.unet, folder, about)
        try:
            save_checkpoint(self.pipeline, file, about)
        except UnknownLayoutError as error:
            tell(f"no checkpoint file: {error}")
            return [folder]
        return [folder, file]


class _FirstRecords:
    """The first `count` of the records; the others are held out for validation."""

    def __init__(self, records, count: int):
        self._records, self._count = records, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int):
        return self._records[range(self._count)[index]]


def _runtime(precision: str, device: str | None) -> Runtime:
    if LAUNCHED & os.environ.keys():
        from tokencompose_core.distributed import AccelerateRuntime

        return AccelerateRuntime(precision, device)
    return Runtime(precision, device or best_device())


@contextmanager
def _history(options: TrainOptions, done: int, is_main: bool) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Yields log(step, figures), which adds a line to history.jsonl, and logs where `options.log` says."""
    if not is_main:
        yield lambda step, figures: None
        return
    history = History(options.output / "history.jsonl", done)
    writer = _writer(options, done)

    def log(step: int, figures: dict[str, float]) -> None:
        history.add(step, figures)
        writer(step, figures)

    yield log


def _writer(options: TrainOptions, done: int) -> Callable[[int, dict[str, float]], None]:
    if options.log == "none":
        return lambda step, figures: None
    try:
        if options.log == "wandb":
            import wandb

            run = wandb.init(project="tokencompose", dir=options.output, resume="allow", id=options.output.name)
            return lambda step, figures: run.log(figures, step=step)
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RealCompoError(f"log {options.log!r} needs a package: pip install {options.log}") from error
    board = SummaryWriter(options.output / "tensorboard", purge_step=done + 1)
    return lambda step, figures: [board.add_scalar(name, value, step) for name, value in figures.items()]


@contextmanager
def _stop_on_interrupt(tell: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C was pressed. A second Ctrl-C ends the program at once."""
    asked = []

    def ask(number, frame) -> None:
        signal.signal(signal.SIGINT, before)
        asked.append(True)
        tell("Stopping after this step (Ctrl-C again: at once)")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
