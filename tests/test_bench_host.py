"""A ComfyUI as a benchmark's source: places in a workflow, what is said of failures, and the library's own pictures."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
from host_server import PACK
from PIL import Image
from typer.testing import CliRunner

from realcompo_cli.bench.comfy import ComfySource, ServerError, Unreachable, Workflow
from realcompo_cli.bench.run import Run
from realcompo_cli.bench.sources import Job
from realcompo_cli.main import app
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout, LayoutObject

STEPS, SCENES = 10, 4
PLACES = ("prompt=Prompt.value", "layout=Layout.layout_json", "seed=balance.seed")
LAYOUT = Layout((LayoutObject("a cat", (0.0, 0.0, 0.5, 0.5)),), prompt="a cat")


def workflow(path):
    """The template quickstart with layouts as JSON, at the bundled models' size and at the library's levels."""
    nodes = json.loads((PACK / "workflows" / "api" / "quickstart.json").read_text(encoding="utf-8"))
    kept = {name: nodes[name] for name in ("prompt", "models", "pos", "neg", "apply", "settings", "balance")}
    kept["balance"]["inputs"] |= {"steps": STEPS, "scheduler": "ddim_uniform"}
    kept["decode"] = nodes["balance_decode"]
    inputs = {"layout_json": "{}", "prompt": ["prompt", 0]}
    kept["layout"] = {"class_type": "RealCompoLayoutFromJSON", "inputs": inputs, "_meta": {"title": "Layout"}}
    kept["save"] = {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "bench"}}
    path.write_text(json.dumps(kept))
    return path


def invoke(*arguments):
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def test_library_and_comfyui_have_the_same_scores(host, tmp_path):
    places = [word for place in PLACES for word in ("--place", place)]
    given = ("--benchmark", "shapescenes", "--limit", SCENES)
    invoke(
        "generate", tmp_path / "host", *given, "--source", workflow(tmp_path / "w.json"), "--server", host.url, *places
    )
    invoke("generate", tmp_path / "library", *given, "--device", "cpu", "--set", f"steps={STEPS}")
    runs = {name: Run(tmp_path / name) for name in ("host", "library")}
    for picture, path in runs["host"].pictures.items():
        pixels = [np.asarray(Image.open(run.pictures[picture]), float) for run in runs.values()]
        # The library's last noise level is the schedule's, the host's is 0: what is left is faint noise.
        assert path.exists() and np.abs(pixels[0] - pixels[1]).mean() < 2
    scores = []
    for name in runs:
        invoke("detect", tmp_path / name, "--device", "cpu")
        invoke("score", tmp_path / name)
        metrics = json.loads((tmp_path / name / "scores.json").read_text())["scores"]["metrics"]
        scores.append({metric["name"]: metric["value"] for metric in metrics})
    assert scores[0] == scores[1] and scores[0]["exact scenes"] > 50


# Without a host.


def nodes():
    return {
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "old", "clip": ["4", 1]}, "_meta": {"title": "Words"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}, "_meta": {"title": "Negative"}},
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["6", 0]}},
        "8": {"class_type": "RealCompoLLMLayout", "inputs": {"seed": 0}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    }


@pytest.fixture
def saved(tmp_path):
    def save(found):
        (tmp_path / "w.json").write_text(json.dumps(found))
        return tmp_path / "w.json"

    return save


def test_places_are_found_by_key_and_title(saved):
    for place in ("6.text", "Words.text"):
        known = Workflow(saved(nodes()), [f"prompt={place}"])
        filled = known.filled(Job("a cat", 7, LAYOUT))
        assert filled["6"]["inputs"]["text"] == "a cat" and filled["7"]["inputs"]["text"] == ""
        assert filled["3"]["inputs"]["seed"] == 7 and filled["8"]["inputs"]["seed"] == 0
        assert known.output == "9" and not known.reads_layout
    assert known.filled(Job("a dog", 8))["6"]["inputs"]["text"] == "a dog"
    two = Workflow(saved(nodes()), ["prompt=6.text", "layout=7.text", "seed=8.seed", "output=3"])
    filled = two.filled(Job("a cat", 7, LAYOUT))
    assert filled["7"]["inputs"]["text"] == LAYOUT.to_json() and two.output == "3"
    assert filled["3"]["inputs"]["seed"] == 1 and filled["8"]["inputs"]["seed"] == 7


@pytest.mark.parametrize(
    ("places", "named"),
    [
        ([], "--place prompt=NODE.INPUT: 6.text, 7.text"),
        (["prompt=5.text"], "there is no node '5'"),
        (["prompt=6.words"], "no input 'words', but text, clip"),
        (["prompt=6"], "write NODE.INPUT"),
        (["words=6.text"], "write one of prompt, seed, layout, output"),
        (["prompt=6.text", "output=Nobody"], "there is no node 'Nobody'"),
    ],
)
def test_places_that_are_not_there_are_named(saved, places, named):
    with pytest.raises(RealCompoError, match=named.replace(".", r"\.")):
        Workflow(saved(nodes()), places)


def test_what_is_no_workflow_in_api_form_is_told(saved):
    with pytest.raises(RealCompoError, match="workflow of the editor: export it in API form"):
        Workflow(saved({"nodes": [], "links": []}), [])
    with pytest.raises(RealCompoError, match="no workflow in API form"):
        Workflow(saved([1]), [])
    without = nodes()
    del without["3"], without["9"]
    with pytest.raises(RealCompoError, match="no node of w.json has a seed"):
        Workflow(saved(without), ["prompt=6.text"])
    two = nodes() | {"10": {"class_type": "SaveImage", "inputs": {}}}
    with pytest.raises(RealCompoError, match="--place output=NODE: 9, 10"):
        Workflow(saved(two), ["prompt=6.text"])


@contextmanager
def pretended(**answers):
    """A server that answers each path as `answers` say: a status and JSON, or bytes."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            name = self.path.strip("/").split("/")[0].split("?")[0]
            status, content = answers.get(name, (404, {}))
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = answer

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


