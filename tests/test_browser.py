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
SHOWN = ["RealCompoBalanceReport", "RealCompoLayoutPreview", "PreviewImage", "SaveImage", "LossGraphNode"]
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
    nodes = {key: node for key, node in editor.api_form().items() if ":" not in key}  # not those inside subgraphs
    written = {
        key: [host.file(image) for image in output["images"]]
        for key, output in entry["outputs"].items()
        if key in nodes and nodes[key]["class_type"] in SHOWN
    }
    assert written and written.keys() == {key for key, node in nodes.items() if node["class_type"] in SHOWN}
    for key, files in written.items():
        assert editor.pictures(key) == [(file.read_bytes(), Image.open(file).size) for file in files]
    assert not editor.complaints() and not editor.errors
    check_layout(editor.boxes())
    for key, files in written.items():
        on_screen = np.asarray(editor.screenshot(key), dtype=int).reshape(-1, 3)
        picture = Image.open(files[0]).convert("RGB")
        picture.thumbnail((192, 192))  # about as large as it is on the screen
        for colour in np.asarray(picture.resize((5, 5), Image.Resampling.NEAREST), dtype=int).reshape(-1, 3):
            assert abs(on_screen - colour).max(1).min() < 24, f"{nodes[key]}: nothing on the screen is {colour}"


def test_help_page_opens_from_the_node(editor):
    editor.open(WORKFLOWS / "realcompo_v1.json")
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


BLUEPRINTS = {  # and the template that has the same nodes
    "RealCompo (bundled models)": "quickstart",
    "RealCompo (SD1.5 + GLIGEN)": "realcompo_v1",
    "RealCompo (SD1.5 + ControlNet)": "segmentation",
}


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_blueprint_is_listed_and_does_what_its_template_does(host, shared_editor, name):
    """The host lists it for this pack; the editor makes the template's sampler, settings and conditionings of it."""
    assert [
        entry["info"]["node_pack"] for entry in host.get("/global_subgraphs").values() if entry["name"] == name
    ] == [f"custom_nodes.{host.folder}"]
    shipped = by_title(api_form(BLUEPRINTS[name]))
    shared_editor.open(host_server.PACK / "subgraphs" / f"{name}.json")
    assert shared_editor.missing_nodes() == [] and not shared_editor.errors
    made = by_title(shared_editor.api_form())
    for title, (kind, inputs) in shipped.items():
        if title in made and not title.startswith("Negative"):
            assert made[title][0] == kind
            assert {key: made[title][1].get(key) for key in inputs} == inputs, title
    both = made.keys() & shipped.keys()
    assert {"Balance both branches", "Decode"} <= both and {"Balance settings", "Balance preset"} & both


def test_values_on_the_node_of_a_subgraph_are_those_that_run(editor):
    """Each goes to every node inside that has a use for it."""
    editor.open(WORKFLOWS / "quickstart.json")
    editor.page.evaluate(
        """() => { for (const widget of app.graph.nodes.find(n => n.subgraph).widgets) {
            if (widget.name === "prompt") widget.value = "a blue cross above a green star";
            if (widget.name === "width") widget.value = 96;
            if (widget.name === "seed") widget.value = 5;
        } }"""
    )
    made = by_title(editor.api_form())
    assert made["Prompt"][1]["value"] == "a blue cross above a green star"
    assert [made[title][1]["width"] for title in ("Bundled models", "Layout from the prompt")] == [96, 96]
    samplers = ("Balance both branches", "Fidelity branch alone", "Spatial branch alone")
    assert [made[title][1]["seed"] for title in samplers] == [5, 5, 5]


def test_warning_of_a_node_inside_a_subgraph_is_shown_once_where_the_user_is(host, editor):
    editor.open(WORKFLOWS / "quickstart.json")
    editor.page.evaluate(
        """() => { const node = app.graph.nodes.find(n => n.subgraph);
            node.widgets.find(w => w.name === "prompt").value = "a red dragon above a blue square"; }"""
    )
    entry = finished(host, editor, editor.run())
    assert entry["status"]["status_str"] == "success", host_server.error_of(entry)
    toast = editor.page.locator(".p-toast-message-warn")
    toast.first.wait_for()
    assert len(toast.all()) == 1 and "never seen dragon" in toast.inner_text()
