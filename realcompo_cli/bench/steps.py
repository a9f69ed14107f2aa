"""What the commands of `realcompo bench` do, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from realcompo_core.bench.benchmark import Benchmark
from realcompo_core.bench.prompts import Prompt
from realcompo_core.errors import RealCompoError
from shapescenes.benchmark import ShapeScenes

from ..consoles import err, out
from ..files import Files, fingerprint_of
from ..processes import INTERRUPTED, Processes, command_line
from ..sweep import bundled_models
from .drawing import draw, wanted
from .fidelity import check_package
from .layouts import Layouts
from .looking import Experts, check_names, chosen, load_experts, look, to_look_at
from .prompt_files import named, prompts_of
from .report import markdown, page, read_runs, sheets_of
from .run import Request, Run, Shard, benchmark_of, check_name
from .scoring import COST, QUALITY, STYLE, Scored
from .scoring import score as score_run
from .sources import BUNDLED, COMPARED, PictureFolder, load_source
from .style import load_encoder


def sources_of(benchmark: str, given: Sequence[str] | None) -> list[str]:
    if given:
        return list(given)
    if benchmark != ShapeScenes.name:
        check_name(named(benchmark, None)[0])
        raise RealCompoError("who draws? Name a --source: a model, a workflow, or a folder of pictures")
    return [BUNDLED + name for name in COMPARED]


def source_of(benchmark: str, given: Sequence[str] | None) -> str:
    if not given and benchmark == ShapeScenes.name:
        return f"{BUNDLED}balanced"
    return sources_of(benchmark, given)[0]


def name_of(spec: str) -> str:
    """What a source is called: a bundled name, a folder's, or a file's without its ending."""
    path = Path(spec).resolve()
    return spec.removeprefix(BUNDLED) if spec.startswith(BUNDLED) else path.name if path.is_dir() else path.stem


def folder_names(specs: Sequence[str]) -> list[str]:
    """A folder's name for each source. Raises RealCompoError where two would have the same."""
    names = [name_of(spec) for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RealCompoError(f"two sources are called {twice[0]!r}: draw them one by one with `bench generate`")
    return names


def generate(folder: Path, spec: str, options: Mapping[str, Any], stop: bool = True) -> None:
    """Draws the run; what cannot be drawn ends the command with code 1, if `stop`."""
    processes = Processes.of_this_command()
    name, given = named(options["benchmark"], options["prompts"])
    own_layouts = Layouts(options["provider"], options["layouts"])
    with out.status("Loading the source"):
        source = load_source(spec, options, processes.device(options["device"]))
    if not source.reads_layout and (options["provider"] or options["layouts"]):
        raise RealCompoError(f"--provider and --layouts have no meaning: {source.name} reads no layout")
    with processes.main_first():
        prompts = prompts_of(name, given, options["category"], folder)
        identity = dict(source.identity)
        if source.reads_layout:
            identity["layouts"] = own_layouts.told(name)
        request = Request(
            name,
            prompts,
            identity,
            **{key: options[key] for key in ("category", "pictures", "layout", "limit", "seed")},
        )
        run = Run.open(folder, request, command_line())
    part = _shard(options["shard"], processes)
    for problem in run.prompt_file.problems:
        err.print(Text(f"note: {problem}", "yellow"))
    out.print(Text(f"{run.asked['prompts']}: {run.benchmark.title}, {len(run.prompts)} prompts"))
    if isinstance(source, PictureFolder):
        there = len(run.pictures) - len(wanted(run, part))
        if not there:
            first = run.shown_path(next(iter(run.pictures.values())))
            others = ", ".join(sorted(path.name for path in run.pictures_folder.iterdir())[:3]) or "nothing"
            raise RealCompoError(
                f"{run.pictures_folder} has no picture of this benchmark: the first is {first}, and there is {others}. "
                "Name the pictures so, or say with --layout how they are named"
            )
        out.print(f"{there} of {len(run.pictures)} pictures are in {run.pictures_folder}.")
        return
    ours = [picture for picture in run.pictures if picture.index in part]
    with _bar("drawing", len(ours), len(ours) - len(wanted(run, part)), processes) as advance:
        failed = draw(run, source, own_layouts, part, advance)
    processes.wait()
    if failed:
        first = next(problem for problem in run.problems({}) if "not made" in problem.what)
        err.print(Text(f"{failed} pictures could not be made, as in scores.json later. {first}", "red"))
        if stop:
            raise typer.Exit(1)


def load(benchmark: Benchmark, prompts: Sequence[Prompt], options: Mapping[str, Any]) -> Experts:
    """The models that look. Raises RealCompoError for one that cannot be loaded, or does not know a prompt's names."""
    specs = chosen(benchmark, {what: options[what] for what in ("detector", "vqa", "clip")})
    own = {"labels": "labels", "config": "detector_config", "input": "detector_input"}
    for name in own.values() if "detector" not in specs else ():
        if options[name]:
            raise RealCompoError(f"--{name.replace('_', '-')} has no meaning without a detector")
    device = Processes.of_this_command().device(options["device"])
    with out.status("Loading the models that look"):
        found = {argument: options[name] for argument, name in own.items()}
        experts = load_experts(specs, benchmark.stored_above, device, **found)
        check_names(experts, benchmark, prompts)
    return experts


def check(folder: Path, spec: str, options: Mapping[str, Any]) -> None:
    """What `bench all` needs after it has drawn. Raises RealCompoError before that."""
    name, given = named(options["benchmark"], options["prompts"])
    path = prompts_of(name, given, options["category"], folder)
    known = benchmark_of(name, path, options["category"])
    load(known, known.read(path).prompts[: options["limit"]], options)
    if not spec.startswith(BUNDLED) and not Path(spec).exists():
        raise RealCompoError(f"--source {spec}: there is no such file or folder")
    if options["reference"] is not None:
        Run(options["reference"])
    elif options["encoder"]:
        raise RealCompoError(f"--encoder {options['encoder']} has no meaning without --reference")
    if options["real"] is not None:
        check_package()


def detect(folder: Path, options: Mapping[str, Any]) -> None:
    processes = Processes.of_this_command()
    run = Run(folder)
    part = _shard(options["shard"], processes)
    experts = load(run.benchmark, run.prompts, options)
    with processes.main_first():
        run.keep_experts(experts.identity)
        run.add_command(command_line())
    waiting = len(to_look_at(run, part, run.seen()))
    ours = sum(picture.index in part for picture in run.pictures)
    with _bar("looking", ours, ours - waiting, processes) as advance:
        unread = look(run, experts, part, advance)
    processes.wait()
    if unread:
        err.print(Text(f"note: {unread} pictures could not be read; they are not scored", "yellow"))


def score(folder: Path, options: Mapping[str, Any]) -> Scored:
    run = Run(folder)
    encoder, reference = None, options["reference"]
    if reference is None and options["encoder"]:
        raise RealCompoError(f"--encoder {options['encoder']} has no meaning without --reference")
    if options["real"] is None and options["inception"]:
        raise RealCompoError(f"--inception {options['inception']} has no meaning without --real")
    if reference is not None and reference.resolve() != folder.resolve():
        encoder = load_encoder(
            options["encoder"], run.asked["benchmark"], Processes.of_this_command().device(options["device"])
        )
    with out.status("Scoring"):
        return score_run(run, command_line(), options["real"], options["inception"], encoder and reference, encoder)


def show(folder: Path, scored: Scored) -> None:
    table = Table("metric", "score", "of", title=folder.name, title_justify="left")
    for metric in scored.scores.metrics:
        table.add_row(Text(metric.name), Text(str(metric)), Text(str(metric.count)))
    for title, group in scored.scores.groups.items():
        if title in (QUALITY, STYLE, COST):
            for metric in group:
                table.add_row(Text(metric.name), Text(str(metric)), Text(str(metric.count)))
    out.print(table)
    out.print(f"{scored.scored} of {scored.pictures} pictures are scored.")
    for what in scored.scores.missing:
        err.print(Text(f"not measured: {what}", "yellow"))
    for problem in scored.problems[:10]:
        err.print(Text(f"note: {problem}", "yellow"))
    if len(scored.problems) > 10:
        err.print(Text(f"note: and {len(scored.problems) - 10} more, in {folder / 'scores.json'}", "yellow"))


def report(folders: Sequence[Path], output: Path) -> None:
    with out.status("Writing the report"):
        runs = read_runs(folders)
        files, command, sheets = Files(output), command_line(), sheets_of(runs)
        for name, sheet in sheets.items():
            files.write_picture(f"{name.strip('/').replace('/', '_')}.png", sheet)
        files.write("report.md", markdown(runs, command))
        files.write("report.html", page(runs, command, sheets))
    written(files.written)


def attention(output: Path, options: Mapping[str, Any]) -> None:
    from tokencompose_core.formats import open_records
    from tokencompose_core.records import each_record, fingerprint

    from ..attention import TOKENCOMPOSE, defaults, load, load_other
    from .grounding import Setting, measure, summary, table

    if not math.isfinite(options["cfg"]):
        raise RealCompoError(f"--cfg is {options['cfg']}: a finite number is needed")
    records = open_records(options["data"], options["masks"])
    specs = options["model"] or [None, TOKENCOMPOSE]
    first = specs[0] and Path(specs[0])
    for spec in specs:
        if spec not in (None, TOKENCOMPOSE) and not Path(spec).exists():
            raise RealCompoError(f"--model {spec}: there is no such file or folder")
    names = [attention_name(spec) for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RealCompoError(f"two models are called {twice[0]!r}: measure them in two calls with two --output")
    files = Files(output)
    steps = options["steps"] or defaults(first)[0]
    known = {name: [_model_of(specs[0]), _model_of(spec)] for name, spec in zip(names, specs, strict=True)}
    setting = Setting(steps, options["cfg"], fingerprint(each_record(records)), known)
    setting.keep_in(files)
    total = min(len(records), options["limit"] or len(records))
    base, results = load(first, options["config"], options["dtype"], options["device"]), {}
    for name, spec in zip(names, specs, strict=True):
        pipeline = base if spec == specs[0] else load_other(base, Path(spec), options["config"])
        with _bar(name, total, 0, Processes.of_this_command()) as advance:
            lines = measure(files, name, pipeline, records, setting, lambda: advance(None), options["limit"])
        results[name] = summary(lines)
        for problem in results[name][1][:10]:
            err.print(Text(f"note: {problem}", "yellow"))
    if not any(metrics[0].count for metrics, _ in results.values()):
        raise RealCompoError(f"no noun of {options['data']} could be measured: are there masks? See --masks")
    text = table(results, command_line())
    out.print(Text(text), soft_wrap=True)
    files.write("attention.md", text)
    written(files.written)


def _model_of(spec: str | None) -> str:
    """Which files a model is: its own, or those of the bundled one."""
    return fingerprint_of(Path(spec)) if spec and Path(spec).exists() else bundled_models("v2")


def attention_name(spec: str | None) -> str:
    """What a model's results are called; a folder "unet" goes by the folder that it is in."""
    if spec is None:
        return "text_to_image"
    path = Path(spec)
    return path.resolve().parent.name if path.name == "unet" else name_of(spec)


def _shard(text: str, processes: Processes) -> Shard:
    return Shard.parse(text).split(processes.index, processes.count)


@contextmanager
def _bar(what: str, total: int, done: int, processes: Processes) -> Iterator[Callable[[object], None]]:
    """A bar of the main process' pictures. What is yielded is called after each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=out, disable=not processes.is_main) as bars:
        task = bars.add_task(what, total=total, completed=done)
        try:
            yield lambda _: bars.advance(task)
        except KeyboardInterrupt:
            bars.stop()
            err.print(
                f"Stopped: {what} is done for {bars.tasks[0].completed:g} of {total}. Run the same command to go on."
            )
            raise typer.Exit(INTERRUPTED) from None


def written(paths: Sequence[Path]) -> None:
    out.print("Written:")
    for path in paths:
        out.print(Text(f"  {path}", style=f"link {path.resolve().as_uri()}"), soft_wrap=True)
