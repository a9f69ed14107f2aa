"""The command `realcompo`.

Commands import what they need when they run, so that `realcompo --help` answers at once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from realcompo_core.errors import RealCompoError

from . import train_commands
from .bench.commands import bench
from .consoles import err, out
from .files import Files
from .processes import command_line, is_first_to_say

if TYPE_CHECKING:
    from realcompo_core.diffusers import RealCompoPipeline
    from realcompo_core.layout import Layout
    from realcompo_core.providers import LayoutProvider

    from .report import Report
    from .runs import Run
    from .sweep import Sweep


class Commands(TyperGroup):
    """Shows what went wrong in one panel; a traceback is for bugs."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except RealCompoError as error:
            if is_first_to_say(str(error)):
                err.print(Panel(Text(str(error)), title="error", title_align="left", border_style="red"))
            raise typer.Exit(1) from error


class Axis(str, Enum):
    """What a sheet of attention maps can compare. Typer knows no list of Literals."""

    words = "words"
    layers = "layers"
    steps = "steps"
    heads = "heads"
    branches = "branches"


app = typer.Typer(
    cls=Commands,
    help="Compositional pictures: two diffusion models, balanced for each pixel by their own attention maps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

PromptArgument = Annotated[str, typer.Argument(help="What the picture shows.", show_default=False)]
ProviderOption = Annotated[str, typer.Option(help="Who proposes the layout; see `realcompo providers`.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the noise.", min=0)]
PresetOption = Annotated[
    Literal["fast", "balanced", "best"] | None,
    typer.Option(
        help="Settings of the balancer by what a run may cost: about 1.5, 1.8 or 1.9 times one model's time, for ever "
        "more exact pictures.",
        show_default="balanced, if no setting is given",
    ),
]
ModeOption = Annotated[
    Literal["one_pass", "lookahead", "fixed"] | None,
    typer.Option(
        help="Read the maps of passes that are needed anyway, look one step ahead (the paper, slower), or mix with "
        "fixed weights.",
        show_default="the preset's; one_pass without one",
    ),
]
SpatialWeightOption = Annotated[
    float | None,
    typer.Option(help="With --mode fixed: the spatial branch's weight.", min=0, max=1, show_default="0.5"),
]
OutsideOption = Annotated[
    float | None,
    typer.Option(
        help="With --mode fixed: its weight outside of the objects' regions.",
        min=0,
        max=1,
        show_default="the same everywhere",
    ),
]
ScheduleOption = Annotated[
    Literal["constant", "step", "linear", "cosine"] | None,
    typer.Option(
        help="With --mode fixed: the weights stay to the end, or until --t1, or fall until --t1 along a line or a "
        "cosine; then the fidelity branch finishes alone.",
        show_default="constant",
    ),
]
T0Option = Annotated[
    float | None,
    typer.Option(
        help="Share of the steps, from the start, that the spatial branch makes alone. Not with constant weights.",
        min=0,
        max=1,
        show_default="0",
    ),
]
T1Option = Annotated[
    float | None,
    typer.Option(
        help="Share of the steps after which the fidelity branch finishes alone. Not with constant weights.",
        min=0,
        max=1,
        show_default="the preset's; 0.6 without one",
    ),
]
NegativeOption = Annotated[str, typer.Option(help="What must not be in the picture.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="Diffusers folder with configuration and tokenizer, for .safetensors files.",
        exists=True,
        file_okay=False,
    ),
]
DtypeOption = Annotated[
    Literal["fp16", "bf16", "fp32"] | None,
    typer.Option(help="Precision.", show_default="fp16 on a GPU, fp32 on the CPU"),
]
SizeOption = Annotated[str, typer.Option(help="Width x height in pixels.", metavar="WxH")]
PaletteOption = Annotated[
    Literal["ADE20K", "ShapeScenes"] | None,
    typer.Option(help="Whose colours a segmentation picture has.", show_default="ADE20K"),
]
LayoutPictureOption = Annotated[Path, typer.Option(help="Picture of the layout.")]
LayoutFileOption = Annotated[Path, typer.Option(help="The layout for `realcompo generate --layout`.")]


FidelityUnetOption = Annotated[
    Path | None,
    typer.Option(
        help="Diffusers UNet folder in the place of the fidelity model's UNet, e.g. TokenCompose's.",
        exists=True,
        file_okay=False,
    ),
]
LoraOption = Annotated[Path | None, typer.Option(help="LoRA file on the fidelity model.", exists=True, dir_okay=False)]
ControlnetOption = Annotated[
    list[Path] | None,
    typer.Option(help="ControlNet of the spatial branch, a folder or a file; repeat for more.", exists=True),
]
ControlOption = Annotated[
    list[str] | None,
    typer.Option(
        help="What a ControlNet is shown, one for each: a picture's path, or openpose or segmentation (ADE20K), "
        "drawn from the layout."
    ),
]
ControlStrengthOption = Annotated[float, typer.Option(help="Strength of the ControlNets.", min=0)]
ControlStartOption = Annotated[float, typer.Option(help="Share of the steps before they act.", min=0, max=1)]
ControlEndOption = Annotated[float, typer.Option(help="Share of the steps after which they rest.", min=0, max=1)]
DetachControlOption = Annotated[
    bool, typer.Option("--detach-control", help="No gradient through the ControlNets: faster, less exact.")
]
ClassesOption = Annotated[
    str, typer.Option(help="Classes of phrases that --control segmentation does not know: corgi=animal.")
]
LayoutGuidanceOption = Annotated[
    bool, typer.Option("--layout-guidance", help="The spatial branch is guided by its own attention.")
]
PhrasesOption = Annotated[
    float,
    typer.Option(
        help="Above 0: each phrase is a prompt of its own in its region of the spatial branch, of this weight.",
        min=0,
    ),
]
SystemOption = Annotated[
    Literal[
        "v1",
        "v1_guided",
        "v1_excited",
        "v2",
        "v3",
        "v4",
        "segmentation",
        "phrases",
        "attend_and_excite",
        "boxdiff",
        "composable",
        "structured",
        "dit",
    ],
    typer.Option(
        help="Of the bundled models. v1: GLIGEN's gated layers follow the boxes; v1_guided: Layout Guidance moves its "
        "latent as well; v1_excited: v1 with Attend-and-Excite on the fidelity branch; v2: v1 with a fidelity branch "
        "fine-tuned by TokenCompose; v3 and v4: Layout Guidance on the fidelity branch of v1 and v2; segmentation: a "
        "ControlNet that is shown the layout; phrases: a prompt for each region; attend_and_excite, boxdiff, "
        "composable and structured: these methods on the text-to-image model; dit: a small transformer of SD3's kind, "
        "and the same with a layout LoRA under regional attention."
    ),
]


@app.callback()
def main() -> None:
    # Libraries read these when they are imported; whoever sets them wants to see more.
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@app.command()
def demo(
    prompt: PromptArgument,
    seed: SeedOption = 7,
    system: SystemOption = "v1",
    steps: Annotated[int | None, typer.Option(help="Sampling steps.", min=2, show_default="the demo's own")] = None,
    preset: PresetOption = None,
    mode: ModeOption = None,
    spatial_weight: SpatialWeightOption = None,
    spatial_weight_outside: OutsideOption = None,
    schedule: ScheduleOption = None,
    t0: T0Option = None,
    t1: T1Option = None,
    provider: ProviderOption = "rules",
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo_output"),
) -> None:
    """Draw coloured shapes with the small bundled models, and report on how they were balanced.

    Example: realcompo demo "a red circle to the left of a blue square"
    """
    given = {"mode": mode, "spatial_weight": spatial_weight, "spatial_weight_outside": spatial_weight_outside}
    given |= {"schedule": schedule, "t0": t0, "t1": t1}
    with kept_files(output) as files:
        with out.status("Loading the models"):
            from shapescenes import DEFAULTS, DIT_DEFAULTS

            from .demo import check_words, judge_notes, load_demo
            from .runs import balance_settings, report_on

            balance = balance_settings(preset, **given)
            layout = propose(named_provider(provider), prompt, (128, 128))
            check_words(prompt, layout)
            write_layout(files, layout)
            pipeline, controls = load_demo(system)
        own = DIT_DEFAULTS if system == "dit" else DEFAULTS
        settings = own | {"seed": seed, "balance": balance, "controls": controls}
        if steps:
            settings["steps"] = steps
        runs = sample_all(pipeline, prompt, layout, settings, alone=True, files=files)
        facts = {
            "command": command_line(),
            "layout": f"by the provider {provider}",
            "models": f"ShapeScenes, bundled: {system}",
        }
        notes = judge_notes(layout, {run.name: run.image for run in runs})
        write_report(files, report_on(pipeline, prompt, runs, settings, facts, notes))


@app.command()
def generate(
    prompt: PromptArgument,
    fidelity: Annotated[
        Path, typer.Option(help="Fidelity model: a diffusers folder or a .safetensors file.", exists=True)
    ],
    spatial: Annotated[
        Path | None,
        typer.Option(
            help="Spatial model of the same family, e.g. GLIGEN.", exists=True, show_default="the fidelity model"
        ),
    ] = None,
    fidelity_unet: FidelityUnetOption = None,
    lora: LoraOption = None,
    controlnet: ControlnetOption = None,
    control: ControlOption = None,
    control_strength: ControlStrengthOption = 1.0,
    control_start: ControlStartOption = 0.0,
    control_end: ControlEndOption = 1.0,
    detach_control: DetachControlOption = False,
    classes: ClassesOption = "",
    layout_guidance: LayoutGuidanceOption = False,
    phrases: PhrasesOption = 0.0,
    config: ConfigOption = None,
    layout: Annotated[
        Path | None, typer.Option(help="Layout JSON, for a provider's.", exists=True, dir_okay=False)
    ] = None,
    provider: ProviderOption = "rules",
    negative: NegativeOption = "",
    steps: Annotated[int, typer.Option(help="Sampling steps.", min=2)] = 50,
    sampler: Annotated[Literal["plms", "ddim", "euler", "dpmpp_2m", "ddpm"], typer.Option(help="Sampler.")] = "plms",
    cfg: Annotated[float, typer.Option(help="Guidance scale of both branches.")] = 7.5,
    seed: SeedOption = 0,
    size: SizeOption = "512x512",
    beta: Annotated[
        float,
        typer.Option(
            help="How strongly the layout acts: share of the steps with GLIGEN's gates open, factor of the strength of "
            "ControlNets, Layout Guidance and phrases.",
            min=0,
            max=1,
        ),
    ] = 1.0,
    preset: PresetOption = None,
    mode: ModeOption = None,
    spatial_weight: SpatialWeightOption = None,
    spatial_weight_outside: OutsideOption = None,
    schedule: ScheduleOption = None,
    t0: T0Option = None,
    t1: T1Option = None,
    layers: Annotated[int, typer.Option(help="Read attention at 1/N of the latent's resolution.")] = 4,
    dtype: DtypeOption = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps, cpu, ...", show_default="the best one")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also draw with each branch alone.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
) -> None:
    """Draw with your own models. Nothing is downloaded.

    Examples: realcompo generate "a corgi and a teddy bear" --fidelity sd15 --spatial gligen

    realcompo generate "two dancers" --layout poses.json --fidelity sdxl --controlnet openpose --control openpose
    """
    options = locals()
    given = {"mode": mode, "spatial_weight": spatial_weight, "spatial_weight_outside": spatial_weight_outside}
    given |= {"schedule": schedule, "t0": t0, "t1": t1}
    width, height = size_of(size)
    with kept_files(output) as files:
        with out.status("Loading the models"):
            from .systems import Models, load_system

            models = Models.of(options)
            models.check()

            from .runs import balance_settings, report_on

            balance = balance_settings(preset, **given)
            found = read_layout(layout) if layout else propose(named_provider(provider), prompt, (width, height))
            write_layout(files, found, (width, height))

            pipeline, controls = load_system(models)
        settings = {
            "steps": steps,
            "sampler": sampler,
            "guidance_scale": cfg,
            "seed": seed,
            "width": width,
            "height": height,
            "beta": beta,
            "layers": layers,
            "include_adjectives": False,
            "negative_prompt": negative or None,
            "balance": balance,
            "controls": controls,
        }
        runs = sample_all(pipeline, prompt, found, settings, alone=compare, files=files)
        facts = {
            "command": command_line(),
            "layout": f"from {layout}" if layout else f"by the provider {provider}",
            "models": models.description,
        }
        write_report(files, report_on(pipeline, prompt, runs, settings, facts))


@app.command()
def sweep(
    prompt: PromptArgument,
    x: Annotated[str, typer.Option(help="The setting of the columns and its values.", metavar="NAME=VALUES")],
    y: Annotated[
        str | None,
        typer.Option(
            help="That of the rows, if there are to be several.", metavar="NAME=VALUES", show_default="one row"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Another setting, for all cells; repeat for more.",
            metavar="NAME=VALUE",
            show_default="those of demo; with --fidelity, of generate",
        ),
    ] = None,
    prompts: Annotated[
        int,
        typer.Option(
            help="Run each cell on so many held-out scenes as well: accuracy and realism. Bundled models only.",
            min=1,
            show_default="the prompt alone",
        ),
    ] = 1,
    layout: Annotated[
        Path | None, typer.Option(help="Layout JSON, for a provider's.", exists=True, dir_okay=False)
    ] = None,
    provider: ProviderOption = "rules",
    fidelity: Annotated[
        Path | None, typer.Option(help="Your own fidelity model.", exists=True, show_default="the bundled one")
    ] = None,
    spatial: Annotated[
        Path | None, typer.Option(help="Your own spatial model.", exists=True, show_default="the bundled one")
    ] = None,
    fidelity_unet: FidelityUnetOption = None,
    lora: LoraOption = None,
    controlnet: ControlnetOption = None,
    control: ControlOption = None,
    control_strength: ControlStrengthOption = 1.0,
    control_start: ControlStartOption = 0.0,
    control_end: ControlEndOption = 1.0,
    detach_control: DetachControlOption = False,
    classes: ClassesOption = "",
    layout_guidance: LayoutGuidanceOption = False,
    phrases: PhrasesOption = 0.0,
    system: SystemOption = "v1",
    config: ConfigOption = None,
    dtype: DtypeOption = None,
    device: Annotated[
        str | None,
        typer.Option(help="cuda, mps, cpu, ...", show_default="the best one; cpu for the bundled models"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("sweep"),
) -> None:
    """Draw a prompt with all pairs of values of two settings: one grid of pictures, with numbers below each.

    Settings: mode, t0, t1, spatial-weight, spatial-weight-outside, schedule, rule, rate, initial, update-every,
    update-until, sources, guided-until, layout-guidance (share of the steps in which spatial branches have the presets'
    Layout Guidance), beta, cfg, steps, seed, sampler, layers, include-adjectives, negative; with your own models width
    and height too. Semicolons may separate values that have commas.

    Stopped and run again, it goes on: a cell that is in the folder from the same settings is not run again.

    Example: realcompo sweep "a red circle to the left of a blue square" --x t0=0,0.2,0.4 --y beta=0.3,0.6,1
    """
    options = locals()
    bundled = fidelity is None
    with kept_files(output) as files:
        with out.status("Loading the models"):
            from realcompo_core.sweep.plan import resolve

            from . import sweep as sweeping
            from .systems import Models, load_system

            models = Models.of(options)
            sweeping.check_options(models, system, prompts)
            plan = sweeping.parse_plan(x, y, bundled)
            given = sweeping.parse_given(set_ or [], bundled)
            settings = resolve(plan, sweeping.own_settings(bundled), given)
            pixels = (128, 128) if bundled else (settings[0]["width"] or 512, settings[0]["height"] or 512)
            found = read_layout(layout) if layout else propose(named_provider(provider), prompt, pixels)
            if not found.objects:
                raise RealCompoError("the layout has no objects: every cell would be the fidelity model's own picture")
            if bundled:
                from .demo import check_words, load_demo

                check_words(prompt, found)
                (pipeline, controls), known = load_demo(system), sweeping.bundled_models(system)
                measure = sweeping.HeldOutScenes(prompts) if prompts > 1 else sweeping.JudgedPicture()
            else:
                pipeline, controls = load_system(models)
                known, measure = sweeping.named_models(models), sweeping.AttentionAndDifference()
            sweeping.check_settings(pipeline, settings)
            subject = sweeping.Subject(prompt, found, pipeline, controls, known)
        run_sweep(files, sweeping.Sweep(subject, plan, settings, measure))


@app.command()
def attention(
    prompt: PromptArgument,
    model: Annotated[
        Path | None,
        typer.Option(
            help="A diffusers folder or a .safetensors file: SD1.x, SD2.x or SDXL.",
            exists=True,
            show_default="the bundled one",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="Another model, or a UNet folder such as TokenCompose's: its maps beside the first one's, and their "
            "differences. For the bundled model: tokencompose.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="A picture that the prompt describes: its noise is found, and the maps are of drawing it again.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    negative: NegativeOption = "",
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps.", min=1, show_default="50; 12 for the bundled model")
    ] = None,
    cfg: Annotated[
        float | None, typer.Option(help="Guidance scale; 1 for none.", show_default="7.5; 3 for the bundled model")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the noise. Not with --picture.", min=0, show_default="3")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Width x height in pixels.", metavar="WxH", show_default="the model's own")
    ] = None,
    words: Annotated[
        str, typer.Option(help="Words or phrases of the prompt, with commas between them.", show_default="all words")
    ] = "",
    axis: Annotated[
        list[Axis] | None,
        typer.Option(
            help="What a sheet compares; repeat for more sheets.", show_default="words; branches with --compare"
        ),
    ] = None,
    conditioning: Annotated[
        Literal["positive", "negative"], typer.Option(help="Whose words: the prompt's or the negative prompt's.")
    ] = "positive",
    layers: Annotated[
        Literal["blocks", "layers", "decoder"],
        typer.Option(help="Record a map for each block, each layer, or each block from the middle on."),
    ] = "blocks",
    heads: Annotated[
        Literal["averaged", "apart"] | None,
        typer.Option(
            help="Apart takes as many times the memory as there are heads.",
            show_default="averaged; apart with --axis heads",
        ),
    ] = None,
    every: Annotated[int, typer.Option(help="Record every N-th step.", metavar="N", min=1)] = 1,
    palette: Annotated[
        Literal["viridis", "inferno", "turbo", "gray"], typer.Option(help="Colours of the maps.")
    ] = "viridis",
    layout: Annotated[
        Path | None,
        typer.Option(
            help="Layout JSON: also write how much of each object's attention is in its box.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    dtype: DtypeOption = None,
    device: Annotated[
        str | None,
        typer.Option(help="cuda, mps, cpu, ...", show_default="the best one; cpu for the bundled model"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("attention"),
) -> None:
    """Draw with one model, or with two, and show what each word attends to while they draw.

    Example: realcompo attention "a red circle and a blue square" --words "red circle, square" --axis steps

    Example: realcompo attention "a cat on a chair" --model sd15 --picture photo.png --compare tuned/unet
    """
    if picture is not None and seed is not None:
        raise RealCompoError(f"--seed {seed} has no meaning with --picture, whose own noise is found: leave it out")
    pixels = size_of(size) if size else None
    with kept_files(output) as files:
        with out.status("Loading the model"):
            from . import attention as recording
            from .systems import read_picture

            axes = [each.value for each in axis or [Axis.words if compare is None else Axis.branches]]
            own_steps, own_cfg = recording.defaults(model)
            wanted = recording.Wanted(
                prompt=prompt,
                negative=negative,
                steps=steps or own_steps,
                guidance_scale=own_cfg if cfg is None else cfg,
                seed=3 if seed is None else seed,
                size=pixels,
                phrases=[phrase.strip() for phrase in words.split(",") if phrase.strip()],
                axes=axes,
                keep=recording.Keep(
                    layers=layers, heads=heads or ("apart" if "heads" in axes else "averaged"), every=every
                ),
                view=recording.View(conditioning=conditioning, palette=palette),
                layout=read_layout(layout) if layout else None,
                picture=picture and read_picture("--picture", picture, "Give one, or draw without it"),
            )
            if model is None:
                recording.check_vocabulary(f"{prompt} {negative}")
            loaded = [recording.load(model, config, dtype, device)]
            recording.check(loaded[0], wanted, compared=compare is not None)
            if compare is not None:
                loaded.append(recording.load_other(loaded[0], compare, config))
                recording.check(loaded[1], wanted, compared=True)
            names = recording.names_of(model, compare)
        drawn = []
        for pipeline, name in zip(loaded, names, strict=True):
            with Progress(*step_columns(), console=out) as bars:
                task = bars.add_task("sampling", total=wanted.steps)
                drawn.append(
                    recording.sample(
                        pipeline,
                        wanted,
                        lambda what, done, total, bars=bars, task=task: bars.update(
                            task, completed=done, total=total, description=what
                        ),
                    )
                )
            if drawn[-1].told:
                out.print(Text(f"{name}: {drawn[-1].told}"))
        with out.status("Drawing the sheets"):
            rows = recording.write(files, drawn, names, wanted)
        if len(drawn) == 2 and rows:
            for line in recording.told_differences(rows):
                out.print(Text(line))


def print_schema(wanted: bool) -> None:
    if wanted:
        import json

        from realcompo_core.layout import layout_schema

        typer.echo(json.dumps(layout_schema(), indent=2))
        raise typer.Exit


@app.command("layout")
def layout_command(
    prompt: Annotated[
        str,
        typer.Argument(help="What the picture shows; with --from, that of the layout is taken.", show_default=False),
    ] = "",
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="Layout JSON to change instead.", exists=True, dir_okay=False, show_default=False),
    ] = None,
    instruction: Annotated[
        list[str] | None,
        typer.Option(help="What to change in it: move the cat to the left. Repeat for more.", show_default=False),
    ] = None,
    provider: ProviderOption = "rules",
    reply: Annotated[
        typer.FileText | None,
        typer.Option(help="File with a language model's reply to read the layout from; - is standard input."),
    ] = None,
    format: Annotated[
        Literal["auto", "xyxy", "xywh", "yxyx", "lmd"],
        typer.Option(
            help="The order of a box's numbers in a language model's reply; lmd: x, y, width, height in 512 pixels.",
            show_default="found out",
        ),
    ] = "auto",
    cache: Annotated[bool, typer.Option(help="Use layouts that a language model proposed before.")] = True,
    size: SizeOption = "512x512",
    output: LayoutPictureOption = Path("layout.png"),
    json: LayoutFileOption = Path("layout.json"),
    schema: Annotated[  # eager: it needs no prompt
        bool,
        typer.Option(
            "--schema", help="Print the JSON Schema of layout files instead.", is_eager=True, callback=print_schema
        ),
    ] = False,
) -> None:
    """Propose a layout for a sentence, or change one: a table, a picture and a JSON file.

    Examples: realcompo layout "a cat and a dog"

    realcompo layout --from layout.json --instruction "move the cat to the left and make it bigger"
    """
    from realcompo_core.providers import TextProvider

    if not prompt and not from_:
        raise typer.BadParameter("say what the picture shows, or give a layout with --from")
    if instruction and not from_:
        raise typer.BadParameter("--instruction changes a layout: give it with --from")
    if from_ and not instruction and not reply:
        raise typer.BadParameter("--from: say what to change with --instruction, or give a --reply that does it")
    pixels = size_of(size)
    if provider == "rules" and not reply:
        check_unused({"--format": format if format != "auto" else None}, "the provider rules")
    source = TextProvider(reply.read(), format) if reply else named_provider(provider, cache, format)
    with out.status(f"Asking the provider {source.name}"):
        if from_:
            found = revise(source, from_, prompt, "\n".join(instruction or []), pixels)
        else:
            found = propose(source, prompt, pixels)
    show_layout(found, pixels, output, json)


@app.command("layout-from")
def layout_from(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON with people's keypoints (OpenPose, POSE_KEYPOINT), or a segmentation picture.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ],
    prompt: PromptArgument,
    phrases: Annotated[
        str,
        typer.Option(
            help="Who the people are: two dancers, a boy; or what the classes are: a red car, a corgi=animal.",
            show_default=False,
        ),
    ],
    people: Annotated[
        str, typer.Option(help="Whom the phrases name, from 0: 2, 0 or 0+1, 2.", show_default="all in their order")
    ] = "",
    region: Annotated[
        Literal["pose", "box"] | None,
        typer.Option(help="Where a person may be: around the pose, or in its box.", show_default="pose"),
    ] = None,
    canvas: Annotated[
        str,
        typer.Option(
            help="Width x height of the picture that keypoints are measured in.",
            metavar="WxH",
            show_default="as their file says",
        ),
    ] = "",
    palette: PaletteOption = None,
    size: SizeOption = "512x512",
    output: LayoutPictureOption = Path("layout.png"),
    json: LayoutFileOption = Path("layout.json"),
) -> None:
    """Take a layout from a pose or a segmentation: a table, a picture and a JSON file.

    Example: realcompo layout-from pose.json "two dancers and a boy" --phrases "two dancers, a boy"
    """
    from . import layouts

    pixels = size_of(size)
    if layouts.is_picture(file):
        check_unused({"--people": people, "--region": region, "--canvas": canvas}, "a segmentation picture")
        found = layouts.of_segmentation(file, prompt, phrases, palette or "ADE20K")
    else:
        check_unused({"--palette": palette}, "keypoints")
        measured = size_of(canvas) if canvas else (0, 0)
        found = layouts.of_keypoints(file, prompt, phrases, people, region or "pose", measured)
    show_layout(found, pixels, output, json)


@app.command("control-picture")
def control_picture(
    layout: Annotated[Path, typer.Argument(help="Layout JSON.", exists=True, dir_okay=False, show_default=False)],
    kind: Annotated[
        Literal["segmentation", "openpose"],
        typer.Option(help="A map of classes, or stick figures of a layout with keypoints."),
    ] = "segmentation",
    palette: PaletteOption = None,
    classes: Annotated[
        str,
        typer.Option(
            help="Classes of phrases that the palette does not know: corgi=dog.", show_default="by their nouns"
        ),
    ] = "",
    size: SizeOption = "512x512",
    output: Annotated[Path, typer.Option(help="The picture.")] = Path("control.png"),
) -> None:
    """Draw a layout as the picture that a segmentation or pose ControlNet reads."""
    from . import layouts

    pixels, found = size_of(size), read_layout(layout)
    if kind == "openpose":
        check_unused({"--palette": palette, "--classes": classes}, "openpose")
        picture = layouts.draw_pose(found, pixels)
    else:
        picture = layouts.segmentation(found, palette or "ADE20K", classes, pixels)
    with kept_files(Path()) as files:
        files.write_picture(str(output), picture)


@app.command()
def providers() -> None:
    """List the layout providers, and where their profiles are read from."""
    from realcompo_core.providers import profile_names
    from realcompo_core.providers.profiles import load_profile, profiles_file

    table = Table("provider", "what it is")
    table.add_row("rules", "built in: grammar and geometry, no model, no network")
    table.add_row("text", "reads a reply that you have: realcompo layout --reply FILE")
    for name in profile_names():
        try:
            profile = load_profile(name)
            table.add_row(Text(name), Text(f"{profile.model} at {profile.url}, {'with' if profile.key else 'no'} key"))
        except RealCompoError as error:
            table.add_row(Text(name), Text(str(error), "red"))
    out.print(table)
    path = profiles_file()
    out.print(
        Text(f"Profiles: {path}{'' if path.exists() else ' (not there yet)'}, and REALCOMPO_<NAME>_URL, _MODEL, _KEY")
    )


app.command()(train_commands.prepare)
app.command()(train_commands.check)
app.command()(train_commands.shards)
app.command()(train_commands.train)
app.add_typer(bench, name="bench")


@contextmanager
def kept_files(folder: Path) -> Iterator[Files]:
    """The files of one command; at its end it says where they are, also if it was stopped."""
    files = Files(folder)
    try:
        yield files
    except KeyboardInterrupt:
        err.print("Stopped." + (" Kept:" if files.written else " Nothing was written."))
        print_paths(files.written, err)
        raise
    out.print("Written:")
    print_paths(files.written, out)


def print_paths(paths: list[Path], console: Console) -> None:
    for path in paths:
        console.print(Text(f"  {path}", style=f"link {path.resolve().as_uri()}"), soft_wrap=True)


def named_provider(name: str, cache: bool = True, format: str = "auto") -> LayoutProvider:
    from realcompo_core.providers import get_provider

    return get_provider(name, cache=cache, format=format)


def propose(provider: LayoutProvider, prompt: str, size: tuple[int, int]) -> Layout:
    """The provider's layout; what it warns about is shown as a note."""
    return noted(lambda: provider.propose(prompt, size))


def revise(provider: LayoutProvider, path: Path, prompt: str, instruction: str, size: tuple[int, int]) -> Layout:
    """The layout of a file, changed by the provider; what it warns about is shown as a note."""
    from dataclasses import replace

    layout = read_layout(path)
    layout = replace(layout, prompt=prompt or layout.prompt)
    layout.validate(layout.prompt or None)
    return noted(lambda: provider.revise(layout, instruction, size))


def noted(make: Callable[[], Layout]) -> Layout:
    """The layout that `make` makes; what is warned about meanwhile is shown as a note."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        layout = make()
    for note in [*layout.warnings, *(str(warning.message) for warning in caught)]:
        err.print(Text(f"note: {note}", "yellow"))
    return layout


def read_layout(path: Path) -> Layout:
    from realcompo_core.errors import LayoutFormatError
    from realcompo_core.layout import Layout

    try:
        return Layout.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutFormatError(f"cannot read the layout {path}: {error}") from error


def show_layout(found: Layout, size: tuple[int, int], output: Path, json: Path) -> None:
    """Prints the layout as a table, and writes it as a picture and as JSON."""
    from realcompo_core.layout.drawing import draw_layout

    table = Table("phrase", "x0", "y0", "x1", "y1", title=Text(found.prompt), title_justify="left")
    for item in found.objects:
        table.add_row(Text(item.phrase), *(f"{edge:.3f}" for edge in item.box))
    out.print(table)
    for name, phrase in (("background", found.background), ("without", found.negative)):
        if phrase:
            out.print(Text(f"{name}: {phrase}"))
    with kept_files(Path()) as files:
        files.write_picture(str(output), draw_layout(found, size))
        files.write(str(json), found.to_json())


def check_unused(options: dict[str, str | None], source: str) -> None:
    """None of the options is given: they say nothing about `source`."""
    if given := [name for name, value in options.items() if value]:
        raise typer.BadParameter(f"{given[0]} says nothing about {source}: leave it out")


def write_layout(files: Files, layout: Layout, size: tuple[int, int] = (512, 512)) -> None:
    from realcompo_core.layout.drawing import draw_layout

    files.write("layout.json", layout.to_json())
    files.write_picture("layout.png", draw_layout(layout, size))


def sample_all(
    pipeline: RealCompoPipeline, prompt: str, layout: Layout, settings: dict, alone: bool, files: Files
) -> list[Run]:
    """The balanced run, with `alone` after each branch alone; every picture is written as soon as it is there."""
    from .runs import run_names, sample

    names, runs = run_names(layout, alone), []
    with Progress(*step_columns(), console=out) as bars:
        tasks = [bars.add_task(name, total=settings["steps"], start=False) for name in names]
        for name, task in zip(names, tasks, strict=True):
            bars.start_task(task)
            run = sample(
                pipeline, name, prompt, layout, settings, lambda done, _, task=task: bars.update(task, completed=done)
            )
            files.write_picture(f"{name}.png", run.image)
            runs.append(run)
    if note := runs[-1].output.trace.note:
        out.print(Text(f"note: {note}", "yellow"))
    return runs


def run_sweep(files: Files, sweep: Sweep) -> None:
    """Runs the cells that are not there yet. What is finished when it stops, for whatever reason, is in the results."""
    from . import sweep as sweeping

    store = sweeping.CellStore(Files(files.folder / sweeping.CELLS))
    cells = [store.read(sweep.stem(i), sweep.identity(i)) for i in range(len(sweep.settings))]
    if known := sum(cell is not None for cell in cells):
        out.print(f"{known} of {len(cells)} cells are there already.")
    try:
        with Progress(*step_columns(), console=out) as bars:
            task = bars.add_task("cells", total=len(cells), completed=known)
            steps = bars.add_task("steps")
            for i, title in enumerate(sweep.plan.titles):
                if cells[i] is None:
                    bars.update(steps, description=title)
                    cell = sweep.run(i, lambda done, total: bars.update(steps, completed=done, total=total))
                    store.write(sweep.stem(i), sweep.identity(i), cell)
                    cells[i] = cell
                    bars.advance(task)
    finally:
        if any(cell is not None for cell in cells):
            sweeping.write_results(files, sweep, cells, command_line())


def step_columns() -> tuple[ProgressColumn, ...]:
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()


def write_report(files: Files, report: Report) -> None:
    with out.status("Writing the report"):
        from .page import page
        from .sheet import sheet

        files.write("report.png", sheet(report))
        files.write("report.html", page(report))


def size_of(text: str) -> tuple[int, int]:
    """(width, height) from "512x768"."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 1 <= int(width) <= 8192 and 1 <= int(height) <= 8192):
        raise typer.BadParameter(f"{text!r} is no size: write for example 512x512 (1 to 8192 pixels)")
    return int(width), int(height)
