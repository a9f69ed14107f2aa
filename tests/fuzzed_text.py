"""Prompts and replies that nobody would write, for tests and benchmarks. Seeded, so that a failure can be repeated."""

from __future__ import annotations

import json
import random
import re
import string
from pathlib import Path

from benchmarks.layout_checks import Expected
from realcompo_core.providers.text import FORMATS

# Prompts

EVERYDAY = [
    Expected.from_dict(entry)
    for entry in json.loads((Path(__file__).parent / "data" / "everyday_prompts.json").read_text(encoding="utf-8"))
]
WORDS = sorted({word for expected in EVERYDAY for word in expected.prompt.split()})
MARKS = [*", . ( ) (( )) [ ] :1.3 BREAK <lora:x:1> - ' / & | … 🙂".split(), '"', "\n"]
CONNECTORS = "of on in the a and with to left right next between behind one two it them not no without is was".split()


def shuffled(rng):
    words = rng.choice(EVERYDAY).prompt.split()
    rng.shuffle(words)
    return " ".join(words)


def mutated(rng):
    """A prompt with letters lost, doubled or replaced."""
    letters = list(rng.choice(EVERYDAY).prompt)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(letters))
        letters[at] = rng.choice(["", letters[at] * 2, rng.choice(string.printable), chr(rng.randrange(32, 0x3000))])
    return "".join(letters)


def spliced(rng):
    """Halves of two prompts, or a prompt many times over."""
    one, other = (rng.choice(EVERYDAY).prompt for _ in range(2))
    if rng.random() < 0.1:
        return f"{one}{rng.choice([' ', ', ', '. ', ' and '])}" * rng.randint(2, 12)
    return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]


def soup(rng):
    pools = [WORDS, WORDS, CONNECTORS, MARKS]
    return " ".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(0, 40)))


def fuzzed_prompt(rng: random.Random) -> str:
    return rng.choice([shuffled, mutated, spliced, soup])(rng)


# Replies

PROMPT = "a cat and a dog"
CAT, DOG = (0.1, 0.2, 0.4, 0.8), (0.5, 0.25, 0.9, 0.75)
BAD = "[('a cat', [0, 0, 1, 1]), ('a dog', [0.2, 0.2, 0.3, 0.9])]"
GOOD = "[('a cat', [0.1, 0.2, 0.4, 0.8]), ('a dog', [0.5, 0.25, 0.9, 0.75])]"
LINE = "\nBackground prompt: a park"


def written(order="xyxy", width=1, height=1):
    """Both boxes in an order, in units of a picture of width x height."""
    boxes = []
    for x0, y0, x1, y1 in (CAT, DOG):
        numbers = {"xyxy": (x0, y0, x1, y1), "xywh": (x0, y0, x1 - x0, y1 - y0), "yxyx": (y0, x0, y1, x1)}[order]
        sides = (height, width) if order == "yxyx" else (width, height)
        scaled = [number * side for number, side in zip(numbers, sides * 2, strict=True)]
        boxes.append([round(number, 3) if width == 1 else round(number) for number in scaled])
    return boxes


def tuples(boxes):
    return f"[('a cat', {boxes[0]}), ('a dog', {boxes[1]})]"


def listed(boxes, phrase="label", box="bbox", **more):
    return json.dumps([{phrase: name, box: four, **more} for name, four in zip(("a cat", "a dog"), boxes, strict=True)])


SIZES = [(512, 512), (1024, 1024), (768, 512), (832, 1216), (128, 128)]
WRAPPERS = {
    "tuples": tuples,
    "LMD": lambda boxes: tuples(boxes) + LINE,
    "list": listed,
    "own": lambda boxes: json.dumps({"objects": json.loads(listed(boxes, "phrase", "box"))}),
    "map": lambda boxes: json.dumps({"layout": {"a cat": boxes[0], "a dog": boxes[1]}}),
    "strings": lambda boxes: listed([[str(number) for number in box] for box in boxes]),
    "prose": lambda boxes: f"Sure, here is the plan.\n\n```json\n{listed(boxes, 'object', 'box')}\n```\nEnjoy!",
    "lines": lambda boxes: f"- a cat: {boxes[0]}\n- a dog: {boxes[1]}\n",
    "table": lambda boxes: f"| object | box |\n|--|--|\n| a cat | {boxes[0]} |\n| a dog | {boxes[1]} |\n",
    "Qwen": lambda boxes: listed(boxes, box="bbox_2d"),
}
WHOLE = [wrap(written(order, 512, 512)) for wrap in WRAPPERS.values() for order in ("xyxy", "xywh", "yxyx")]
WHOLE += [f"A bad answer would be {BAD}\n{GOOD}", f"<think>{BAD}</think>{GOOD}", f"| a | b |\n{GOOD}"]
NOISE = ["", *"[])}\"',%-|\n#9", "px", "NaN", "<think>", "</think>", "//", "/*"]


def accident(rng: random.Random, reply: str) -> str:
    at, end = sorted(rng.randrange(len(reply) + 1) for _ in range(2))
    noise, factor = rng.choice(NOISE), rng.choice([0, 2, 10])
    return rng.choice(
        [
            reply[:at],
            reply[at:],
            reply[:at] + noise + reply[at:],
            reply[:at] + noise + reply[min(at + 3, end) :],
            reply[:end] + reply[at:],
            reply[:at] + re.sub(r"\d+", lambda number: str(int(number[0][:9]) * factor), reply[at:]),
            reply[:at] + reply[at:].replace(", ", rng.choice([",", " ", ";", "\n"])),
            f"{reply}\n{rng.choice(['Wrong:', 'or', '', '```'])}\n{reply[:end]}",
        ]
    )


def fuzzed_reply(rng: random.Random) -> tuple[str, str, tuple[int, int], str]:
    """A damaged reply, and the prompt, size and format that it is read with."""
    reply = rng.choice(WHOLE)
    for _ in range(rng.randint(1, 4)):
        reply = accident(rng, reply)
    return reply, rng.choice(["", PROMPT]), rng.choice(SIZES), rng.choice(FORMATS)
