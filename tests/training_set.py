"""Small training sets for the tests: a bright rectangle on black, whose mask is that rectangle."""

import json

import numpy as np
from PIL import Image

BOX = (20, 10, 50, 40)  # left, top, right, bottom of the rectangle


def rectangle(size=(80, 60), box=BOX, mode="L", value=255):
    """(width, height) picture, `value` inside of the box."""
    left, top, right, bottom = box
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[top:bottom, left:right] = value
    return Image.fromarray(pixels).convert(mode)


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def record(name="a.png", text="a cat on a red cup", nouns=(("cat", "seg/a/cat.png"), ("cup", None))):
    return {"file_name": name, "text": text, "attn_list": [list(pair) for pair in nouns]}


def write_metadata(folder, records):
    """`metadata.jsonl` of dicts, or of lines as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_set(folder, count=3):
    """An official set of `count` good records: image i is `i.png`, its rectangle i pixels further to the right."""
    records = []
    for i in range(count):
        box = (BOX[0] + i % 20, BOX[1], BOX[2] + i % 20, BOX[3])
        save(rectangle(box=box, mode="RGB"), folder / f"{i}.png")
        save(rectangle(box=box), folder / "seg" / f"{i}" / "cat.png")
        records.append(record(f"{i}.png", f"picture {i} of a cat", [("cat", f"seg/{i}/cat.png"), ("picture", None)]))
    return write_metadata(folder, records)
