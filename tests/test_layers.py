"""The layers: what each folder may import, read from the sources. Imports in functions and for types count too.

From the bottom: `realcompo_core`; then `tokencompose_core` and `shapescenes`, which know it; then `realcompo_cli`, and
beside it the node pack, whose `nodes/host` speaks with ComfyUI and whose schemas in `nodes` use it.
"""

import ast
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACK = "pack"  # the checkout as ComfyUI loads it; `nodes` alone is the host's own module
FOLDERS = {"realcompo_core": "", "tokencompose_core": "", "shapescenes": "", "realcompo_cli": "", "nodes": f"{PACK}."}

HOST = (
    "comfy",
    "comfy_*",
    "folder_paths",
    "server",
    "execution",
    "nodes",
    "node_helpers",
    "latent_preview",
)
MODEL_LIBRARIES = ("diffusers", "transformers", "accelerate")
CORES = ("realcompo_core", "tokencompose_core")
TRAINING_ADAPTERS = tuple(
    f"tokencompose_core.{name}" for name in ("diffusers_model", "annotators", "distributed", "export")
)


class Rule(NamedTuple):
    """Modules at or below `of` import nothing at or below `never`.

    The rule leaves out the modules at or below `but`, and allows imports at or below `yet`.
    """

    message: str
    of: tuple[str, ...]
    never: tuple[str, ...]
    but: tuple[str, ...] = ()
    yet: tuple[str, ...] = ()
    example: tuple[str, str] = ("", "")
    """A module and a line in it that breaks the rule."""


RULES = [
    Rule(
        "the libraries and the command line know no ComfyUI",
        of=(*CORES, "shapescenes", "realcompo_cli"),
        never=HOST,
        example=("realcompo_core.guidance.balancer", "import comfy.samplers"),
    ),
    Rule(
        "the libraries and the command line know no node",
        of=(*CORES, "shapescenes", "realcompo_cli"),
        never=(PACK,),
        example=("realcompo_core.errors", "from ..nodes import schema"),
    ),
    Rule(
        "the libraries know no command line",
        of=(*CORES, "shapescenes"),
        never=("realcompo_cli", "typer", "rich"),
        example=("tokencompose_core.training", "from realcompo_cli.consoles import console"),
    ),
    Rule(
        "nodes know no command line",
        of=(PACK,),
        never=("realcompo_cli", "typer", "rich"),
        example=("pack.nodes.types", "import realcompo_cli"),
    ),
    Rule(
        "realcompo_core is below tokencompose_core and ShapeScenes",
        of=("realcompo_core",),
        never=("tokencompose_core", "shapescenes"),
        example=("realcompo_core.attention.maps", "from tokencompose_core import metrics"),
    ),
    Rule(
        "tokencompose_core does not know ShapeScenes",
        of=("tokencompose_core",),
        never=("shapescenes",),
        example=("tokencompose_core.dataset", "from shapescenes.world import Scene"),
    ),
    Rule(
        "in realcompo_core only the folder `diffusers` knows diffusers, transformers and accelerate",
        of=("realcompo_core",),
        but=("realcompo_core.diffusers",),
        never=MODEL_LIBRARIES,
        example=("realcompo_core.text.tokens", "from transformers import CLIPTokenizer"),
    ),
    Rule(
        "in realcompo_core nothing rests on the folder `diffusers`",
        of=("realcompo_core",),
        but=("realcompo_core.diffusers",),
        never=("realcompo_core.diffusers",),
        example=("realcompo_core.guidance.trace", "from ..diffusers.pipeline import Output"),
    ),
    Rule(
        "in tokencompose_core only the adapters know diffusers, transformers and accelerate",
        of=("tokencompose_core",),
        but=TRAINING_ADAPTERS,
        never=(*MODEL_LIBRARIES, "realcompo_core.diffusers"),
        example=("tokencompose_core.lora", "import diffusers"),
    ),
    Rule(
        "in tokencompose_core nothing rests on the adapters",
        of=("tokencompose_core",),
        but=TRAINING_ADAPTERS,
        never=TRAINING_ADAPTERS,
        example=("tokencompose_core.runtime", "from .distributed import Distributed"),
    ),
    Rule(
        "nodes know no diffusers, transformers and accelerate, and no module that needs them",
        of=(PACK,),
        never=(*MODEL_LIBRARIES, "realcompo_core.diffusers", *TRAINING_ADAPTERS),
        yet=("tokencompose_core.export",),
        example=("pack.nodes.train_nodes", "from tokencompose_core.diffusers_model import DiffusersModel"),
    ),
    Rule(
        "only the command line draws with matplotlib",
        of=(*CORES, "shapescenes", PACK),
        never=("matplotlib",),
        example=("pack.nodes.report_nodes", "import matplotlib.pyplot as plt"),
    ),
    Rule(
        "the schemas use nodes/host, which does not know them",
        of=(f"{PACK}.nodes.host",),
        never=(PACK,),
        yet=(f"{PACK}.nodes.host",),
        example=("pack.nodes.host.guider", "from ..schema import MAX_SIDE"),
    ),
]


