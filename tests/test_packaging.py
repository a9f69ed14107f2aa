"""What an import brings along, seen from a fresh interpreter, and how ComfyUI loads the folder as a node pack."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
print(sorted({"comfy", "diffusers", "transformers", "openai", "nodes"} & set(sys.modules)))
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
