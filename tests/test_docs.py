"""What the documents say of files and functions is true, and the numbers that docstrings cite are defined."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHOD = ROOT / "docs" / "method.md"
DOCUMENTS = [METHOD, ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
FOLDERS = (
    "realcompo_core",
    "tokencompose_core",
    "shapescenes",
    "realcompo_cli",
    "nodes",
    "benchmarks",
    "tests",
)

LINK = re.compile(r"\]\(([^)\s]+)\)")
# [`file.py`](path/file.py) `name`, `name.method` and `name`
NAMED = re.compile(r"\[`([\w./]+\.py)`\]\(([^)\s]+)\)((?:(?:,| and|)\s+`[A-Za-z_][\w.]*`)+)")
NUMBER = re.compile(r"\b[RT]\d+\b")
HEADING = re.compile(r"^### ([RT]\d+)\. ", re.MULTILINE)


def broken_links(text: str, folder: Path) -> list[str]:
    """Links to files of the repository that are not there."""
    targets = [link.split("#")[0] for link in LINK.findall(text) if "://" not in link]
    return [target for target in targets if target and not (folder / target).exists()]


def missing_names(text: str, folder: Path) -> list[str]:
    """Names after a link to a Python file that this file does not define, and links whose text is another file."""
    missing = []
    for label, target, names in NAMED.findall(text):
        path = folder / target
        if not path.as_posix().endswith(label):
            missing.append(f"{label} links to {target}")
        if path.exists():
            known = set(defined(ast.parse(path.read_text(encoding="utf-8"))))
            missing += [f"{name} in {target}" for name in re.findall(r"`([\w.]+)`", names) if name not in known]
    return missing


def defined(body: ast.AST, prefix: str = "") -> Iterator[str]:
    """Functions, classes with what is in them ("Class.method"), and variables."""
    for node in body.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from defined(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


def cited_numbers(source: str) -> set[str]:
    """The numbers of docs/method.md in the docstrings of a module."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, kinds))
    return {number for text in found for number in NUMBER.findall(text)}


def modules() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    text = document.read_text(encoding="utf-8")
    assert LINK.search(text)
    assert not broken_links(text, document.parent)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_functions_are_in_their_files(document):
    text = document.read_text(encoding="utf-8")
    assert NAMED.search(text) or document.name == "README.md"
    assert not missing_names(text, document.parent)


def test_cited_numbers_are_defined_once_and_in_order():
    numbers = HEADING.findall(METHOD.read_text(encoding="utf-8"))
    counts = {letter: sum(number[0] == letter for number in numbers) for letter in "RT"}
    assert numbers == [f"{letter}{i + 1}" for letter, count in counts.items() for i in range(count)]
    unknown = {
        f"{path.relative_to(ROOT)}: {number}"
        for path in modules()
        for number in cited_numbers(path.read_text(encoding="utf-8")) - set(numbers)
    }
    assert not unknown


def test_every_equation_of_the_method_is_cited_by_some_docstring():
    cited = {number for path in modules() for number in cited_numbers(path.read_text(encoding="utf-8"))}
    assert set(HEADING.findall(METHOD.read_text(encoding="utf-8"))) <= cited


def test_what_is_wrong_is_found():
    folder = ROOT / "docs"
    assert broken_links("[a](../README.md#try-it) [b](https://x.org/y) [c](gone.md)", folder) == ["gone.md"]
    mixing = "[`mixing.py`](../realcompo_core/guidance/mixing.py)"
    text = f"{mixing} `mix`,\n`unmix` and `RegionWeights.over`, `COEFFICIENT_SEED`"
    assert missing_names(text, folder) == ["unmix in ../realcompo_core/guidance/mixing.py"]
    assert missing_names(mixing.replace("[`mixing", "[`mixed", 1) + " `mix`", folder) != []
    module = 'def f():\n    """See docs/method.md, R2 and T77."""\n    # R99\n    return "R98"\n'
    assert cited_numbers(module) == {"R2", "T77"}
