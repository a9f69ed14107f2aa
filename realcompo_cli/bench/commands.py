"""`realcompo bench`: the field's benchmarks, from the pictures to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from realcompo_core.errors import RealCompoError

from ..consoles import err, out
from ..processes import Processes

bench = typer.Typer(
    help="The field's benchmarks: MultiGen, VISOR, T2I-CompBench, GenEval, GenEval 2, ShapeScenes, or own prompts.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

RunArgument = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
RunsArgument = Annotated[list[Path], typer.Argument(help="Folders of scored runs.", exists=True, show_default=False)]
BenchmarkOption = Annotated[
    str,
    typer.Option(
        help="multigen-coco, multigen-ade20k, visor, t2i-compbench, geneval, geneval2, shapescenes, or a file of "
        "prompts."
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        help="The benchmark's file of prompts, as its authors publish it.",
        exists=True,
        dir_okay=False,
        show_default="fetched once, if there is a network",
    ),
]
CategoryOption = Annotated[
    str | None, typer.Option(help="Of T2I-CompBench: color, shape, …", show_default="as the file's name says")
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Who draws: shapescenes:NAME (a bundled model or system), a diffusers folder or .safetensors file, a "
        "ComfyUI workflow in API form (.json), or a folder of pictures.",
        show_default="shapescenes:balanced for ShapeScenes",
    ),
]
PicturesOption = Annotated[
    int | None, typer.Option(help="Pictures of each prompt.", min=1, show_default="the benchmark's own number")
]
LimitOption = Annotated[
    int | None, typer.Option(help="Only the first so many prompts.", min=1, show_default="all of them")
]
LayoutOption = Annotated[
    Literal["multigen", "geneval", "geneval2", "t2i-compbench"] | None,
    typer.Option(help="How the pictures are named.", show_default="as the benchmark's official code expects"),
]
SeedOption = Annotated[
    int, typer.Option(help="Picture k of prompt i, both from 0, has this seed + 1000 · i + k.", min=0, max=2**62)
]
ShardOption = Annotated[
    str, typer.Option(help="Only every n-th prompt, from the i-th on, so that n machines share a run.", metavar="i/n")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, as `realcompo sweep` has them; repeat for more.", metavar="NAME=VALUE"),
]
SpatialOption = Annotated[
    Path | None, typer.Option(help="Balance the source, a model of yours, with this spatial model.", exists=True)
]
ControlnetOption = Annotated[
    list[Path] | None, typer.Option(help="… with a ControlNet, shown --control; repeat for more.", exists=True)
]
ControlOption = Annotated[list[str] | None, typer.Option(help="openpose or segmentation, one for each ControlNet.")]
GuidanceOption = Annotated[bool, typer.Option("--layout-guidance", help="… with itself under Layout Guidance.")]
FidelityUnetOption = Annotated[
    Path | None,
    typer.Option(help="UNet folder in the place of the source's own: TokenCompose's.", exists=True, file_okay=False),
]
LoraOption = Annotated[Path | None, typer.Option(help="LoRA file on the source.", exists=True, dir_okay=False)]
ConfigOption = Annotated[
    Path | None,
    typer.Option(help="Diffusers folder with configuration and tokenizer, for .safetensors files.", exists=True),
]
DtypeOption = Annotated[
    Literal["fp16", "bf16", "fp32"] | None,
    typer.Option(help="Precision.", show_default="fp16 on a GPU, fp32 on the CPU"),
]
DeviceOption = Annotated[str | None, typer.Option(help="cuda, mps, cpu, ...", show_default="the best one")]
ServerOption = Annotated[
    str | None,
    typer.Option(help="Address of the ComfyUI that runs a workflow.", show_default="http://127.0.0.1:8188"),
]
PlaceOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Where prompt, seed and layout go in a workflow: prompt=6.text; a node by its key or title. output=NODE "
        "is whose pictures count.",
        metavar="NAME=NODE.INPUT",
    ),
]
ProviderOption = Annotated[
    str | None, typer.Option(help="Who proposes layouts.", show_default="rules; the true layouts of ShapeScenes")
]
LayoutsOption = Annotated[
    Path | None, typer.Option(help="Folder with a layout 0.json, 1.json … for each prompt.", file_okay=False)
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        help="shapescenes; a transformers folder or hub id (OWLv2, OWL-ViT, Grounding DINO, Mask2Former, DETR …); "
        "torchvision:NAME; ultralytics:FILE; a file of OpenCV's DNN (.onnx, .pb).",
        show_default="the benchmark's official one",
    ),
]
LabelsOption = Annotated[Path | None, typer.Option(help="The detector's labels, a line each.", dir_okay=False)]
DetectorConfigOption = Annotated[Path | None, typer.Option(help="The .pbtxt or .cfg beside a detector's file.")]
DetectorInputOption = Annotated[
    str | None,
    typer.Option(
        help="Size and factor of a detector file's input, such as 640x640,1/255.", show_default="by the kind of file"
    ),
]
VqaOption = Annotated[
    str | None,
    typer.Option(help="Who answers questions: BLIP-VQA or a vision language model.", show_default="the official one"),
]
ClipOption = Annotated[
    str | None, typer.Option(help="CLIP for colours and CLIPScore.", show_default="the official one")
]
RealOption = Annotated[
    Path | None, typer.Option(help="Folder of real pictures, for FID and KID.", exists=True, file_okay=False)
]
InceptionOption = Annotated[
    Path | None,
    typer.Option(help="torch-fidelity's Inception weights.", dir_okay=False, show_default="fetched once"),
]
ReferenceOption = Annotated[
    Path | None,
    typer.Option(
        help="Run of the stylised model alone: how far this one's pictures are from its style.",
        exists=True,
        file_okay=False,
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        help="Whose features a style is: shapescenes, vgg19, vgg19=WEIGHTS, or a CLIP.",
        show_default="shapescenes for its pictures, else openai/clip-vit-base-patch32",
    ),
]
ReportOption = Annotated[Path, typer.Option(help="Folder for the report.", file_okay=False)]


@bench.command()
def generate(
    run: RunArgument,
    benchmark: BenchmarkOption,
    source: SourceOption = None,
    prompts: PromptsOption = None,
    category: CategoryOption = None,
    pictures: PicturesOption = None,
    limit: LimitOption = None,
    layout: LayoutOption = None,
    seed: SeedOption = 0,
    shard: ShardOption = "1/1",
    set_: SetOption = None,
    spatial: SpatialOption = None,
    controlnet: ControlnetOption = None,
    control: ControlOption = None,
    layout_guidance: GuidanceOption = False,
    fidelity_unet: FidelityUnetOption = None,
    lora: LoraOption = None,
    config: ConfigOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    server: ServerOption = None,
    place: PlaceOption = None,
    provider: ProviderOption = None,
    layouts: LayoutsOption = None,
) -> None:
    """Draw a benchmark's prompts. Stopped at any moment and run again, it goes on where it was.

    Over several GPUs: accelerate launch -m realcompo_cli bench generate …

    Example: realcompo bench generate runs/sd15 --benchmark multigen-coco --source sd15 --limit 20
    """
    options = locals()
    from . import steps

    if source is not None and len(source) > 1:
        raise RealCompoError("--source is given several times: `bench generate` draws one run, `bench all` several")
    steps.generate(run, steps.source_of(benchmark, source), options)


@bench.command()
def detect(
    run: RunArgument,
    detector: DetectorOption = None,
    labels: LabelsOption = None,
    detector_config: DetectorConfigOption = None,
    detector_input: DetectorInputOption = None,
    vqa: VqaOption = None,
    clip: ClipOption = None,
    device: DeviceOption = None,
    shard: ShardOption = "1/1",
) -> None:
    """Look at a run's pictures with the models that its benchmark asks for. It goes on where it was stopped.

    "none" leaves out a model; what it would have measured is told in the scores.

    Example: realcompo bench detect runs/sd15 --detector ./owlv2-large-patch14-ensemble
    """
    options = locals()
    from . import steps

    steps.detect(run, options)


@bench.command()
def score(
    run: RunArgument,
    real: RealOption = None,
    inception: InceptionOption = None,
    reference: ReferenceOption = None,
    encoder: EncoderOption = None,
    device: DeviceOption = None,
) -> None:
    """Score what was seen: a table here, and scores.json in the run's folder.

    Example: realcompo bench score runs/sd15 --real coco/val2017
    """
    options = locals()
    from . import steps

    if reference is not None and reference.resolve() == run.resolve():
        raise RealCompoError(f"--reference {reference} is the run itself: name that of the stylised model alone")
    steps.show(run, steps.score(run, options))


@bench.command()
def report(runs: RunsArgument, output: ReportOption = Path("bench_report")) -> None:
    """Compare scored runs: one HTML page and one Markdown file, with pictures of successes and failures.

    Example: realcompo bench report runs/sd15 runs/tokencompose
    """
    from . import steps

    steps.report(runs, output)


@bench.command("all")
def all_(
    output: Annotated[Path, typer.Argument(help="Folder of the runs and their report.", show_default=False)],
    benchmark: BenchmarkOption,
    source: SourceOption = None,
    prompts: PromptsOption = None,
    category: CategoryOption = None,
    pictures: PicturesOption = None,
    limit: LimitOption = None,
    layout: LayoutOption = None,
    seed: SeedOption = 0,
    set_: SetOption = None,
    spatial: SpatialOption = None,
    controlnet: ControlnetOption = None,
    control: ControlOption = None,
    layout_guidance: GuidanceOption = False,
    fidelity_unet: FidelityUnetOption = None,
    lora: LoraOption = None,
    config: ConfigOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    server: ServerOption = None,
    place: PlaceOption = None,
    provider: ProviderOption = None,
    layouts: LayoutsOption = None,
    detector: DetectorOption = None,
    labels: LabelsOption = None,
    detector_config: DetectorConfigOption = None,
    detector_input: DetectorInputOption = None,
    vqa: VqaOption = None,
    clip: ClipOption = None,
    real: RealOption = None,
    inception: InceptionOption = None,
    reference: ReferenceOption = None,
    encoder: EncoderOption = None,
) -> None:
    """Draw, look, score and report in one go, for one or several sources. It goes on where it was stopped.

    ShapeScenes without a source compares the bundled text-to-image model, layout branch, balanced pair, TokenCompose,
    Attend-and-Excite, BoxDiff, Composable and Structured Diffusion.

    Example: realcompo bench all shapes --benchmark shapescenes --limit 50
    """
    options = locals() | {"shard": "1/1"}
    from . import steps

    specs = steps.sources_of(benchmark, source)
    folders = [output / name for name in steps.folder_names(specs)]
    for folder, spec in zip(folders, specs, strict=True):
        steps.check(folder, spec, options)
    for folder, spec in zip(folders, specs, strict=True):
        out.print(Text(f"{folder.name}", style="bold"))
        steps.generate(folder, spec, options, stop=False)
        steps.detect(folder, options)
        if Processes.of_this_command().is_main:
            steps.show(folder, steps.score(folder, options))
    if Processes.of_this_command().is_main:
        steps.report(folders, output)


@bench.command()
def attention(
    data: Annotated[
        Path,
        typer.Argument(
            help="Pictures with captions, nouns and masks: a training set as `realcompo train` reads it.",
            exists=True,
            show_default=False,
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A diffusers folder or a .safetensors file; a UNet folder after a model; repeat to compare.",
            show_default="the bundled model, and tokencompose",
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of the masks, if not found by itself.", exists=True)
    ] = None,
    limit: LimitOption = None,
    steps: Annotated[int | None, typer.Option(help="Steps.", min=1, show_default="50; 12 for the bundled")] = None,
    cfg: Annotated[float, typer.Option(help="Guidance at which pictures are drawn again; above 1 is slow.")] = 1.0,
    config: ConfigOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("attention_bench"),
) -> None:
    """Measure attention mIoU as in TokenCompose's table 4: pictures are inverted, and maps compared with their masks.

    Example: realcompo bench attention coco_gen --model sd14 --model tokencompose/unet
    """
    options = locals()
    from . import steps as doing

    doing.attention(output, options)


@bench.command()
def study(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", exists=True, show_default=False)],
    pairs: Annotated[int | None, typer.Option(help="At most so many pairs.", min=1, show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Decides which pairs, and which side each picture has.", min=0)] = 0,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Which picture is better?",
    output: Annotated[Path, typer.Option(help="The page; its key is written beside it.")] = Path("study.html"),
) -> None:
    """Make a page for blind votes on pairs of pictures of two or more runs, and the key that tells them apart.

    Give the page to people, and keep the key. Votes are saved as JSON by the page: count them with `bench votes`.

    Example: realcompo bench study runs/sd15 runs/balanced --pairs 60
    """
    import json

    from ..files import Files
    from . import steps
    from .run import Run
    from .study import StudyRun, make_study
    from .votes import read_key

    found = [Run(folder) for folder in runs]
    known = [
        StudyRun(r.name, {p.index: p.text for p in r.prompts}, {p: at for p, at in r.pictures.items() if at.exists()})
        for r in found
    ]
    made = make_study(known, pairs=pairs, seed=seed, title=title)
    files, key = Files(output.parent), output.with_name(f"{output.stem}.key.json")
    if key.exists() and read_key(key)["study"] != made.key["study"]:
        raise RealCompoError(f"{key} is the key of another study, whose votes need it: choose another --output")
    files.write(output.name, made.html)
    files.write(key.name, json.dumps(made.key, indent=1, ensure_ascii=False) + "\n")
    steps.written(files.written)


@bench.command()
def votes(
    files: Annotated[list[Path], typer.Argument(help="Votes, as the page has saved them.", show_default=False)],
    key: Annotated[Path, typer.Option(help="The key that was written beside the page.", dir_okay=False)] = Path(
        "study.key.json"
    ),
    output: Annotated[Path | None, typer.Option(help="Also write the table as Markdown.", show_default=False)] = None,
) -> None:
    """Count the votes of a study: win rates with 95 % confidence intervals.

    Example: realcompo bench votes votes-*.json --key study.key.json
    """
    from ..files import Files
    from . import steps
    from .votes import read_key, read_votes, votes_table, win_rates

    counted = read_votes(files, read_key(key))
    for note in counted.notes:
        err.print(Text(f"note: {note}", "yellow"))
    table = votes_table(win_rates(counted))
    typer.echo(table)
    if output is not None:
        written = Files(output.parent)
        written.write(output.name, table)
        steps.written(written.written)