class Import(NamedTuple):
    """`module` imports `name` in `line`: at the top, for types too, or in a function."""

    module: str
    name: str
    line: int
    at_top: bool


def sources() -> dict[str, str]:
    """The text of every module by its name."""
    found = {PACK: (ROOT / "__init__.py").read_text(encoding="utf-8")}
    for folder, prefix in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[prefix + name] = path.read_text(encoding="utf-8")
    return found


def packages() -> set[str]:
    """The names of the folders, with an `__init__.py` or without."""
    found = {PACK}
    for folder, prefix in FOLDERS.items():
        for path in (ROOT / folder, *(ROOT / folder).rglob("*")):
            if path.is_dir() and any(path.glob("*.py")):
                found.add(prefix + ".".join(path.relative_to(ROOT).parts))
    return found


MODULES, PACKAGES = sources(), packages()


@cache
def imports(module: str, text: str) -> list[Import]:
    tree = ast.parse(text)
    late = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    return [
        Import(module, name, node.lineno, id(node) not in late)
        for node in ast.walk(tree)
        for name in imported_names(module, node)
    ]


def imported_names(module: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            folder = module.split(".") if module in PACKAGES else module.split(".")[:-1]
            folder = folder[: len(folder) + 1 - node.level] or [PACK]  # the pack is what is above the libraries
            base = ".".join([*folder, base] if base else folder)
        for alias in node.names:  # of a folder a module may be imported, or a name in its __init__.py
            inner = f"{base}.{alias.name}"
            yield inner if inner in MODULES else base
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__"):
            yield str(node.args[0].value)


def within(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether the module is one of these or lies below one."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def offences(rule: Rule, modules: Mapping[str, str]) -> list[Import]:
    return [
        found
        for module, text in modules.items()
        if within(module, rule.of) and not within(module, rule.but)
        for found in imports(module, text)
        if within(found.name, rule.never) and not within(found.name, rule.yet)
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.message)
def test_layers_hold(rule):
    broken = [f"{found.module}, line {found.line}, imports {found.name}" for found in offences(rule, MODULES)]
    assert not broken, f"{rule.message}:\n" + "\n".join(broken)


PLACES = {
    "at the top": "{}",
    "in a function": "def f():\n    {}",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.message)
def test_every_rule_can_be_broken(rule, place):
    module, line = rule.example
    assert offences(rule, {module: PLACES[place].format(line)})
    assert module in MODULES, f"{module} is gone: take another module for the example"


def cycle(modules: Mapping[str, str]) -> list[str]:
    """Modules that import each other in turn at the top, the first one again at the end; [] if there are none."""
    graph = {
        module: [found.name for found in imports(module, text) if found.at_top and found.name in modules]
        for module, text in modules.items()
    }
    done: set[str] = set()

    def search(path: list[str]) -> list[str]:
        for name in graph[path[-1]]:
            if name in path:
                return [*path[path.index(name) :], name]
            if name not in done and (found := search([*path, name])):
                return found
        done.add(path[-1])
        return []

    return next(filter(None, (search([module]) for module in graph if module not in done)), [])


def test_no_modules_import_each_other():
    """Those imports too that only type checkers follow; those in functions are free to."""
    assert not (found := cycle(MODULES)), " imports ".join(found)


@pytest.mark.parametrize("place", PLACES)
def test_a_cycle_is_found(place):
    modules = {
        "realcompo_core.errors": "from .text import words",
        "realcompo_core.text.words": "from ..text.tokens import CHUNK",
        "realcompo_core.text.tokens": PLACES[place].format("from ..errors import RealCompoError"),
    }
    assert len(cycle(modules)) == (0 if place == "in a function" else 4)


def test_relative_imports_are_followed():
    lines = ["from . import checks", "from .branch import HostBranch", "from ..schema import schema", "import nodes"]
    names = [found.name for found in imports("pack.nodes.host.guider", "\n".join(lines))]
    assert names == ["pack.nodes.host.checks", "pack.nodes.host.branch", "pack.nodes.schema", "nodes"]
    (found,) = imports("realcompo_core.layout", "from .layout import Layout")
    assert found.name == "realcompo_core.layout.layout"
