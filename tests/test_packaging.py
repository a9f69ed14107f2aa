"""What an import brings along, seen from a fresh interpreter, and how ComfyUI loads the folder as a node pack."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def python(code, *paths, cwd):
    """Run `code` with `paths` first on sys.path, out of reach of this repository unless it is among them."""
    lines = ["import sys", *(f"sys.path.insert({i}, {str(path)!r})" for i, path in enumerate(paths)), code]
    done = subprocess.run([sys.executable, "-I", "-c", "\n".join(lines)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_core_imports_no_host(tmp_path):
    code = """
import pathlib
root = pathlib.Path(sys.path[0])
adapters = {"realcompo_core.diffusers", "tokencompose_core.diffusers_model", "tokencompose_core.annotators",
            "tokencompose_core.distributed"}  # each knows one other library
for package in ("realcompo_core", "tokencompose_core"):
    for path in (root / package).rglob("*.py"):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if not any(name == a or name.startswith(a + ".") for a in adapters):
            __import__(name.removesuffix(".__init__"))
print(sorted({"comfy", "diffusers", "transformers", "openai", "nodes", "matplotlib"} & set(sys.modules)))
print("realcompo_core.attention.panel" in sys.modules)
"""
    assert python(code, ROOT, cwd=tmp_path).split("\n")[:2] == ["[]", "True"]


# As ComfyUI's nodes.py loads a folder of custom_nodes.
LOAD_PACK = """
import asyncio, importlib, importlib.util, nodes
assert nodes.HOST
path = {pack!r}
name = path.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, path + "/__init__.py", submodule_search_locations=[path])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
assert not hasattr(module, "NODE_CLASS_MAPPINGS")  # the host would then ignore comfy_entrypoint
core = asyncio.run(module.comfy_entrypoint()).core
ours = sys.modules[name + ".nodes"]
assert core.__file__.startswith(path) and ours.__file__.startswith(path)
core.Layout((core.LayoutObject("a cat", (0, 0, 1, 1)),)).validate()
import nodes as again
assert again is sys.modules["nodes"] and again.HOST and ours is not again
importlib.reload(nodes)
assert nodes.HOST and not any(folder == path for folder in sys.path)
print("loaded")
"""
STUB_NODES = "from realcompo_core import layout\nclass RealCompoExtension:\n    core = layout\n"  # ours need a host


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("folder", ["real-compo 1", "RealCompo.v2"])
def test_pack_loads_from_any_folder_beside_the_hosts_own_nodes(tmp_path, folder, installed):
    host = tmp_path / "host"
    pack = host / "custom_nodes" / folder
    for package in ("realcompo_core", "tokencompose_core", "shapescenes"):
        shutil.copytree(ROOT / package, pack / package, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    shutil.copy(ROOT / "__init__.py", pack)
    (pack / "nodes").mkdir()
    (pack / "nodes" / "__init__.py").write_text(STUB_NODES)
    (host / "nodes.py").write_text("HOST = True\n")
    paths = [host]
    if installed:  # what pip puts on the path: the packages, and nothing named `nodes`; the pack's own come first
        shutil.copytree(pack / "realcompo_core", tmp_path / "site" / "realcompo_core")
        paths.append(tmp_path / "site")
    assert python(LOAD_PACK.format(pack=str(pack)), *paths, cwd=tmp_path) == "loaded\n"


def test_pip_installs_no_package_that_a_host_owns():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = next(line for line in text.splitlines() if line.startswith("include = "))
    assert '"realcompo_core*"' in found
    assert '"nodes' not in found and '"tests' not in found


def test_the_tests_themselves_do_not_import_the_pack():
    """pytest would otherwise run the root `__init__.py` under a name of its own."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    assert str(ROOT / "__init__.py") not in files and str(ROOT / "nodes" / "__init__.py") not in files


# What each extra is for. Beside it a module may use what the base has, and optional packages that it asks for by name.
EXTRAS = {
    "": ["realcompo_core", "tokencompose_core"],
    "diffusers": [
        "realcompo_core/diffusers",
        "tokencompose_core/diffusers_model.py",
        "tokencompose_core/annotators.py",
    ],
    "openai": ["realcompo_core/providers/openai_server.py"],
    "cli": ["realcompo_cli", "shapescenes"],
    "train": ["tokencompose_core", "shapescenes/train.py"],
}
ADAPTERS = {  # modules of the base's packages that another extra is for
    "": [*EXTRAS["diffusers"], *EXTRAS["openai"], "tokencompose_core/distributed.py", "tokencompose_core/taggers.py"],
}
OURS = ("realcompo_core", "tokencompose_core", "realcompo_cli", "shapescenes")
TAGGERS = {"flair", "spacy"}  # `get_tagger` says how to install them
DISTRIBUTIONS = {
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
}  # where the package has another name than what is imported


