"""The shipped workflows in the host's own editor, in headless Chromium. Skipped without a host or a browser."""

import itertools
import json
import urllib.request

import browser
import host_server
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright
from short_training import CUT_OPEN_SHORT, SHORTER

WORKFLOWS = host_server.PACK / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
SHOWN = ["RealCompoBalanceReport", "SaveImage", "LossGraphNode"]
TIDY = set(NAMES) - {"quickstart"}  # wires that would run behind nodes are led around them
SINCE_0_33 = {"CreateBoundingBoxes"}  # nodes of the host that 0.8.0 lacks

pytestmark = pytest.mark.skipif(not browser.find_browser(), reason=browser.NO_BROWSER)


def api_form(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def needs_files(name: str) -> bool:
    """Whether one of its nodes loads a file of the user's."""
    return any(node["class_type"] in FILE_LOADERS for node in api_form(name).values())


FILE_LOADERS = ("CheckpointLoaderSimple", "CLIPLoader", "GLIGENLoader")
SELF_CONTAINED = [name for name in NAMES if not needs_files(name)]


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        yield browser.launch(playwright)


@pytest.fixture
def editor(chromium, host):
    """A page of the test's own."""
    editor = browser.Editor(chromium, host)
    yield editor
    editor.page.close()


@pytest.fixture(scope="module")
def shared_editor(chromium, host):
    """A page in which one workflow is opened after the other."""
    editor = browser.Editor(chromium, host)
    yield editor
    editor.page.close()


def by_title(workflow: dict) -> dict:
    """Class and inputs of each node by title; a wire as the title of its source and its slot."""
    titles = {key: node["_meta"]["title"] for key, node in workflow.items()}

    def value(given):
        return (titles[given[0]], given[1]) if isinstance(given, list) and given and given[0] in titles else given

    return {
        titles[key]: (node["class_type"], {name: value(given) for name, given in node["inputs"].items()})
        for key, node in workflow.items()
    }


def overlap(a: list[float], b: list[float]) -> bool:
    return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))


def inside(box: list[float], group: list[float]) -> bool:
    return all(group[i] <= box[i] and box[i] + box[i + 2] <= group[i] + group[i + 2] for i in (0, 1))


def check_layout(boxes: dict) -> None:
    """No two nodes and no two groups overlap; every node but the note lies in one group."""
    groups = {title: box for title, box in boxes.items() if title.startswith("group ")}
    nodes = {title: box for title, box in boxes.items() if title not in groups}
    for (a, box_a), (b, box_b) in itertools.chain(
        itertools.combinations(nodes.items(), 2), itertools.combinations(groups.items(), 2)
    ):
        assert not overlap(box_a, box_b), f"{a} overlaps {b}"
    for title, box in nodes.items():
        assert title == "Note" or any(inside(box, group) for group in groups.values()), f"{title} is in no group"


@pytest.mark.parametrize("name", NAMES)
def test_workflow_opens_as_its_api_form(host, shared_editor, name):
    """With no unknown node, in good order, without an error in the console, and with the values of `workflows/api`."""
    shipped = by_title(api_form(name))
    lacking = [kind for kind, _ in shipped.values() if kind in SINCE_0_33 and not host.get(f"/object_info/{kind}")]
    shared_editor.open(WORKFLOWS / f"{name}.json")
    assert shared_editor.missing_nodes() == lacking
    check_layout(shared_editor.boxes())
    if name in TIDY:
        assert not shared_editor.wires_behind_nodes()
    if not lacking:
        made = by_title(shared_editor.api_form())
        assert made.keys() == shipped.keys()
        for title, (kind, inputs) in shipped.items():
            assert made[title][0] == kind
            assert {key: made[title][1].get(key) for key in inputs} == inputs, title
        assert not shared_editor.errors


def finished(host, editor, prompt_id: str) -> dict:
    """The finished prompt's history entry. Until then the page may load pictures: its requests pass through here."""
    for _ in range(host_server.PROMPT_SECONDS):
        if host.get(f"/history/{prompt_id}"):
            break
        editor.page.wait_for_timeout(1000)
    return host.wait(prompt_id)


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_workflow_runs_and_shows_its_pictures(host, editor, name):
    """From the templates, by the Run button; what the nodes show is what the host wrote, and it is on the screen."""
    editor.open_template(host.folder, name)
    editor.page.evaluate(CUT_OPEN_SHORT, SHORTER)
    entry = finished(host, editor, editor.run())
    assert entry["status"]["status_str"] == "success", host_server.error_of(entry)
    nodes = editor.api_form()
    written = {
        key: [host.file(image) for image in output["images"]]
        for key, output in entry["outputs"].items()
        if nodes[key]["class_type"] in SHOWN
    }
    assert written and written.keys() == {key for key, node in nodes.items() if node["class_type"] in SHOWN}
    for key, files in written.items():
        assert editor.pictures(key) == [(file.read_bytes(), Image.open(file).size) for file in files]
    assert not editor.complaints() and not editor.errors
    check_layout(editor.boxes())
    for key, files in written.items():
        on_screen = np.asarray(editor.screenshot(key), dtype=int).reshape(-1, 3)
        picture = np.asarray(Image.open(files[0]).convert("RGB").resize((5, 5), Image.Resampling.BOX), dtype=int)
        for colour in picture.reshape(-1, 3):
            assert abs(on_screen - colour).max(1).min() < 24, f"{nodes[key]}: nothing on the screen is {colour}"


def test_help_page_opens_from_the_node(editor):
    editor.open(WORKFLOWS / "quickstart.json")
    page = (host_server.PACK / "web" / "docs" / "RealCompoBalanceSettings.md").read_text(encoding="utf-8")
    sentence = page.split("\n")[2]
    assert sentence in editor.help("RealCompoBalanceSettings")


def test_help_page_shows_its_pictures(editor):
    editor.open(WORKFLOWS / "attention_maps.json")
    editor.help("RealCompoAttentionMapViewer")
    pictures = ".node-help-content img"
    assert editor.page.locator(pictures).count() == 3
    editor.page.wait_for_function(
        "pictures => [...document.querySelectorAll(pictures)].every(i => i.naturalWidth > 400)", arg=pictures
    )


def test_every_help_page_is_served_where_the_editor_looks(host):
    """The editor takes the folder's name from the node's module."""
    for name, info in host.get("/object_info").items():
        if name.startswith("RealCompo"):
            folder = info["python_module"].split(".")[1]
            with urllib.request.urlopen(f"{host.url}/extensions/{folder}/docs/{name}.md", timeout=30) as reply:
                assert reply.read() == (host_server.PACK / "web" / "docs" / f"{name}.md").read_bytes()
