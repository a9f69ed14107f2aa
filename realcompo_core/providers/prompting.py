"""The messages that ask a language model for a layout, and the schema of its reply."""

from __future__ import annotations

import json

from ..errors import ProviderError, ReplyError
from ..layout import Layout

Chat = list[dict[str, str]]  # messages with "role" and "content", in their order
MAX_QUOTED = 8000  # characters of an unusable reply that the model is shown again

TEMPLATE_VERSION = "1"
"""Part of the cache key: raise it with every change of the wording below."""

INSTRUCTIONS = """\
You plan pictures. Given the sentence that describes a picture, decide which objects it shows and where each one goes.

Think first, briefly, in "reasoning": list the objects and how many of each; then the relations between them (left,
right, above, below, on, under, inside, behind, in front of); then how large each object is compared with the others.
After that place them.

Rules:
- One entry in "objects" per single object: "three cups" are three entries.
- "phrase" names the object with the words of the sentence, its colour and material included: "a red cup", "a wooden
  table". Do not replace its noun by another word and do not add objects that the sentence does not mention.
- "box" is [x0, y0, x1, y1]: left, top, right and bottom edge as fractions of the picture's width and height, from 0
  to 1. x grows to the right, y grows downwards, x0 < x1 and y0 < y1.
- Boxes satisfy every relation of the sentence and overlap only where the sentence asks for it. Leave a small margin
  to the border. Nothing may be tiny: an object takes at least a tenth of the width and of the height.
- "background" describes the scene without the objects, in a few words.
- "negative" holds what the sentence says must be absent ("without dogs" gives "dogs"); otherwise it is empty. Absent
  things are never objects, so "objects" may be empty.

Answer with one JSON object with the keys "reasoning", "background", "negative", "objects" and nothing else."""

EXAMPLES = {
    "a photo of a white teapot to the left of two green cups on a wooden table": {
        "reasoning": "One teapot, two cups, one table: four objects. The table carries the rest, so it is wide and low "
        "and the others end on its top. The teapot is the largest of the three and stands left, both cups right of it.",
        "background": "a photo of a kitchen",
        "negative": "",
        "objects": [
            {"phrase": "a wooden table", "box": [0.03, 0.6, 0.97, 0.97]},
            {"phrase": "a white teapot", "box": [0.08, 0.3, 0.42, 0.66]},
            {"phrase": "a green cup", "box": [0.5, 0.45, 0.68, 0.66]},
            {"phrase": "a green cup", "box": [0.75, 0.45, 0.93, 0.66]},
        ],
    },
    "an oil painting of an owl above a sleeping fox": {
        "reasoning": "One owl, one fox. The owl is above, so its lower edge ends higher than the fox's upper edge. A "
        "sleeping fox is wider than high.",
        "background": "an oil painting of a forest at night",
        "negative": "",
        "objects": [
            {"phrase": "an owl", "box": [0.33, 0.06, 0.65, 0.48]},
            {"phrase": "a sleeping fox", "box": [0.15, 0.58, 0.85, 0.94]},
        ],
    },
    "an empty street without cars": {
        "reasoning": "Cars must be absent and no other object is named, the street itself is the scene.",
        "background": "an empty street",
        "negative": "cars",
        "objects": [],
    },
}


REVISION = """\
Change this layout: {instruction}

Answer with the whole new layout, as one JSON object with the same keys. Objects that this does not speak of keep their
phrase and their box to the digit. Objects that it removes are left out. An object that it adds gets a phrase in the
words of this instruction, in the language of the sentence."""

REPAIR = """\
This answer cannot be used: {error}.

Answer again, with the whole corrected JSON object and nothing else."""


def messages(prompt: str, size: tuple[int, int]) -> Chat:
    """The chat that asks for the layout of `prompt` in a picture of `size` = (width, height) pixels."""
    shown = [{"role": "system", "content": INSTRUCTIONS}]
    for sentence, answer in EXAMPLES.items():
        shown += [
            {"role": "user", "content": _question(sentence, (512, 512))},
            {"role": "assistant", "content": json.dumps(answer)},
        ]
    return [*shown, {"role": "user", "content": _question(prompt, size)}]


def revision_messages(layout: Layout, instruction: str, size: tuple[int, int]) -> Chat:
    """The chat that asks to change `layout` as `instruction` says: as if the model had proposed it itself.

    Raises `ProviderError` for an empty instruction.
    """
    if not instruction.strip():
        raise ProviderError("the instruction is empty: say what to change, for example 'move the cat to the left'")
    so_far = {
        "reasoning": "This is the layout so far.",
        "background": layout.background,
        "negative": layout.negative,
        "objects": [
            {"phrase": item.phrase, "box": [round(float(edge), 3) for edge in item.box]} for item in layout.objects
        ],
    }
    return [
        *messages(layout.prompt, size),
        {"role": "assistant", "content": json.dumps(so_far, ensure_ascii=False)},
        {"role": "user", "content": REVISION.format(instruction=instruction.strip())},
    ]


def repair_messages(chat: Chat, reply: str, error: ReplyError) -> Chat:
    """`chat`, the reply that it got, and the request to correct it, which quotes the error."""
    answer = reply.rpartition("</think>")[2].strip() or reply  # models are not shown their own reasoning again
    return [
        *chat,
        {"role": "assistant", "content": answer[:MAX_QUOTED]},
        {"role": "user", "content": REPAIR.format(error=error.__cause__ or error)},
    ]


def single_message(chat: Chat) -> str:
    """`chat` as one text, for a model that is given a single message."""
    system, *turns = (message["content"] for message in chat)
    *turns, last = turns
    shown = [f"{asked}\nAnswer: {answer}" for asked, answer in zip(turns[::2], turns[1::2], strict=True)]
    return "\n\n".join([system, *shown, f"{last}\nAnswer:"])


def _question(prompt: str, size: tuple[int, int]) -> str:
    return f"Picture: {size[0]} x {size[1]} pixels\nSentence: {prompt}"


def _strict_object(**properties: dict) -> dict:
    """Strict mode wants every property required and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
BOX = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
REPLY_SCHEMA = _strict_object(
    reasoning=TEXT,
    background=TEXT,
    negative=TEXT,
    objects={"type": "array", "items": _strict_object(phrase=TEXT, box=BOX)},
)
"""JSON Schema of the reply, for servers with structured output (strict mode)."""
