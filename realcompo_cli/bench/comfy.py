"""A running ComfyUI as a source of pictures: any workflow in API form, with named places for what changes."""

from __future__ import annotations

import hashlib
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from realcompo_core.errors import RealCompoError

from .sources import Job

PLACES = ("prompt", "seed", "layout", "output")
ANSWERS_WITHIN = 60  # seconds, of one request
PAUSE = 0.1  # seconds between two looks at a prompt
SEED_NAMES = ("seed", "noise_seed")
LAYOUT_NODE = "RealCompoLLMLayout"  # its seed asks a language model anew


class ServerError(RealCompoError):
    """A ComfyUI that does not answer, or a workflow that it refuses."""


class Workflow:
    """A workflow in API form, and where each place is: inputs of nodes, and the node whose pictures are taken.

    A place is written "prompt=NODE.INPUT"; NODE is the node's key or its title. `output=NODE` names the node that shows
    or saves the picture. Without a place for the seed, all inputs named seed or noise_seed are it; without one for the
    output, the only node that saves pictures, or else that shows any. Raises RealCompoError for what is not there.
    """

    def __init__(self, path: Path, places: Sequence[str] = ()):
        try:
            nodes = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RealCompoError(f"cannot read the workflow {path}: {error}") from error
        if isinstance(nodes, dict) and "nodes" in nodes and "links" in nodes:
            raise RealCompoError(f"{path} is a workflow of the editor: export it in API form (Workflow → Export (API))")
        if not isinstance(nodes, dict) or not all(isinstance(n, dict) and "class_type" in n for n in nodes.values()):
            raise RealCompoError(f"{path} is no workflow in API form: each node has a class_type and inputs")
        self._nodes, self.path = nodes, path
        self._places: dict[str, list[tuple[str, str]]] = {}
        outputs: list[str] = []
        for text in places:
            name, equals, place = text.partition("=")
            if not equals or name not in PLACES:
                raise RealCompoError(f"--place is {text!r}: write one of {', '.join(PLACES)}, as in prompt=6.text")
            if name == "output":
                outputs.append(self._node(place))
            else:
                self._places.setdefault(name, []).append(self._input(place))
        if "prompt" not in self._places:
            raise RealCompoError(
                f"where does the prompt go in {path.name}? Name it with --place prompt=NODE.INPUT: "
                f"{', '.join(self._texts()) or 'no node has a text'}"
            )
        self._places.setdefault("seed", self._seeds())
        if not self._places["seed"]:
            raise RealCompoError(f"no node of {path.name} has a seed: name its place with --place seed=NODE.INPUT")
        self.output = outputs[-1] if outputs else self._only_output()
        self.digest = hashlib.sha256(json.dumps(nodes, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def reads_layout(self) -> bool:
        return "layout" in self._places

    def told(self) -> dict[str, list[str]]:
        """The places as they are written."""
        found = {name: [".".join(place) for place in places] for name, places in self._places.items()}
        return found | {"output": [self.output]}

    def filled(self, job: Job) -> dict[str, Any]:
        """The workflow of this picture."""
        nodes = deepcopy(self._nodes)
        values = {"prompt": job.prompt, "seed": job.seed}
        if job.layout is not None:
            values["layout"] = job.layout.to_json()
        for name, value in values.items():
            for node, key in self._places.get(name, ()):
                nodes[node]["inputs"][key] = value
        return nodes

    def _node(self, name: str) -> str:
        if name in self._nodes:
            return name
        titled = [key for key, node in self._nodes.items() if node.get("_meta", {}).get("title") == name]
        if len(titled) != 1:
            how = f"{len(titled)} nodes have the title" if titled else "there is no node"
            raise RealCompoError(f"--place: {how} {name!r} in {self.path.name}")
        return titled[0]

    def _input(self, place: str) -> tuple[str, str]:
        name, dot, key = place.rpartition(".")
        if not dot:
            raise RealCompoError(f"--place {place!r}: write NODE.INPUT, such as 6.text")
        node = self._node(name)
        inputs = self._nodes[node].get("inputs", {})
        if key not in inputs:
            raise RealCompoError(f"--place {place!r}: the node has no input {key!r}, but {', '.join(inputs) or 'none'}")
        return node, key

    def _texts(self) -> list[str]:
        return [
            f"{k}.{i}" for k, n in self._nodes.items() for i, v in n.get("inputs", {}).items() if isinstance(v, str)
        ]

    def _seeds(self) -> list[tuple[str, str]]:
        return [
            (key, name)
            for key, node in self._nodes.items()
            if node["class_type"] != LAYOUT_NODE
            for name in SEED_NAMES
            if isinstance(node.get("inputs", {}).get(name), int)
        ]

    def _only_output(self) -> str:
        for kind in ("SaveImage", "PreviewImage"):
            found = [key for key, node in self._nodes.items() if node["class_type"] == kind]
            if len(found) == 1:
                return found[0]
            if found:
                break
        raise RealCompoError(
            f"which node's pictures of {self.path.name} count? Name it with --place output=NODE: "
            f"{', '.join(found) or 'none saves or shows pictures'}"
        )


class ComfySource:
    """A workflow that a ComfyUI at `server` runs, one prompt a picture."""

    size = None

    def __init__(self, path: Path, server: str, places: Sequence[str] = (), wait: float = 3600):
        self._workflow, self._server, self._wait = Workflow(path, places), server.rstrip("/"), wait
        self.name = path.stem
        self.reads_layout = self._workflow.reads_layout
        told = self._workflow.told()
        self.identity: dict[str, Any] = {"name": path.name, "workflow": self._workflow.digest, "places": told}
        stats = self._json("/system_stats")
        if not isinstance(stats, dict) or not isinstance(stats.get("system"), dict):
            raise ServerError(f"{self._server} is no ComfyUI: it says nothing of its system")
        self.identity["host"] = stats["system"].get("comfyui_version", "of unknown version")

    def draw(self, job: Job) -> Image.Image:
        """Raises ServerError, with what the host says, for a workflow that fails, and after `wait` seconds."""
        try:
            return self._drawn(job)
        except (AttributeError, KeyError, TypeError, IndexError, UnidentifiedImageError) as error:
            raise ServerError(f"{self._server} answers otherwise than a ComfyUI does: {error!r}") from error

    def _drawn(self, job: Job) -> Image.Image:
        reply = self._json("/prompt", {"prompt": self._workflow.filled(job)})
        if "prompt_id" not in reply:
            raise ServerError(f"{self._server} refuses the workflow: {_refusal(reply)}")
        entry = self._finished(reply["prompt_id"])
        images = entry["outputs"].get(self._workflow.output, {}).get("images", [])
        if len(images) != 1:
            raise ServerError(f"node {self._workflow.output} gave {len(images)} pictures: one a prompt is needed")
        where = {key: images[0].get(key, "") for key in ("filename", "subfolder", "type")}
        content = self._content("/view?" + urllib.parse.urlencode(where))
        with Image.open(io.BytesIO(content)) as picture:
            return picture.convert("RGB")

    def _finished(self, prompt: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._wait
        while time.monotonic() < deadline:
            entry = self._json(f"/history/{prompt}").get(prompt)
            if entry is not None:
                if entry["status"]["status_str"] != "success":
                    raise ServerError(f"the workflow failed: {_failure(entry)}")
                return entry
            time.sleep(PAUSE)
        raise ServerError(f"{self._server} has not finished a picture after {self._wait:g} seconds")

    def _json(self, path: str, data: Mapping[str, Any] | None = None) -> Any:
        content = self._content(path, None if data is None else json.dumps(data).encode())
        try:
            return json.loads(content or b"{}")
        except ValueError as error:
            raise ServerError(f"{self._server} answers no JSON: is it a ComfyUI?") from error

    def _content(self, path: str, body: bytes | None = None) -> bytes:
        """The reply, also that of a refusal."""
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            request = urllib.request.Request(self._server + path, body, headers)
            with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            if body is None:
                raise ServerError(f"{self._server}{path} answers {error.code} {error.reason}") from error
            return error.read()
        except (OSError, ValueError) as error:
            raise Unreachable(
                f"no ComfyUI answers at {self._server} ({error}): start it, or name another with --server http://…"
            ) from error


class Unreachable(ServerError):
    """A server that cannot be reached: no further picture can be made."""


def _refusal(reply: Mapping[str, Any]) -> str:
    """What the host says of a workflow that it does not run."""
    told = [str(reply.get("error", {}).get("message", "")) if isinstance(reply.get("error"), dict) else str(reply)]
    for node, errors in (reply.get("node_errors") or {}).items():
        told += [f"node {node}: {e.get('message')} {e.get('details', '')}".strip() for e in errors.get("errors", ())]
    return "; ".join(filter(None, told)) or "it does not say why"


def _failure(entry: Mapping[str, Any]) -> str:
    for kind, data in entry["status"].get("messages", ()):
        if kind == "execution_error":
            return f"node {data.get('node_id')} ({data.get('node_type')}): {data.get('exception_message', '').strip()}"
        if kind == "execution_interrupted":
            return "it was interrupted"
    return "the host does not say why"
