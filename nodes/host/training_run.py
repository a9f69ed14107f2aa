"""A run of the Trainer node: its settings, its checkpoints, and what happens between the host and the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from realcompo_core.errors import Cancelled, RealCompoError
from realcompo_core.files import replacing
from tokencompose_core.checking import NO_MASKS
from tokencompose_core.checkpoints import Checkpoints
from tokencompose_core.dataset import load_example
from tokencompose_core.identity import RunSettings
from tokencompose_core.order import EpochOrder
from tokencompose_core.records import DatasetError, Record, each_record, fingerprint
from tokencompose_core.runtime import Runtime
from tokencompose_core.training import StepReport, train

from .messages import warn_on_node
from .trainable_model import HostModel

PREVIEW_SIDE = 512
VALIDATION_STEPS, VALIDATION_CFG = 20, 5.0
FLAT = 1e-6  # what the host's loss graph needs between the lowest and the highest loss


def run_settings(
    device: torch.device,
    *,
    train: str,
    rank: int,
    width: int,
    height: int,
    layers: int,
    ema: float,
    precision: str,
    **settings,
) -> RunSettings:
    """The settings that the Trainer's widgets ask for; those in `settings` have the library's names."""
    return RunSettings(
        **settings,
        factors=(layers,) if layers else None,
        ema=ema or None,
        precision=chosen_precision(precision, device),
        rank=rank if train == "lora" else 0,
        size=(height, width),
    )


def chosen_precision(asked: str, device: torch.device) -> str:
    if asked != "auto":
        return asked
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


class RunCheckpoints(Checkpoints):
    """Checkpoints with the losses of all steps so far, `losses`, by term.

    Without `resume` those that are there are removed, and the run begins anew.
    """

    def __init__(self, folder: Path, keep: int, fingerprint: str, resume: bool):
        super().__init__(folder, keep, fingerprint)
        self.losses: dict[str, list[float]] = {}
        self._resume = resume

    def add(self, report: StepReport) -> None:
        for term, value in report.losses.items():
            self.losses.setdefault(term, []).append(value)

    def save(self, state):
        return super().save({**state, "losses": self.losses})

    def latest(self, settings, free):
        if not self._resume:
            for path in self.paths():
                path.unlink()
        try:
            state = super().latest(settings, free)
        except RealCompoError as error:
            raise RealCompoError(f"{error} (another `name`), or turn `resume` off to begin anew") from error
        if state is not None:
            self.losses = state["losses"]
        return state


class HostTraining:
    """One run: `records` at `settings`, with checkpoints and validation images of `prompt` in `folder`."""

    def __init__(self, host: HostModel, records: Sequence[Record], settings: RunSettings, folder: Path, prompt: str):
        self._host, self._records, self._settings, self._folder, self._prompt = host, records, settings, folder, prompt
        self._order = EpochOrder(len(records), settings.seed)
        self._runtime = Runtime(settings.precision, host.device)

    def run(self, resume: bool, checkpointing: bool) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
        """What was learnt (see `HostModel.learnt`), and the losses by term.

        An interrupt of the host is raised after the checkpoint of its step. Raises RealCompoError.
        """
        self._cache_inputs()
        host, settings = self._host, self._settings
        progress = comfy.utils.ProgressBar(settings.steps)
        data = fingerprint(each_record(self._records))
        has_masks = any(mask for record in self._records for _, mask in record.nouns)
        warn_on_node([] if has_masks or not (settings.token_weight or settings.pixel_weight) else [NO_MASKS])
        checkpoints = RunCheckpoints(self._folder, settings.keep_checkpoints, data, resume)

        def report(step: StepReport) -> None:
            checkpoints.add(step)
            progress.update_absolute(step.step)

        def validate(step: int) -> None:
            image = self._validation_image(step)
            if image is not None:
                progress.update_absolute(step, preview=("JPEG", image, PREVIEW_SIDE))

        interrupted = comfy.model_management.processing_interrupted
        with _named_memory_errors(settings), host.training(settings.rank, checkpointing, settings.seed):
            settings = replace(settings, model=host.fingerprint())
            done = train(host, self._batches, settings, checkpoints, self._runtime, report, validate, interrupted)
            if done < settings.steps:
                comfy.model_management.throw_exception_if_processing_interrupted()
            return host.learnt(), checkpoints.losses

    def _batches(self, first: int) -> Iterator[list[dict]]:
        batches = self._order.batches(self._settings.batch_size, first)
        return ([self._example(index) for index in batch] for batch in batches)

    def _example(self, index: int) -> dict:
        host, (height, width) = self._host, self._settings.size
        example, errors = load_example(self._records[index], (width, height), host.tokenizer, chunk=host.text_length)
        if errors:
            raise DatasetError(f"dataset: {errors[0]}. Give the dataset node the CLIP of the trainer")
        return example

    def _cache_inputs(self) -> None:
        """Encode the images and captions that the run will see, and the prompt, with progress."""
        settings = self._settings
        batches = islice(self._order.batches(settings.batch_size), settings.steps * settings.accumulation)
        needed = sorted(set(chain(*batches)))
        captions = {"", *(self._records[index].caption for index in needed)}
        captions |= {self._prompt} if settings.validate_every else set()
        progress = comfy.utils.ProgressBar(len(captions) + len(needed))
        for caption in captions:
            comfy.model_management.throw_exception_if_processing_interrupted()
            self._host.cache_text(caption, settings.size)
            progress.update(1)
        for index in needed:
            comfy.model_management.throw_exception_if_processing_interrupted()
            example = self._example(index)
            self._host.cache_latent(example["key"], example["image"])
            progress.update(1)

    def _validation_image(self, step: int) -> Image.Image | None:
        """What the model draws now, also as a file; None at an interrupt, which ends the run with the next step."""
        size, seed = self._settings.size, self._settings.seed
        try:
            with self._runtime.autocast():
                pixels = self._host.sample(self._prompt, size, seed, VALIDATION_STEPS, VALIDATION_CFG)
        except Cancelled:
            return None
        image = Image.fromarray(pixels.clamp(0, 1).mul(255).round().byte().cpu().numpy())
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._folder / f"validation-{step:06}.png") as part:
            image.save(part, "PNG")
        return image


@contextmanager
def _named_memory_errors(settings: RunSettings) -> Iterator[None]:
    """The host's out-of-memory error as a RealCompoError that says what to change."""
    try:
        yield
    except comfy.model_management.OOM_EXCEPTION as error:
        raise RealCompoError(
            f"not enough memory to train at {settings.size[1]}x{settings.size[0]} with batch_size "
            f"{settings.batch_size}: lower batch_size (and raise accumulation), width and height, or turn "
            "gradient_checkpointing on. What was learnt up to the last checkpoint is kept"
        ) from error


def loss_map(losses: dict[str, list[float]]) -> dict[str, list[float]]:
    """LOSS_MAP: `loss`, and the terms by name. The host's graph divides by its height: a flat one is given one."""
    total = list(losses["total"])
    if min(total) == max(total):
        total.append(total[-1] + FLAT)
    return {**losses, "loss": total}