STATS = (200, {"system": {"comfyui_version": "0.33.0"}})
QUEUED = (200, {"prompt_id": "p"})
IMAGE = {"filename": "a.png", "subfolder": "", "type": "output"}


def history(outputs, status="success", messages=()):
    return 200, {"p": {"status": {"status_str": status, "messages": messages}, "outputs": outputs}}


def png(color):
    buffer = BytesIO()
    Image.new("RGBA", (8, 6), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_chosen_nodes_picture_is_taken(saved):
    outputs = {"9": {"images": [IMAGE]}, "10": {"images": [IMAGE, IMAGE]}}
    with pretended(system_stats=STATS, prompt=QUEUED, history=history(outputs), view=(200, png("red"))) as url:
        picture = ComfySource(saved(nodes()), url, ["prompt=6.text"]).draw(Job("a cat", 1))
    assert picture.mode == "RGB" and picture.size == (8, 6) and picture.getpixel((0, 0)) == (255, 0, 0)


FAILED = [["execution_error", {"node_id": "3", "node_type": "KSampler", "exception_message": "no memory"}]]
REFUSED = {
    "error": {"message": "Prompt outputs failed validation"},
    "node_errors": {"3": {"errors": [{"message": "x"}]}},
}


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ({"prompt": (400, REFUSED)}, "refuses the workflow: Prompt outputs failed validation; node 3: x"),
        ({"history": history({}, "error", FAILED)}, "workflow failed: node 3 (KSampler): no memory"),
        ({"history": history({}, "error", [["execution_interrupted", {}]])}, "it was interrupted"),
        ({"history": history({"9": {"images": []}})}, "node 9 gave 0 pictures"),
        ({"history": history({"9": {"images": [IMAGE, IMAGE]}})}, "node 9 gave 2 pictures: one a prompt is needed"),
        ({"history": history({"9": {"images": [IMAGE]}})}, "/view?filename=a.png&subfolder=&type=output answers 404"),
        ({"prompt": (200, b"<html>")}, "answers no JSON: is it a ComfyUI?"),
    ],
)
def test_what_the_host_says_of_a_failure_is_told(saved, answers, named):
    with pretended(**{"system_stats": STATS, "prompt": QUEUED} | answers) as url:
        source = ComfySource(saved(nodes()), url, ["prompt=6.text"])
        with pytest.raises(ServerError) as error:
            source.draw(Job("a cat", 1))
    assert named in str(error.value) and not isinstance(error.value, Unreachable)


def test_a_server_that_is_not_there_ends_the_run(saved):
    with pytest.raises(Unreachable, match="no ComfyUI answers at http://127.0.0.1:9 .*--server"):
        ComfySource(saved(nodes()), "http://127.0.0.1:9", ["prompt=6.text"])
    with pretended(system_stats=STATS, prompt=QUEUED) as url:
        source = ComfySource(saved(nodes()), url, ["prompt=6.text"])
    with pytest.raises(Unreachable):
        source.draw(Job("a cat", 1))
