"""Draws and looks at a run with cheap stand-ins, killed again and again: `python killed_bench.py FOLDER KILLS SEED`.

Each try is a process of its own that a SIGKILL ends at a random moment. It prints how many of them were killed at work,
and how often a picture was drawn or looked at in all.
"""

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from realcompo_cli.bench.detectors import LoadedDetector
from realcompo_cli.bench.drawing import draw
from realcompo_cli.bench.layouts import Layouts
from realcompo_cli.bench.looking import Experts, look
from realcompo_cli.bench.run import Request, Run, Shard
from realcompo_cli.bench.scoring import score
from realcompo_core.bench.seen import Detection

PROMPTS = 40


class Source:
    """Noise of the seed. `log`: where every picture is told that was begun."""

    name, identity, reads_layout, size = "noise", {"name": "noise"}, False, (96, 64)

    def __init__(self, log: Path):
        self._log = log

    def draw(self, job):
        with self._log.open("a") as file:
            file.write(f"draw {job.seed}\n")
        noise = np.random.default_rng(job.seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        return Image.fromarray(noise)


def find(picture, names):
    """Boxes and scores by the picture's content."""
    digest = hashlib.sha256(picture.tobytes()).digest()
    return [Detection(name, (i, i, i + 20, i + 20), digest[i] / 255) for i, name in enumerate(names)]


def go_on(folder: Path, prompts: Path, log: Path) -> Run:
    run = Run.open(folder, Request("multigen-coco", prompts, Source.identity, pictures=2), "test")
    draw(run, Source(log), Layouts(), Shard(), lambda _: None)
    detector = LoadedDetector("digest", {"model": "digest"}, find, lambda names: [], 0.01)
    run.keep_experts(Experts(detector).identity)
    look(run, Experts(detector), Shard(), lambda _: None)
    score(run, "test")
    return run


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    prompts, log, moments = folder / "own.json", folder / "log.txt", random.Random(seed)
    start = time.perf_counter()
    go_on(folder / "whole", prompts, folder / "whole.txt")
    whole = time.perf_counter() - start
    killed = 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            go_on(folder / "killed", prompts, log)
            os._exit(0)
        time.sleep(moments.uniform(0, 2.5 * whole / kills))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    go_on(folder / "killed", prompts, log)
    print(killed, len(log.read_text().splitlines()))


if __name__ == "__main__":
    main()