def modules_of(extra):
    """The files of an extra, with those of this project that they import when they are imported."""
    found = {file for entry in EXTRAS[extra] for file in python_files(entry)}
    found -= {file for entry in ADAPTERS.get(extra, ()) for file in python_files(entry)}
    own, waiting = set(found), list(found)
    while waiting:
        for name in imports(waiting.pop(), nested=False):
            file = file_of(name)
            if file and file not in found:
                found.add(file)
                waiting.append(file)
    return {file: file in own for file in found}


def python_files(path):
    return [ROOT / path] if path.endswith(".py") else list((ROOT / path).rglob("*.py"))


def file_of(name):
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imports(file, nested):
    """Full names of the modules that a file imports; with `nested` also inside of functions. Optional ones are not."""
    package = file.relative_to(ROOT).parent.parts
    waiting, found = [ast.parse(file.read_text(encoding="utf-8"))], []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            name = ".".join([*start, *filter(None, [node.module])])
            found += [name, *(f"{name}.{alias.name}" for alias in node.names if file_of(f"{name}.{alias.name}"))]
        elif is_optional(node) or (isinstance(node, ast.FunctionDef) and not nested):
            continue
        else:
            waiting += ast.iter_child_nodes(node)
    return found


def is_optional(node):
    """Types only, or a `try` that says how to install what is missing."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Try):
        names = [name for handler in node.handlers for name in ast.walk(handler) if isinstance(name, ast.Name)]
        return any(name.id == "ImportError" for name in names)
    return False


def declared(extra, project):
    """Lower-case names of the packages that `pip install realcompo[extra]` asks for."""
    names = set()
    for requirement in project["dependencies"] + project["optional-dependencies"].get(extra, []):
        name, inner = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups()
        for other in (inner or "").split(","):
            names |= declared(other, project) if name == "realcompo" and other else set()
        names.add(name.lower())
    return names


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_declares_what_its_modules_import(extra):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known, missing = declared(extra, project), {}
    for file, is_own in modules_of(extra).items():
        for name in imports(file, nested=is_own):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in OURS or top in TAGGERS:
                continue
            if DISTRIBUTIONS.get(top, top).lower() not in known:
                missing.setdefault(top, set()).add(str(file.relative_to(ROOT)))
    assert not missing


REGISTRY = ROOT / "docs" / "registry"


def test_the_registry_gets_addresses_of_pictures_that_exist_and_have_its_forms():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    code = """
import addresses, pathlib
print(addresses.with_addresses(pathlib.Path(addresses.PYPROJECT).read_text(encoding="utf-8"), "someone/pack", "abc"))
"""
    project = tomllib.loads(python(code, REGISTRY, cwd=REGISTRY))
    comfy = project["tool"]["comfy"]
    assert project["project"]["urls"]["Repository"] == "https://github.com/someone/pack" and comfy["PublisherId"]
    for key, ratio in (("Icon", 1), ("Banner", 21 / 9)):
        head, file = comfy[key].split("/abc/")
        assert head == "https://raw.githubusercontent.com/someone/pack"
        width, height = Image.open(ROOT / file).size
        assert width / height == pytest.approx(ratio, rel=0.01)
    assert Image.open(REGISTRY / "icon.png").size == (400, 400)


def test_the_registry_gets_the_newest_versions_changes():
    code = (
        "import newest_changes; print(newest_changes.newest('# Log\\n\\n## 2.0\\n\\n- new\\n\\n## 1.0\\n\\n- old\\n'))"
    )
    assert python(code, REGISTRY, cwd=REGISTRY) == "- new\n"
    own = python("import newest_changes as n; print(n.newest(n.CHANGELOG.read_text('utf-8')))", REGISTRY, cwd=REGISTRY)
    assert own.startswith("- ") and "\n## " not in own


def test_the_workflow_runs_the_readmes_commands_on_three_systems():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra `diffusers`")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert {name.split("-")[0] for name in job["strategy"]["matrix"]["os"]} == {"ubuntu", "windows", "macos"}
    runs = "\n".join(step.get("run", "") for step in job["steps"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make test", "py -m venv .venv"):
        assert command in runs and command in readme
    assert '".[dev]"' in runs and '`".[dev]"`' in readme and runs.rstrip().endswith("pytest")
