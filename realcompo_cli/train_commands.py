"""`realcompo prepare`, `check`, `shards` and `train`: a training set, and a model that learns from it."""

from __future__ import annotations

from collections import Counter
from math import isnan
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from realcompo_core.errors import RealCompoError

from .consoles import err, out
from .processes import INTERRUPTED, is_main_process

BUNDLED = "shapescenes"
SHOWN_PROBLEMS = 50

DataArgument = Annotated[
    Path,
    typer.Argument(
        help="Training set: a metadata.jsonl or its folder, a folder of images with captions and masks, shards, or a "
        "saved Hugging Face dataset.",
        exists=True,
        show_default=False,
    ),
]
ModelOption = Annotated[
    str, typer.Option(help=f"A diffusers folder, a .safetensors file, or {BUNDLED!r} for the bundled model.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(help="Diffusers folder with configuration and tokenizer, for a .safetensors file.", exists=True),
]
MasksOption = Annotated[
    Path | None, typer.Option(help="Folder of the masks, if they are not found by themselves.", exists=True)
]


def check(
    data: DataArgument, model: ModelOption = BUNDLED, config: ConfigOption = None, masks: MasksOption = None
) -> None:
    """Read a whole training set and list every problem with file and line.

    The model's tokenizer tells whether the nouns are found in the captions. Ends with code 1 if there are problems. A
    set without any mask is no problem, but warned of.
    """
    from tokencompose_core.checking import NO_MASKS, summary
    from tokencompose_core.formats import open_records

    records = open_records(data, masks)
    with out.status("Loading the tokenizer"):
        tokenizer = load_model(model, config).tokenizer
    problems, grounded = find_problems(records, tokenizer)
    for problem in problems[:SHOWN_PROBLEMS]:
        out.print(Text(f"{problem.file or data}: {problem}"), soft_wrap=True)
    if not grounded:
        err.print(Text(f"Warning: {NO_MASKS}", "yellow"))
    if not problems:
        out.print(f"{len(records)} records, no problem. {grounded} nouns with a mask.")
        return
    out.print(Text(summary(problems, len(records)).split(". The first:")[0]))
    raise typer.Exit(1)


def train(
    data: DataArgument,
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, logs and the trained model.")],
    model: ModelOption = BUNDLED,
    config: ConfigOption = None,
    masks: MasksOption = None,
    preset: Annotated[
        Literal["sd1.4", "sd2.1", "sdxl"], typer.Option(help="Settings to start from; the options below change them.")
    ] = "sd1.4",
    lora: Annotated[int, typer.Option(help="Rank of a LoRA; 0 trains the whole UNet.", min=0)] = 0,
    size: Annotated[
        str | None,
        typer.Option(
            help="Width x height of the training pictures.", metavar="WxH", show_default="preset: 512, 768, 1024"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.", show_default="preset")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples at once in each process.")] = None,
    accumulation: Annotated[int | None, typer.Option(help="Batches that make a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    schedule: Annotated[Literal["constant", "linear", "cosine"] | None, typer.Option(help="After the warm-up.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps in which the rate rises.")] = None,
    token_weight: Annotated[float | None, typer.Option(help="Weight of the token loss, the paper's lambda.")] = None,
    pixel_weight: Annotated[float | None, typer.Option(help="Weight of the pixel loss, the paper's gamma.")] = None,
    convention: Annotated[
        Literal["official", "paper"] | None, typer.Option(help="Losses as in the authors' code, or as in their paper.")
    ] = None,
    factor: Annotated[
        list[int] | None, typer.Option(help="Supervise layers whose maps are so many times smaller; repeat for more.")
    ] = None,
    caption_dropout: Annotated[float | None, typer.Option(help="Share of samples without caption.")] = None,
    precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, typer.Option(help="Of the computations.")] = None,
    optimizer: Annotated[Literal["adamw", "adamw8bit"] | None, typer.Option(help="8 bit needs bitsandbytes.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of an average of the weights.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of order, noise and timesteps.", min=0)] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    keep_checkpoints: Annotated[int | None, typer.Option(help="How many of them to keep.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Steps between validations; 0 for none.")] = None,
    validation: Annotated[int, typer.Option(help="Records held out for validation.", min=0)] = 0,
    prompt: Annotated[list[str] | None, typer.Option(help="Draw this at each validation; repeat for more.")] = None,
    checkpointing: Annotated[bool, typer.Option(help="Compute activations again instead of keeping them.")] = True,
    cache: Annotated[bool, typer.Option(help="Keep latents and texts on disk, in OUTPUT/cache.")] = False,
    on_problem: Annotated[
        Literal["refuse", "skip"], typer.Option(help="What to do about records that cannot be used.")
    ] = "refuse",
    check: Annotated[
        bool, typer.Option(help="Read the whole set first. Without, what cannot be used is left out when it is met.")
    ] = True,
    workers: Annotated[int, typer.Option(help="Processes that read ahead.", min=0)] = 0,
    log: Annotated[Literal["none", "tensorboard", "wandb"], typer.Option(help="Also log there.")] = "none",
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu.", show_default="the best one here")] = None,
) -> None:
    """Fine-tune a model so that each noun's attention falls on its object.

    Run again with the same options it goes on from its last checkpoint. It refuses to do so with another model, size,
    LoRA rank or number of records held out, with other data, or with other settings of the training. Ctrl-C saves and
    leaves with code 130. On many GPUs: accelerate launch -m realcompo_cli train ...; in many processes on a CPU:
    torchrun --nproc_per_node 2 -m realcompo_cli train ... --device cpu
    """
    from dataclasses import replace

    from tokencompose_core.identity import PRESETS

    from .training import TrainingRun, TrainOptions

    given = {
        "steps": steps,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup": warmup,
        "token_weight": token_weight,
        "pixel_weight": pixel_weight,
        "convention": convention,
        "factors": tuple(factor) if factor else None,
        "caption_dropout": caption_dropout,
        "precision": precision,
        "optimizer": optimizer,
        "ema": ema,
        "seed": seed,
        "checkpoint_every": checkpoint_every,
        "keep_checkpoints": keep_checkpoints,
        "validate_every": validate_every,
        "size": training_size(size) if size else None,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    settings = replace(PRESETS[preset], **changed, rank=lora, validation=validation)
    options = TrainOptions(
        data=data,
        masks=masks,
        output=output,
        prompts=tuple(prompt or ()),
        checkpointing=checkpointing,
        cache=cache,
        on_problem=on_problem,
        workers=workers,
        log=log,
    )
    run = TrainingRun(load_model(model, config), settings, options, device)
    if run.runtime.is_main:
        err.print(f"Training in {run.processes}.", soft_wrap=True)
    run.prepare(find_problems if check else None, lambda text: err.print(Text(f"Warning: {text}", "yellow")))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, disable=not run.runtime.is_main) as bars:
        task = bars.add_task("training", total=settings.steps, completed=run.done, figures="")

        def show(report, speed: float) -> None:
            losses = report.losses
            figures = (
                f"loss {losses['ldm']:.4f} token {losses['token']:.3f} pixel {losses['pixel']:.3f} "
                f"inside {'–' if isnan(losses['share']) else format(losses['share'], '.2f')} {speed:.2f} step/s"
            )
            bars.update(task, completed=report.step, figures=figures)

        written = run.train(show, lambda text: bars.console.print(Text(text)))
    stopped = run.done < settings.steps
    if run.runtime.is_main:
        if stopped:
            err.print(f"Stopped after {run.done} of {settings.steps} steps. The same command goes on from there.")
        out.print("Written:")
        for path in written:
            out.print(Text(f"  {path}"), soft_wrap=True)
    if stopped:
        raise typer.Exit(INTERRUPTED)


def prepare(
    images: Annotated[Path, typer.Argument(help="Folder of images.", exists=True, file_okay=False, show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for the training set.")],
    captions: Annotated[
        Path | None,
        typer.Option(
            help="Captions: lines of {file_name, text}, or a COCO captions file.",
            exists=True,
            show_default="NAME.txt beside NAME.jpg",
        ),
    ] = None,
    choose: Annotated[
        Literal["clip", "first"], typer.Option(help="Of several captions, the one most similar by CLIP, or the first.")
    ] = "first",
    clip: Annotated[str | None, typer.Option(help="CLIP model, a folder or a name.", show_default="ViT-L/14")] = None,
    tagger: Annotated[
        Literal["default", "flair", "spacy"], typer.Option(help="Who finds the nouns; the default needs no download.")
    ] = "default",
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Masks that you have, NAME/NOUN.png; a noun or any phrase of the caption.",
            show_default="Grounding DINO and SAM",
            exists=True,
        ),
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Grounding DINO model, a folder or a name.")] = None,
    segmenter: Annotated[str | None, typer.Option(help="SAM model, a folder or a name.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu.", show_default="the best one here")] = None,
) -> None:
    """Make a training set of images and captions: choose captions, find nouns, draw masks.

    Run again after an interrupt, it goes on with the next image; run again after images, captions or masks were
    changed, it does again what depends on them. What cannot be used is listed and left out.
    """
    from tokencompose_core import preparation

    pictures = preparation.read_pictures(images, captions, lambda text: out.print(Text(text), soft_wrap=True))
    with out.status("Loading the models"):
        from .models import best_device

        device = device or best_device()
        chooser, maker = preparation.first_caption, None
        if masks is not None:
            maker = preparation.MaskFolder(masks)
        if choose == "clip" or maker is None:
            from tokencompose_core import annotators

            if choose == "clip":
                chooser = annotators.ClipChooser(clip or annotators.CLIP, device)
            if maker is None:
                found = detector or annotators.GROUNDING_DINO, segmenter or annotators.SAM
                maker = annotators.GroundedSam(*found, device)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=out) as bars:
        tasks = {stage: bars.add_task(stage, total=len(pictures)) for stage in preparation.STAGES}
        path = preparation.prepare(
            pictures,
            images,
            output,
            chooser,
            tagger,
            maker,
            lambda stage, done, total: bars.update(tasks[stage], completed=done, total=total),
            lambda text: bars.console.print(Text(text), soft_wrap=True),
        )
    out.print(Text(f"Written: {path}. Look at it with: realcompo check {output}"), soft_wrap=True)


def shards(
    data: DataArgument,
    output: Annotated[Path, typer.Option(help="New folder for the shards.")],
    masks: MasksOption = None,
    per_shard: Annotated[int, typer.Option(help="Records in a shard.", min=1)] = 1000,
) -> None:
    """Write a training set as WebDataset tar shards, for sets with too many files for a disk or a network.

    Files are copied as they are. A record with a file that is missing or no image is an error, and then nothing is
    written; `realcompo check` lists all such records. Training needs at least one shard for each GPU and --workers.
    """
    from tokencompose_core.formats import open_records
    from tokencompose_core.records import each_record
    from tokencompose_core.shards import ShardSet, write_shards

    records = open_records(data, masks)
    entries = records.each() if isinstance(records, ShardSet) else each_record(records)
    with Progress(TextColumn("writing"), BarColumn(), MofNCompleteColumn(), console=err, transient=True) as bars:
        written = write_shards(bars.track(entries, total=len(records)), output, per_shard)
    count = f"{len(written.paths)} shard{'' if len(written.paths) == 1 else 's'}"
    out.print(
        Text(f"Written: {len(written)} records in {count}. Train on them: realcompo train {output}"), soft_wrap=True
    )


def find_problems(records, tokenizer) -> tuple[list, int]:
    """All problems of a set, and the number of its nouns that can be trained on, with a progress bar."""
    from tokencompose_core.checking import check

    columns = TextColumn("checking"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=err, transient=True, disable=not is_main_process()) as bars:
        task = bars.add_task("", total=len(records))
        chunk = tokenizer.model_max_length
        counts = Counter()

        def progress(done: int, total: int) -> None:
            bars.update(task, completed=done)

        def count(nouns: int) -> None:
            counts["grounded"] += nouns

        return list(check(records, tokenizer, progress, chunk=chunk, grounded=count)), counts["grounded"]


def training_size(text: str) -> tuple[int, int]:
    """(height, width) from "512x768"."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) % 8 == int(height) % 8 == 0 < int(width)):
        raise typer.BadParameter(f"{text!r} is no size: write for example 512x512, both divisible by 8")
    return int(height), int(width)


def load_model(model: str, config: Path | None):
    """The text-to-image pipeline, in fp32."""
    if model == BUNDLED:
        from shapescenes.models import pipelines

        return pipelines()[0]
    if not Path(model).exists():
        raise RealCompoError(f"there is no model {model}: give a diffusers folder, a .safetensors file or {BUNDLED!r}")
    from .models import load_one

    return load_one(Path(model), "fp32", config)
