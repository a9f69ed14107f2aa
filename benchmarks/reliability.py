"""What is left after interrupts, faults, lack of memory, kills and long use: in a real ComfyUI with the bundled models.

    python benchmarks/reliability.py interrupts --count 100

Parts: `replies` and `prompts` (fuzzed, without a host), `interrupts`, `exceptions`, `memory` (simulated lack of it),
`gradients` (both, in backward passes), `row` (prompts in a row), `loras` (another one in each prompt) and `kills` (of
the host, while it writes a checkpoint).

`interrupts`, `exceptions`, `memory` and `gradients` disturb one prompt at a random moment, then run the reference
prompt, all of it anew. Its latent and picture must be those of an undisturbed host, bit for bit, and so must be all
weights in memory. Disturbed prompts balance with and without look-ahead, half of them with a LoRA on the fidelity
branch. Exceptions are raised in a random call of a random layer: of the UNet, GLIGEN, the text encoder or the
autoencoder. Lack of memory is raised there once, or from there on until the prompt ends. `gradients` raises either
where the gradient of a random layer's result is computed.

Growth compares the median of the last tenth of the prompts with that of the second tenth; the first warms up.
`resident` is the memory of the host's process; `allocated` is what the C library has given out and not got back,
without the gaps that fragmentation leaves. Trends are slopes of a straight line, per 100 prompts. `tensors` are those
alive in the host at the end, above those after the second tenth.

`kills` trains all weights with a checkpoint at every step, kills the host (SIGKILL) while one is written, starts it
again and looks whether training goes on from the newest finished one. At the end the run must have the same
weights as one that nothing has disturbed.

Each part prints one JSON object. A part that does not hold what it should ends with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # runs from a checkout that is not installed
sys.path.append(str(ROOT / "tests"))

import torch
from fuzzed_text import fuzzed_prompt, fuzzed_reply
from host_server import HostServer, balance_settings, error_of, find_hosts

from realcompo_core.errors import RealCompoError
from realcompo_core.providers.rules import RulesProvider
from realcompo_core.providers.text import parse_reply

QUICKSTART = ROOT / "workflows" / "api" / "quickstart.json"
TRAINING = ROOT / "workflows" / "api" / "tokencompose_train.json"
PROBE = ROOT / "benchmarks" / "reliability_probe"
STEPS = 4
LORAS = 5
MOMENTS = 1.1  # interrupts come within this many times the time of an undisturbed prompt
POLL = 0.001  # seconds between two looks for a checkpoint that is being written
TIMEOUT = 300


# Text


def fuzzed(count: int, seed: int, one: Callable[[random.Random], object]) -> dict:
    """Calls `one` `count` times; it may raise RealCompoError and nothing else."""
    rng, refused, slowest = random.Random(seed), 0, 0.0
    for _ in range(count):
        start = time.process_time()
        try:
            one(rng)
        except RealCompoError:
            refused += 1
        slowest = max(slowest, time.process_time() - start)
    return {"count": count, "read": count - refused, "refused by name": refused, "slowest seconds": round(slowest, 2)}


def replies(arguments: argparse.Namespace) -> dict:
    return fuzzed(arguments.count, arguments.seed, lambda rng: parse_reply(*fuzzed_reply(rng)))


def prompts(arguments: argparse.Namespace) -> dict:
    provider = RulesProvider()

    def one(rng: random.Random) -> None:
        prompt = fuzzed_prompt(rng)
        provider.propose(prompt, (512, 512)).validate(prompt)

    return fuzzed(arguments.count, arguments.seed, one)


# Pictures


class ProbedHost(HostServer):
    """A host with `reliability_probe`, LoRAs `0.safetensors` to `4.safetensors`, and the models in memory."""

    def __init__(self, folder: Path, base: Path):
        (base / "custom_nodes").mkdir(parents=True)
        (base / "custom_nodes" / PROBE.name).symlink_to(PROBE)
        super().__init__(folder, base)
        try:
            digests(self, workflow())
            self.post("/reliability/loras", {"count": LORAS})
            assert digests(self, workflow(lora=0)) != digests(self, workflow()), "the LoRA does nothing"
        except BaseException:
            self.stop()
            raise

    def arm(self, fault: str = "", at: int = 0, lasting: bool = False, backward: bool = False) -> None:
        self.post("/reliability/arm", {"fault": fault, "at": at, "lasting": lasting, "backward": backward})

    def layers(self) -> dict:
        """How many calls, results with a gradient and faults there were since `arm`."""
        return self.get("/reliability/layers")

    def processor_seconds(self) -> float:
        """Of the host's process so far: other programs do not count."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def probed(arguments: argparse.Namespace) -> Iterator[ProbedHost]:
    with tempfile.TemporaryDirectory() as folder:
        host = ProbedHost(arguments.host, Path(folder) / "base")
        try:
            yield host
        finally:
            host.stop()


