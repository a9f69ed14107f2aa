"""Who draws a run's pictures: the bundled models, models from the user's disk, a ComfyUI, or nobody any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from realcompo_core.diffusers import Control, RealCompoPipeline
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.presets import DEFAULT, PRESETS
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout
from realcompo_core.sweep.plan import BALANCE
from shapescenes.systems import SYSTEMS, system

from ..runs import ALONE, MemoryFullError, own_version
from ..sweep import bundled_models, call_arguments, named_models, own_settings, parse_given
from ..systems import Models, load_fidelity, load_system

BUNDLED = "shapescenes:"
SERVER = "http://127.0.0.1:8188"
OF_WORKFLOWS = ("place", "server")
ALONE_OF = {  # bundled models by themselves: whose branch of which system
    "text_to_image": ("v1", "fidelity"),
    "layout_branch": ("v1", "spatial"),
    "tokencompose": ("v2", "fidelity"),
    "attend_and_excite": ("attend_and_excite", "spatial"),
    "boxdiff": ("boxdiff", "spatial"),
    "composable": ("composable", "spatial"),
    "structured": ("structured", "spatial"),
    "layout_guidance": ("v3", "spatial"),
    "segmentation_branch": ("segmentation", "spatial"),
    "phrases_branch": ("phrases", "spatial"),
}
BALANCED = {"balanced": "v1", **{f"balanced_{name}": name for name in SYSTEMS}}
BUNDLED_NAMES = (*ALONE_OF, *BALANCED)
COMPARED = (
    *("text_to_image", "layout_branch", "balanced", "tokencompose"),
    *("attend_and_excite", "boxdiff", "composable", "structured"),
)
"""What `bench all --benchmark shapescenes` compares by itself."""


@dataclass(frozen=True)
class Job:
    """A picture to be drawn. `layout` is None where the source reads none."""

    prompt: str
    seed: int
    layout: Layout | None = None


class Source(Protocol):
    """`name`: what a report calls it. `identity`: what decides its pictures, as JSON. `size`: (width, height) or None.

    `reads_layout`: whether a job needs a layout.
    """

    name: str
    identity: Mapping[str, Any]
    reads_layout: bool
    size: tuple[int, int] | None

    def draw(self, job: Job) -> Image.Image:
        """Raises RealCompoError for a picture that cannot be made."""


class BundledSource:
    """The bundled ShapeScenes models: a name of BUNDLED_NAMES, with settings as `realcompo sweep --set` takes them."""

    size = (128, 128)

    def __init__(self, name: str, given: Sequence[str] = ()):
        if name not in BUNDLED_NAMES:
            raise RealCompoError(f"source is {BUNDLED}{name}: choose one of {', '.join(BUNDLED_NAMES)}")
        chosen, branch = ALONE_OF.get(name, (BALANCED.get(name, ""), None))
        self._arguments = _arguments(own_settings(bundled=True), _given(given, bundled=True))
        if branch:
            self._arguments["balance"] = BalanceSettings(fixed=torch.tensor(ALONE[branch]))
        self._made = system(*SYSTEMS[chosen])
        self.name = name
        self.reads_layout = name not in ("text_to_image", "tokencompose")
        told = {key: str(value) for key, value in self._arguments.items() if key != "seed"}
        self.identity = {"name": name, "models": bundled_models(chosen), "settings": told, "version": own_version()}

    def draw(self, job: Job) -> Image.Image:
        return _balanced(self._made.pipeline, self._made.controls, job, self._arguments)


class BalancedSource:
    """The user's models, balanced; `settings` are arguments of RealCompoPipeline's call."""

    reads_layout = True

    def __init__(self, models: Models, settings: Mapping[str, Any]):
        models.check()
        self._pipeline, self._controls = load_system(models)
        self._settings = dict(settings)
        self.name = f"balanced {models.fidelity}"
        self.size = _size(settings)
        told = {key: str(value) for key, value in settings.items()}
        self.identity = {"name": self.name, "models": named_models(models), "settings": told, "version": own_version()}

    def draw(self, job: Job) -> Image.Image:
        return _balanced(self._pipeline, self._controls, job, self._settings)


class ModelSource:
    """One model of the user's disk, drawn by diffusers' own pipeline."""

    reads_layout = False

    def __init__(self, models: Models, dtype: str, device: str, settings: Mapping[str, Any]):
        path = models.fidelity
        self._pipeline = load_fidelity(models, dtype, device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._settings = dict(settings)
        self.name = path.stem if path.is_file() else path.name
        self.size = _size(settings)
        known = named_models(models)
        told = {key: str(value) for key, value in settings.items()}
        self.identity = {"name": self.name, "models": known, "settings": told}

    def draw(self, job: Job) -> Image.Image:
        generator = torch.Generator().manual_seed(job.seed)
        try:
            return self._pipeline(job.prompt, generator=generator, **self._settings).images[0]
        except torch.OutOfMemoryError as error:
            raise MemoryFullError("not enough memory for a picture: choose a smaller --size or --dtype") from error


class PictureFolder:
    """Pictures that something else has made. They are not copied; only looked at."""

    reads_layout = False
    size = None

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise RealCompoError(f"there is no folder {folder}: name one with pictures")
        self.name = folder.name
        self.identity = {"name": folder.name, "pictures": str(folder.resolve())}

    def draw(self, job: Job) -> Image.Image:
        raise RealCompoError("there is no such picture in the folder, and nothing that could make it")


def _balanced(
    pipeline: RealCompoPipeline, controls: Sequence[Control], job: Job, arguments: Mapping[str, Any]
) -> Image.Image:
    try:
        given = {**arguments, "seed": job.seed}
        return pipeline(job.prompt, job.layout or Layout(()), controls=controls, **given).images[0]
    except torch.OutOfMemoryError as error:
        raise MemoryFullError("not enough memory for a picture: choose a smaller --size or --dtype") from error


def load_source(spec: str, options: Mapping[str, Any], device: str) -> Source:
    """The source that is meant by --source and the options beside it, whose names are those of the command.

    Raises RealCompoError for one that cannot be loaded, and for options that say nothing about it.
    """
    path = Path(spec)
    of_one = ("fidelity_unet", "lora", "config", "dtype")
    balanced = ("spatial", "controlnet", "control", "layout_guidance")
    if spec.startswith(BUNDLED):
        _check_unused(options, spec, (*balanced, *of_one, *OF_WORKFLOWS))
        return BundledSource(spec.removeprefix(BUNDLED), options["set_"] or ())
    of_models = ("set_", *balanced, *of_one)
    if path.suffix == ".json":
        from .comfy import ComfySource

        _check_unused(options, spec, of_models)
        return ComfySource(path, options["server"] or SERVER, options["place"] or ())
    if not path.exists():
        raise RealCompoError(
            f"--source {spec}: there is no such file or folder. Give {BUNDLED}NAME with one of "
            f"{', '.join(BUNDLED_NAMES)}, a model, a workflow (.json), or a folder of pictures"
        )
    _check_unused(options, spec, OF_WORKFLOWS)
    if path.is_dir() and not (path / "model_index.json").exists():
        _check_unused(options, spec, of_models)
        return PictureFolder(path)
    given = _given(options["set_"] or (), bundled=False)
    own = own_settings(bundled=False)
    settings = own | given
    known = Models(
        fidelity=path,
        spatial=options["spatial"],
        controlnets=options["controlnet"] or (),
        controls=options["control"] or (),
        layout_guidance=options["layout_guidance"],
        unet=options["fidelity_unet"],
        lora=options["lora"],
        config=options["config"],
        dtype=options["dtype"],
        device=device,
    )
    if known.spatial or known.controlnets or known.layout_guidance:
        return BalancedSource(known, _arguments(own, given))
    if known.controls:
        raise RealCompoError(f"--control has no meaning without --controlnet: {spec} is drawn by itself")
    alone = {
        "num_inference_steps": settings["steps"],
        "guidance_scale": settings["cfg"],
        "negative_prompt": settings["negative"] or None,
        "width": settings["width"],
        "height": settings["height"],
    }
    if unused := [name for name in given if name not in ("steps", "cfg", "negative", "width", "height")]:
        raise RealCompoError(f"--set {unused[0]} has no meaning for one model alone: it is drawn by its own pipeline")
    dtype = options["dtype"] or ("fp32" if device == "cpu" else "fp16")
    return ModelSource(known, dtype, device, alone)


def _size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height); None where it is the model's own."""
    width, height = settings["width"], settings["height"]
    return (width, height) if width and height else None


def _given(texts: Sequence[str], bundled: bool) -> dict[str, Any]:
    """The settings of --set."""
    given = parse_given(texts, bundled)
    if "seed" in given:
        raise RealCompoError("--set seed has no meaning: each picture has its own, counted from --seed")
    return given


def _arguments(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Of RealCompoPipeline's call; without a setting of the balancer among those given it has the default preset."""
    arguments = call_arguments({**own, **given})
    return arguments if set(given) & set(BALANCE) else arguments | {"balance": PRESETS[DEFAULT]}


def _check_unused(options: Mapping[str, Any], spec: str, names: Sequence[str]) -> None:
    for name in names:
        if options[name]:
            option = "--" + name.rstrip("_").replace("_", "-")
            raise RealCompoError(f"{option} says nothing about --source {spec}: leave it out")
