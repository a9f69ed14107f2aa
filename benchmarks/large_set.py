"""Memory and start of `realcompo check` and `realcompo train` on a set of 100 000 records in WebDataset shards.

    python benchmarks/large_set.py --folder /tmp/large_set

Draws the set (64x64 pixels, one noun with a mask) unless it is there already, and runs both commands on it, on a CPU:
the whole check, then 200 training steps of the bundled model. `megabytes` is the resident memory of the command, read
from /proc (Linux), at its first record or step and at a quarter, a half and the end of the time from there. `start` is
the seconds from the command to its first record or step, imports and all. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

from PIL import Image, ImageDraw

from tokencompose_core.records import NounMask, Record, Source
from tokencompose_core.shards import write_shards

SIDE, STEPS, EVERY = 64, 200, 0.25
COLOURS = ("red", "green", "blue", "yellow")
OPTIONS = (
    f"--no-check --steps {STEPS} --size {SIDE}x{SIDE} --batch-size 1 --accumulation 1 --no-checkpointing "
    f"--checkpoint-every {STEPS} --device cpu"
).split()


def png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def drawn(count: int) -> Iterator[Record]:
    """A square somewhere on grey, different in every record."""
    for i in range(count):
        left, top, side, colour = i % 40, i // 40 % 40, 8 + i // 1600 % 16, COLOURS[i % len(COLOURS)]
        picture, mask = Image.new("RGB", (SIDE, SIDE), "grey"), Image.new("L", (SIDE, SIDE))
        for image, fill in ((picture, colour), (mask, "white")):
            ImageDraw.Draw(image).rectangle((left, top, left + side, top + side), fill)
        noun = NounMask("square", Source("mask", data=png(mask)))
        yield Record(Source("image", data=png(picture)), f"a {colour} square", (noun,), str(i))


def resident(process: int) -> float:
    """Megabytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(command: list[object], begun) -> dict:
    """A command's seconds, memory, and its seconds until `begun(process)` was true for the first time."""
    start, samples, first = time.monotonic(), [], None
    with subprocess.Popen(
        [sys.executable, "-m", "realcompo_cli", *map(str, command)], cwd=sys.path[0], stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            if first is None and begun(process.pid):
                first = time.monotonic() - start
            if first is not None:
                samples.append(resident(process.pid))
            time.sleep(EVERY)
    samples = [sample for sample in samples if sample]  # 0 where it has just ended
    if process.returncode or not samples:
        raise SystemExit(f"{command} ended with {process.returncode}")
    places = (0, len(samples) // 4, len(samples) // 2, -1)
    return {
        "seconds": round(time.monotonic() - start, 1),
        "start": round(first, 1),
        "megabytes": [round(samples[place]) for place in places],
        "most": round(max(samples)),
    }


def reads(shards: Path):
    """Whether a process has one of `shards` open."""

    def begun(process: int) -> bool:
        try:
            opened = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
        except OSError:  # a file that was closed meanwhile
            return False
        return any(path.startswith(str(shards)) and path.endswith(".tar") for path in opened)

    return begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the set and the runs")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    shards, output = arguments.folder.resolve() / f"{arguments.records}", arguments.folder.resolve() / "run"
    if not shards.exists():
        print(f"drawing {arguments.records} records", file=sys.stderr)
        write_shards(drawn(arguments.records), shards, 1000)
    for old in output.rglob("checkpoint-*.pt"):
        old.unlink()
    (output / "history.jsonl").unlink(missing_ok=True)
    check = run(["check", shards], reads(shards))

    def has_stepped(process: int) -> bool:
        history = output / "history.jsonl"
        return history.exists() and history.stat().st_size > 0

    train = run(["train", shards, "--output", output, "--workers", arguments.workers, *OPTIONS], has_stepped)
    size = sum(path.stat().st_size for path in shards.glob("*.tar"))
    result = {"records": arguments.records, "shards_megabytes": round(size / 2**20)}
    print(json.dumps({**result, "check": check, "train": train}))


if __name__ == "__main__":
    main()
