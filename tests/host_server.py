"""A real ComfyUI for the tests: found on this machine, run once a session on a free port, with folders of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

PACK = Path(__file__).parents[1]
START_SECONDS = 180
PROMPT_SECONDS = 300
CHECKS_SECONDS = 900
TRIFLE = {
    "image": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "shown": {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}},
}
NO_HOST = (
    "no ComfyUI found: install one with `comfy install` (comfy-cli puts it in ~/comfy/ComfyUI), or set COMFYUI_PATH"
)


def find_hosts() -> list[Path]:
    """COMFYUI_PATH (several with the path separator), else comfy-cli's workspace and `ComfyUI-*` beside it."""
    given = os.environ.get("COMFYUI_PATH")
    workspace = Path.home() / "comfy"
    folders = map(Path, given.split(os.pathsep)) if given else [workspace / "ComfyUI", *workspace.glob("ComfyUI-*")]
    return [folder for folder in folders if (folder / "main.py").exists()]


def python_of(host: Path) -> str:
    """The host's own interpreter, that of the workspace's main host, or this one."""
    for folder in (host, Path.home() / "comfy" / "ComfyUI"):
        for name in ("bin/python", "Scripts/python.exe"):
            if (folder / ".venv" / name).exists():
                return str(folder / ".venv" / name)
    return sys.executable


def balance_settings() -> dict:
    """The node Balance Settings in API form, with its defaults, for the bundled models."""
    workflow = json.loads((PACK / "workflows" / "api" / "attention_maps.json").read_text(encoding="utf-8"))
    assert workflow["settings"]["class_type"] == "RealCompoBalanceSettings"
    return workflow["settings"]


def run_checks(host: Path, script: str, *arguments: Path) -> None:
    """Runs `tests/host/<script>` by the host's Python in the host's folder; it must succeed."""
    command = [python_of(host), Path(__file__).parent / "host" / script, *arguments]
    result = subprocess.run(command, cwd=host, capture_output=True, text=True, timeout=CHECKS_SECONDS)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-3000:]}"


class HostServer:
    """A ComfyUI with the pack in `custom_nodes/<folder>`: `url`, `log` (the text so far), `run(workflow)`.

    A `base` that another one has left behind is used as it is. environment: variables for the host besides those of
    this process.
    """

    def __init__(
        self,
        host: Path,
        base: Path,
        pack: Path = PACK,
        folder: str = "realcompo",
        environment: Mapping[str, str] = MappingProxyType({}),
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.base, self.folder = f"http://127.0.0.1:{port}", base, folder
        self._log = base / "server.log"
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        if not (base / "custom_nodes" / folder).exists():
            (base / "custom_nodes" / folder).symlink_to(pack)
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [python_of(host), "main.py", "--cpu", "--base-directory", base, "--port", str(port)]
                + ["--disable-auto-launch", "--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}"],
                cwd=host,
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.get("/system_stats")
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    raise RuntimeError(f"{host} did not start:\n{self.log[-3000:]}") from None
                time.sleep(0.3)
        self.start_log = self.log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=30) as reply:
            return json.load(reply)

    def post(self, path: str, data: dict) -> dict:
        """The reply, and also that of a refusal."""
        body = json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text or b"{}")

    def queue(self, workflow: dict) -> str:
        reply = self.post("/prompt", {"prompt": workflow})
        assert "prompt_id" in reply, json.dumps(reply)[:2000]
        return reply["prompt_id"]

    def wait(self, prompt_id: str) -> dict:
        """The finished prompt's history entry."""
        deadline = time.monotonic() + PROMPT_SECONDS
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise TimeoutError(f"prompt not finished after {PROMPT_SECONDS} s:\n{self.log[-2000:]}")

    def run(self, workflow: dict) -> dict:
        """The outputs by node. A prompt that fails is an AssertionError with the host's message."""
        entry = self.wait(self.queue(workflow))
        assert entry["status"]["status_str"] == "success", error_of(entry)
        return entry["outputs"]

    def file(self, entry: dict) -> Path:
        """The path of an image or latent in an output."""
        return self.base / entry["type"] / entry["subfolder"] / entry["filename"]

    def forget(self) -> None:
        """As after its start: no results and models are kept, no history, no files."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        self.run(TRIFLE)  # the host frees before or after a prompt, so no prompt after this one finds anything
        self.post("/history", {"clear": True})
        for name in ("input", "output", "temp"):
            for path in (self.base / name).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (self.base / "models").rglob("*"):
            if path.is_file():
                path.unlink()

    def complaints_about_pack(self) -> list[str]:
        """The lines of the start that name the pack, but the one that says how long it took to load."""
        return [line for line in self.start_log.splitlines() if self.folder in line and "seconds" not in line]

    def resident_bytes(self) -> int:
        """Memory of the process (Linux)."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def error_of(entry: dict) -> str:
    """What the host says about a prompt that did not succeed."""
    errors = [
        data for kind, data in entry["status"]["messages"] if kind in ("execution_error", "execution_interrupted")
    ]
    return "\n".join(error.get("exception_message", "interrupted") for error in errors)