def workflow(mode: str = "one_pass", seed: int = 7, lora: int | None = None) -> dict:
    """The quickstart with watched models, and digests of its latent and picture in place of pictures."""
    nodes = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    needed = ("prompt", "models", "layout", "pos", "neg", "apply", "settings", "balance", "balance_decode")
    nodes = {name: nodes[name] for name in needed}
    for node in nodes.values():
        for name, wire in node["inputs"].items():
            if isinstance(wire, list) and wire[0] == "models" and wire[1] < 4:
                node["inputs"][name] = ["watched", wire[1]]
    models = {name: ["models", output] for output, name in enumerate(("model", "gligen", "clip", "vae"))}
    nodes["watched"] = {"class_type": "ReliabilityWatchedModels", "inputs": models}
    results = {"latent": ["balance", 0], "image": ["balance_decode", 0]}
    nodes["digests"] = {"class_type": "ReliabilityDigests", "inputs": results}
    nodes["balance"]["inputs"].update(steps=STEPS, seed=seed)
    nodes["settings"] = balance_settings()
    nodes["settings"]["inputs"]["mode"] = mode
    if lora is not None:
        loader = {"model": ["watched", 0], "lora_name": f"{lora}.safetensors", "strength_model": 1.0}
        nodes["lora"] = {"class_type": "LoraLoaderModelOnly", "inputs": loader}
        nodes["balance"]["inputs"]["model"] = ["lora", 0]
    return nodes


def any_workflow(rng: random.Random) -> dict:
    lora = rng.randrange(LORAS) if rng.random() < 0.5 else None
    return workflow(rng.choice(["one_pass", "lookahead"]), rng.randrange(2**32), lora)


def digests(host: HostServer, nodes: dict) -> list[str]:
    return host.run(nodes)["digests"]["digests"]


class Reference:
    """The reference prompt in an undisturbed host, and how it differs later."""

    def __init__(self, host: ProbedHost):
        self._host = host
        self._expected = self._found()
        assert self._found() == self._expected, "the reference prompt differs from itself without any disturbance"

    def _found(self) -> tuple:
        found = digests(self._host, workflow())
        return *found, self._host.get("/reliability/weights")

    def differs(self) -> list[str]:
        parts = zip(("latent", "picture", "weights"), self._found(), self._expected, strict=True)
        return [name for name, found, expected in parts if found != expected]


class Memory:
    """A host's resident bytes, bytes given out by its allocator, and live tensors, after each prompt."""

    def __init__(self, host: ProbedHost):
        self._host = host
        self._resident: list[int] = []
        self._allocated: list[int] = []
        self._tensors: list[int] = []

    def note(self) -> None:
        memory = self._host.get("/reliability/memory")
        self._allocated.append(memory["allocated"])
        self._tensors.append(memory["tensors"])
        self._resident.append(self._host.resident_bytes())

    def summary(self) -> dict:
        resident, resident_growth = growth(self._resident)
        allocated, allocated_growth = growth(self._allocated)
        tenth = len(self._tensors) // 10
        return {
            "resident megabytes": round(resident / 1e6),
            "resident growth": f"{resident_growth:+.2%}",
            "allocated megabytes": round(allocated / 1e6),
            "allocated growth": f"{allocated_growth:+.2%}",
            "tensors": self._tensors[-1] - self._tensors[min(2 * tenth, len(self._tensors) - 1)],
        }


