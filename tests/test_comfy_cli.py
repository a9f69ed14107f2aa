"""The pack in the hands of comfy-cli: checked and packed for the registry, loaded from that archive, run headless."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import host_server
import numpy as np
import pytest
from PIL import Image
from short_training import cut_short

PACK = host_server.PACK
COMMAND_FOLDERS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
COMFY = os.environ.get("COMFY_CLI") or shutil.which("comfy", path=COMMAND_FOLDERS)

SHIPPED = ["nodes", "realcompo_core", "tokencompose_core", "shapescenes", "web", "workflows", "locales"]
NOT_SHIPPED = {"tests", "benchmarks", "realcompo_cli", ".ci", ".github", "Makefile", "constraints.txt"}
GIT_IGNORES = ["nodes/__pycache__/x.pyc", ".venv/x", ".pytest_cache/x", ".ruff_cache/x", ".hypothesis/x"]
GIT_IGNORES += ["realcompo.egg-info/x", "build/x", "dist/x", "shapescenes_training/x", "demo_output/x"]
API_FORMS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in PACK.glob("workflows/api/*.json")}
NO_DOWNLOAD = [  # in API form; what is made of each editor form is compared with it, so that one of them is run
    f"workflows/{folder}{name}.json"
    for name, api in sorted(API_FORMS.items())
    for folder in ("api/", *[""] * (name == "quickstart"))
    if {node["class_type"] for node in api.values() if "Loader" in node["class_type"]} == {"RealCompoShapeScenesLoader"}
]

if COMFY is None:
    pytest.skip("no comfy-cli found: pip install comfy-cli, or set COMFY_CLI to its command", allow_module_level=True)


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """`comfy(arguments, folder, url)` runs the command and gives its process; it must succeed.

    It reports nothing, asks nothing, and neither reads nor writes the user's own settings.
    """
    home = tmp_path_factory.mktemp("home")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COMFY_", "XDG_"))}
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "DO_NOT_TRACK": "1"}
    environment |= {"COMFY_WHERE": "local", "COMFY_OUTPUT": "json"}

    def run(arguments: list[str], folder: Path = PACK, url: str = "") -> subprocess.CompletedProcess:
        done = subprocess.run(
            [COMFY, *arguments],
            cwd=folder,
            env=environment | ({"COMFY_LOCAL_URL": url} if url else {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=host_server.PROMPT_SECONDS,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """The files that git keeps, as a repository of their own; as a plain folder on a machine without git."""
    folder = tmp_path_factory.mktemp("clone") / "RealCompo"
    ignored = [line.rstrip("/") for line in (PACK / ".gitignore").read_text(encoding="utf-8").splitlines()]
    shutil.copytree(PACK, folder, ignore=shutil.ignore_patterns(".git", *ignored))
    if shutil.which("git"):
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        subprocess.run(["git", "add", "--all", "--force"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def archive(comfy, checkout):
    comfy(["node", "pack"], checkout)
    return zipfile.ZipFile(checkout / "node.zip")


@pytest.fixture(scope="module")
def host(host_folder, archive, tmp_path_factory):
    """A host that has the pack from the archive, in a folder whose name is that of no module."""
    folder = tmp_path_factory.mktemp("host")
    archive.extractall(folder / "pack")
    server = host_server.HostServer(host_folder, folder / "base", folder / "pack", folder="any folder.name")
    yield server
    server.stop()


def reply(done: subprocess.CompletedProcess) -> dict:
    """What `comfy run` says in its last line."""
    return json.loads(done.stdout.splitlines()[-1])["data"]


def by_title(api: dict) -> dict:
    """An API form whose nodes and wires go by title, not by id."""
    titles = {key: node["_meta"]["title"] for key, node in api.items()}

    def named(value):
        return [titles[value[0]], value[1]] if isinstance(value, list) else value

    return {
        titles[key]: (node["class_type"], {name: named(value) for name, value in node["inputs"].items()})
        for key, node in api.items()
    }


def test_node_validate_has_nothing_to_say(comfy, checkout):
    done = comfy(["node", "validate"], checkout)
    said = done.stdout + done.stderr
    assert "All validation checks passed" in said and "warning" not in said.lower(), said


def test_archive_has_all_that_a_host_needs_and_nothing_for_developers(archive, checkout):
    names = set(archive.namelist())
    top = {name.split("/")[0] for name in names}
    assert not top & NOT_SHIPPED
    assert {"__init__.py", "pyproject.toml", "README.md", "LICENSE", *SHIPPED} <= top
    for folder in SHIPPED:
        files = {path.relative_to(checkout).as_posix() for path in (checkout / folder).rglob("*") if path.is_file()}
        assert files <= names
    weights = json.loads(archive.read("shapescenes/weights/checksums.json"))
    assert weights and {f"shapescenes/weights/{name}" for name in weights} <= names


def test_folder_without_git_packs_the_same(comfy, archive, checkout, tmp_path):
    shutil.copytree(checkout, tmp_path / "RealCompo", ignore=shutil.ignore_patterns(".git", "node.zip"))
    for name in GIT_IGNORES:
        path = tmp_path / "RealCompo" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("left over")
    comfy(["node", "pack"], tmp_path / "RealCompo")
    assert set(zipfile.ZipFile(tmp_path / "RealCompo" / "node.zip").namelist()) == set(archive.namelist())


def test_archive_loads_in_the_host(host):
    assert "IMPORT FAILED" not in host.start_log and "any folder.name" in host.start_log
    assert not host.complaints_about_pack()
    nodes = {name for name in host.get("/object_info") if name.startswith("RealCompo")}
    assert nodes == set(json.loads((PACK / "tests" / "node_interfaces.json").read_text(encoding="utf-8")))
    assert sorted(API_FORMS) in [sorted(names) for names in host.get("/workflow_templates").values()]


@pytest.mark.parametrize("workflow", NO_DOWNLOAD)
def test_readmes_headless_command_draws(host, comfy, workflow, tmp_path):
    """README's own line, and with each other workflow that needs no model from elsewhere, cut short if it trains."""
    lines = (PACK / "README.md").read_text(encoding="utf-8").splitlines()
    _, *command = next(line for line in lines if line.startswith("comfy run ")).split()
    assert set(command) & set(NO_DOWNLOAD)
    api = API_FORMS[Path(workflow).stem]
    shipped = (PACK / workflow).read_text(encoding="utf-8")
    shorter = cut_short(json.loads(shipped))
    if shorter != json.loads(shipped):
        workflow = str(tmp_path / "workflow.json")
        Path(workflow).write_text(json.dumps(shorter))
    done = reply(comfy([workflow if word.endswith(".json") else word for word in command], url=host.url))
    assert done["status"] == "completed"
    outputs = host.wait(done["prompt_id"])["outputs"]
    saved = [image for out in outputs.values() for image in out.get("images", []) if image["type"] == "output"]
    savers = sum(node["class_type"] == "SaveImage" for node in api.values())
    each = 2 if "RealCompoPromptToPrompt" in shipped else 1
    assert len(saved) == savers * each * api["models"]["inputs"]["batch_size"]
    drawn = [np.asarray(Image.open(host.file(image)).convert("RGB"), dtype=int) for image in saved]
    if "RealCompoSweep" in shipped or "prompt" not in api:  # of other things
        assert all(np.ptp(picture, -1).max() > 100 for picture in drawn)
        assert "RealCompoSweep" not in shipped or drawn[0].shape[1] > 3 * 128
        return
    red, _, blue = np.concatenate(drawn).transpose(2, 0, 1)
    relation = "to the left of" in api["prompt"]["inputs"]["value"]
    left, right = (slice(64), slice(64, None)) if relation else [slice(128)] * 2  # beyond there may be maps
    assert (red - blue)[:, left].max() > 100 and (blue - red)[:, right].max() > 60


@pytest.mark.parametrize("name", sorted(API_FORMS))
def test_what_comfy_run_makes_of_the_editor_form_is_the_api_form(host, comfy, name):
    """Nodes, wires and every value."""
    made = reply(comfy(["run", "--workflow", f"workflows/{name}.json", "--print-prompt"], url=host.url))
    assert by_title(made["prompt"]) == by_title(API_FORMS[name])
