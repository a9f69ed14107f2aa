"""The key of a language model server, in a real ComfyUI: sent to its own address, and written nowhere."""

import json
import site
from pathlib import Path

import host_server
import pytest
from scripted_server import SECRET, echo_key, say, send, serving

PROMPT = "a red circle to the left of a blue square"
OBJECTS = [
    {"phrase": "a red circle", "box": [0.1, 0.3, 0.4, 0.7]},
    {"phrase": "a blue square", "box": [0.6, 0.3, 0.9, 0.7]},
]
OUR_PACKAGES = "import sys; sys.path += {!r}"  # for the host's Python, after its own: the client of servers


def answer(**more) -> str:
    return json.dumps({"reasoning": "circle left", "background": "", "objects": OBJECTS, **more})


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("profile") / "providers.json"


@pytest.fixture(scope="module")
def server(host_folder, profile, tmp_path_factory):
    """A host of its own, whose environment names the profiles' file and has the client of servers."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "packages").mkdir()
    (folder / "packages" / "sitecustomize.py").write_text(OUR_PACKAGES.format(site.getsitepackages()))
    profile.write_text(json.dumps({"local": {"url": "http://127.0.0.1:9/v1", "model": "tiny", "key": SECRET}}))
    environment = {
        "REALCOMPO_PROVIDERS": str(profile),
        "PYTHONPATH": str(folder / "packages"),
        "XDG_CACHE_HOME": str(folder / "base" / "cache"),
    }
    host = host_server.HostServer(host_folder, folder / "base", environment=environment)
    yield host
    host.stop()


def workflow(seed: int) -> dict:
    """The quickstart with layouts from the server, the layout as a file beside the picture."""
    nodes = json.loads((host_server.PACK / "workflows" / "api" / "quickstart.json").read_text(encoding="utf-8"))
    nodes["layout"]["inputs"].update(provider="local", seed=seed, timeout=10.0)
    nodes["balance"]["inputs"]["steps"] = 2
    nodes["shown"] = {"class_type": "PreviewAny", "inputs": {"source": ["layout", 1]}}
    return nodes


def run(host, profile: Path, script) -> dict:
    """The history's entry of a prompt for which the server is asked with the key."""
    seed = len(host.get("/history"))  # another one than before: answers are kept
    with serving(script) as model:
        profile.write_text(json.dumps({"local": {"url": model.url, "model": "tiny", "key": SECRET}}))
        entry = host.wait(host.queue(workflow(seed)))
    assert model.requests, host_server.error_of(entry)
    assert all(headers["Authorization"] == f"Bearer {SECRET}" for _, headers, _ in model.requests)
    return entry


def places_of_key(host) -> list[str]:
    """Files of the host and answers of its interface that hold the key."""
    found = [str(path) for path in host.base.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    return found + [route for route in ("/history", "/queue", "/object_info") if SECRET in json.dumps(host.get(route))]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (say(answer()), None),
        (say(answer(background=f"a wall, key {SECRET}", reasoning=SECRET)), None),
        (say(answer(objects=[*OBJECTS, {"phrase": SECRET, "box": [0, 0, 0.1, 0.1]}])), "[key]"),
        (say(f"Your key is {SECRET}."), "Your key is [key]."),
        (echo_key, "status 401"),
        (send(f'{{"choices": "{SECRET}"}}'), "not answer with a chat completion"),
    ],
    ids=[
        "good",
        "echo in the layout",
        "echo as an object",
        "echo in prose",
        "echo in an error",
        "echo in a broken answer",
    ],
)
def test_the_key_is_written_nowhere(server, profile, script, said):
    entry = run(server, profile, script)
    if said is None:
        assert entry["status"]["status_str"] == "success", host_server.error_of(entry)
        assert list((server.base / "output").glob("*.png"))
    else:
        assert said in host_server.error_of(entry)
    assert places_of_key(server) == []


def test_a_redirect_takes_nothing_to_another_address(server, profile):
    with serving(say(answer())) as other:
        entry = run(server, profile, send("", 307, Location=f"{other.url}/chat/completions"))
        assert other.requests == []
    assert "status 307" in host_server.error_of(entry)
    assert places_of_key(server) == []


def test_the_key_would_be_found(server):
    """If it were in a picture's workflow, or in the log."""
    path = server.base / "output" / "with_key.png"
    path.write_bytes(next((server.base / "output").glob("RealCompo*.png")).read_bytes() + SECRET.encode())
    assert places_of_key(server) == [str(path)]
    path.unlink()