def growth(sizes: Sequence[float]) -> tuple[float, float]:
    """The median of the second tenth, and by which share of it that of the last tenth is larger."""
    tenth = max(1, len(sizes) // 10)
    early, late = statistics.median(sizes[tenth : 2 * tenth]), statistics.median(sizes[-tenth:])
    return early, late / early - 1


def slope(values: list[float]) -> float:
    """Of the straight line through values at 0, 1, 2, …"""
    return statistics.linear_regression(range(len(values)), values).slope if len(values) > 1 else 0.0


def disturbed(arguments: argparse.Namespace, disturb: Callable[[ProbedHost, random.Random], str | None]) -> dict:
    """Disturbs a prompt `count` times, looking after each. `disturb` says how it ended, None where it came too late."""
    rng = random.Random(arguments.seed)
    ends: Counter[str] = Counter()
    with probed(arguments) as host:
        reference, memory, late, differing = Reference(host), Memory(host), 0, []
        while ends.total() < arguments.count:
            end = disturb(host, rng)
            host.arm()
            if differs := reference.differs():
                differing.append((ends.total(), end, differs))
                print(*differing[-1], file=sys.stderr)
            memory.note()
            late += end is None
            ends.update([end] if end else [])
            print(ends.total(), end, file=sys.stderr)
    assert not differing, f"the next prompt differs: {differing}"
    return {"count": arguments.count, "ended": dict(ends), "came too late": late, "next differs": 0, **memory.summary()}


def interrupts(arguments: argparse.Namespace) -> dict:
    longest: dict[str, float] = {}
    answers: list[float] = []

    def disturb(host: ProbedHost, rng: random.Random) -> str | None:
        nodes = any_workflow(rng)
        mode = nodes["settings"]["inputs"]["mode"]
        if mode not in longest:
            start = time.monotonic()
            host.run(workflow(mode, rng.randrange(2**32)))
            longest[mode] = time.monotonic() - start
        prompt_id = host.queue(nodes)
        time.sleep(rng.random() * longest[mode] * MOMENTS)
        start = time.monotonic()
        host.post("/interrupt", {})
        entry = host.wait(prompt_id)
        if entry["status"]["status_str"] == "success":
            return None
        answers.append(time.monotonic() - start)
        message = error_of(entry)
        assert message == "interrupted", message
        return message

    found = disturbed(arguments, disturb)
    answered = {"median": round(statistics.median(answers), 2), "longest": round(max(answers), 2)}
    return {**found, "seconds until it ended": answered}


def faults(kinds: Sequence[str], backward: bool, arguments: argparse.Namespace) -> dict:
    counts: dict[tuple, int] = {}

    def disturb(host: ProbedHost, rng: random.Random) -> str | None:
        nodes = any_workflow(rng)
        of = nodes["settings"]["inputs"]["mode"], "lora" in nodes
        if of not in counts:
            host.arm()
            host.run(nodes)
            counts[of] = host.layers()["results" if backward else "calls"]
        fault = rng.choice(kinds)
        host.arm(fault, rng.randint(1, counts[of]), fault == "memory" and rng.random() < 0.5, backward)
        entry = host.wait(host.queue(nodes))
        if not host.layers()["raised"]:
            return None
        if entry["status"]["status_str"] == "success":
            assert fault == "memory", "an exception was swallowed"
            return "picture all the same"
        message = error_of(entry)
        named = "simulated" in message or fault == "memory" and "not enough memory" in message
        assert named, f"another message than that of the fault: {message}"
        return "error that names it"

    return disturbed(arguments, disturb)


def row(arguments: argparse.Namespace, lora: Callable[[int], int | None] = lambda number: None) -> dict:
    """Prompts one after the other, each with another seed."""
    seconds = []
    with probed(arguments) as host:
        memory = Memory(host)
        for number in range(arguments.count):
            start = host.processor_seconds()
            digests(host, workflow(seed=number, lora=lora(number)))
            seconds.append(host.processor_seconds() - start)
            memory.note()
            print(number, round(seconds[-1], 2), host.resident_bytes() // 10**6, file=sys.stderr)
    tenth = max(1, arguments.count // 10)
    times = {"median": round(statistics.median(seconds), 2), "per 100 prompts": round(slope(seconds[tenth:]) * 100, 2)}
    return {"count": arguments.count, **memory.summary(), "processor seconds": times}


def loras(arguments: argparse.Namespace) -> dict:
    return row(arguments, lambda number: number % LORAS)


# Checkpoints


def training(name: str, steps: int) -> dict:
    """The training template without its pictures: all weights, a checkpoint at every step."""
    nodes = json.loads(TRAINING.read_text(encoding="utf-8"))
    nodes = {key: nodes[key] for key in ("models", "dataset", "prompt", "train", "save")}
    nodes["dataset"]["inputs"]["scenes"] = 5
    nodes["train"]["inputs"].update(
        name=name, steps=steps, train="full", batch_size=1, checkpoint_every=1, keep_checkpoints=2, validate_every=0
    )
    nodes["train"]["inputs"].update(schedule="constant", warmup=0)
    return nodes


def finished(folder: Path) -> dict[int, dict]:
    """What each finished checkpoint holds, by its step. All must be readable."""
    paths = sorted(folder.glob("checkpoint-*.pt"))
    found = {int(path.stem.split("-")[1]): torch.load(path, map_location="cpu", weights_only=True) for path in paths}
    for step, state in found.items():
        assert state["step"] == step and len(state["losses"]["total"]) == step, f"checkpoint {step} is of another step"
    return found


def kill_while_writing(host: HostServer, folder: Path, rng: random.Random) -> tuple[int, bool]:
    """Trains, kills the host at one of the next checkpoints; the first step written, and whether one was cut short."""
    newest = max(finished(folder), default=0)
    prompt_id = host.queue(training("killed", newest + 1000))
    wanted = newest + rng.choice([1, 1, 2])
    first, deadline = None, time.monotonic() + TIMEOUT
    while True:
        writing = [int(path.name[11:17]) for path in folder.glob("checkpoint-*.part")]
        if writing:
            first = first or writing[0]
        if wanted in writing or first and first > wanted:
            break
        if time.monotonic() > deadline:
            history = host.get(f"/history/{prompt_id}")
            raise TimeoutError(f"no checkpoint after {TIMEOUT} s: {history}\n{host.log[-2000:]}")
        time.sleep(POLL)
    time.sleep(rng.random() * 0.01)
    host.process.kill()
    host.process.wait()
    return first, any(folder.glob("checkpoint-*.part"))


def kills(arguments: argparse.Namespace) -> dict:
    rng = random.Random(arguments.seed)
    cut_short = 0
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / "base"
        folder = base / "output" / "killed"
        for number in range(arguments.count):
            host = HostServer(arguments.host, base)
            before = finished(folder)
            newest = max(before, default=0)
            first, short = kill_while_writing(host, folder, rng)
            assert newest < first <= newest + 2, f"training went on at step {first}, the newest checkpoint was {newest}"
            after = finished(folder)
            assert not newest or max(after) >= newest, f"checkpoint {newest} is lost"
            if newest:
                losses = before[newest]["losses"]["total"]
                assert after[max(after)]["losses"]["total"][:newest] == losses, "another run's losses"
            cut_short += short
            print(number + 1, sorted(after), short, file=sys.stderr)
        host = HostServer(arguments.host, base)
        try:
            steps = max(finished(folder), default=0) + 1
            for name in ("killed", "whole"):
                host.run(training(name, steps))
            states = [finished(base / "output" / name)[steps] for name in ("killed", "whole")]
        finally:
            host.stop()
    differing = [key for key in states[0] if not same(*(state[key] for state in states))]
    assert not differing, f"another state than after training without kills: {differing}"
    return {"count": arguments.count, "cut short": cut_short, "steps": steps, "weights as without kills": True}


def same(one: object, other: object) -> bool:
    """Equality of nested dicts and lists with tensors, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or one != one and other != other  # NaN is the share of a step whose nouns have no mask


PARTS = {
    "replies": (replies, 10_000),
    "prompts": (prompts, 10_000),
    "interrupts": (interrupts, 100),
    "exceptions": (partial(faults, ["exception"], False), 100),
    "memory": (partial(faults, ["memory"], False), 100),
    "gradients": (partial(faults, ["exception", "memory"], True), 100),
    "row": (row, 200),
    "loras": (loras, 50),
    "kills": (kills, 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"of {', '.join(PARTS)}; or all")
    parser.add_argument("--count", type=int, help="how often, in place of the number in RESULTS.md")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--host", type=Path, help="ComfyUI's folder; found as the tests find it without")
    arguments = parser.parse_args()
    arguments.host = arguments.host or next(iter(find_hosts()), None)
    torch.set_num_threads(1)
    for name in arguments.parts or PARTS:
        run, count = PARTS[name]
        start = time.monotonic()
        own = argparse.Namespace(**{**vars(arguments), "count": arguments.count or count})
        found = run(own)
        print(json.dumps({"part": name, **found, "minutes": round((time.monotonic() - start) / 60, 1)}), flush=True)


if __name__ == "__main__":
    main()
