"""Prompts with what their layouts have to satisfy, from files in the formats in which others publish them.

| file | what is expected |
|---|---|
| `.json`, list with "num_object" | NSR-1K counting: the numbers of the objects |
| `.json`, list with "obj1", "obj2", "relation" | NSR-1K spatial: the relation |
| `.json`, list with "obj_1_attributes" … and "text" | MultiGen: one object each, nothing else |
| `.json`, list with "prompt" and the fields of `layout_checks.Expected` | these |
| `.json`, dict whose keys are prompts | LMD: what the sentence says, by the templates below |
| `.jsonl`, "text" in each line | captions: nothing |
| any other, one prompt a line | T2I-CompBench and others: by the templates below |

The templates are regular expressions for the few sentence forms that benchmarks are made of. A prompt of another form
has no labels: it counts for refusals, warnings, time and for the phrases' form.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.layout_checks import IRREGULAR_PLURALS, NUMBERS, Count, Expected, words_of

NAMES = {  # what a label of NSR-1K is called in its captions
    "person": "person|man|woman|boy|girl|child|kid|lady|guy|skier|surfer|snowboarder|skateboarder|player|rider",
    "remote": "remote|remote control|control",
    "tv": "tv|television|monitor",
    "couch": "couch|sofa",
    "donut": "donut|doughnut",
    "hot dog": "hot dog|hotdog",
    "airplane": "airplane|plane|jet|airliner|aircraft|aeroplane|jetliner",
    "motorcycle": "motorcycle|motorbike|bike",
    "bicycle": "bicycle|bike",
    "cell phone": "cell phone|phone|cellphone|smartphone",
    "dining table": "dining table|table",
    "traffic light": "traffic light|stoplight|traffic signal|light|signal",
    "potted plant": "potted plant|plant",
    "teddy bear": "teddy bear|bear|teddy",
    "refrigerator": "refrigerator|fridge",
    "hair drier": "hair drier|hair dryer|drier|dryer",
    "wine glass": "wine glass|glass",
    "fire hydrant": "fire hydrant|hydrant",
    "sports ball": "sports ball|ball",
    "bird": "bird|duck|seagull|pigeon|parrot|owl|goose|swan|peacock|flamingo|ostrich|hawk|pelican|eagle",
    "sheep": "sheep|lamb|ram",
    "cow": "cow|bull|calf|cattle|steer",
    "dog": "dog|puppy",
    "cat": "cat|kitten|kitty",
    "horse": "horse|pony",
    "boat": "boat|ship|sailboat|canoe|ferry|kayak",
    "truck": "truck|pickup|firetruck",
    "bench": "bench|seat",
    "cup": "cup|mug",
}
NSR_RELATIONS = {
    "left": "left_of",
    "right": "right_of",
    "top": "above|on",
    "bottom": "below|under",
    "next to": "next_to",
}
T2I_RELATIONS = {
    "on the left of": "left_of",
    "on the right of": "right_of",
    "on the top of": "above|on",
    "on the bottom of": "below|under",
    "on side of": "next_to",
    "next to": "next_to",
    "near": "near",
    "in front of": "in_front_of",
    "behind": "behind",
    "hidden by": "behind",
}
COMPLEX_RELATIONS = T2I_RELATIONS | {"on top of": "above|on", "beside": "next_to"}
LMD_SIDES = {"left": "at_left", "right": "at_right", "top": "at_top", "bottom": "at_bottom"}
MOST_WORDS = 5  # of "a hot air balloon" in a list; what is longer is a clause
UNCHANGED = ("fish", "sheep", "deer", "shrimp")

_WORD = r"(?!(?:is|are|was|were|has|with|a|an|the|in|on|through)\b)[a-z'-]+"
_NOUN = rf"(?:{_WORD} ){{0,3}}?{_WORD}"
_TWO_OBJECTS = re.compile(rf"an? ({_NOUN}) ({'|'.join(T2I_RELATIONS)}) an? ({_NOUN})\.?")
_TWO_ATTRIBUTES = re.compile(rf"(an? )?([a-z]+) ({_NOUN}) and (an? )?([a-z]+) ({_NOUN})\.?")
_COMPLEX = re.compile(
    rf"the ([a-z ,-]+?) (?:is|was|sat|lay|stood) (?:\w+ing )?({'|'.join(COMPLEX_RELATIONS)}) the ([a-z ,-]+?)\.?"
)
_NUMBER = re.compile(rf"(?:an?|{'|'.join(NUMBERS)}) ")
_NUMBERED = re.compile(rf"\b(an?|{'|'.join(NUMBERS)}) ((?:(?!(?:{'|'.join(NUMBERS)})\b){_WORD} ?)+)")
_LMD = "a realistic photo of a scene "


def read_prompts(path: Path) -> list[Expected]:
    """The prompts of a file in one of the formats above. Raises ValueError, which names the file, for another one."""
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".json":
            data = json.loads(text)
            found = list(data) if isinstance(data, dict) else [of_entry(entry) for entry in data]
        elif path.suffix == ".jsonl":
            captions = [json.loads(line)["text"].strip() for line in text.splitlines() if line.strip()]
            found = [Expected(caption, nothing_else=False) for caption in captions]
        else:
            found = [line for line in text.splitlines() if line.strip()]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is in none of the known formats: {error!r}") from error
    if not found:
        raise ValueError(f"{path} holds no prompt")
    return [of_sentence(item.strip()) if isinstance(item, str) else item for item in found]


def of_entry(entry: Mapping) -> Expected:
    """What an entry of a JSON list expects."""
    if "num_object" in entry:
        return of_counts(entry)
    if "obj1" in entry:
        return of_relation(entry)
    if "obj_1_attributes" in entry:
        return of_objects(entry)
    return Expected.from_dict(entry)


def of_counts(entry: Mapping) -> Expected:
    """NSR-1K counting. The second number of a comparison is free: it only has to compare as the label does."""
    (one, number), *others = [(NAMES.get(label, label), count) for label, count in entry["num_object"]]
    prompt, style = entry["prompt"].strip(), entry.get("sub-type", "")
    if style == "comparison" and number != others[0][1]:
        other, compared = others[0]
        how = "more" if number > compared else "fewer"
        return Expected(prompt, style, {one: number, other: "1+"}, comparisons=[(one, how, other)])
    captions = style == "real"
    return Expected(prompt, style, dict([(one, number), *others]), nothing_else=not captions, compounds=captions)


def of_relation(entry: Mapping) -> Expected:
    """NSR-1K spatial. Of several objects of a kind in a caption one has to be in the relation."""
    one, other = (NAMES.get(entry[key][0], entry[key][0]) for key in ("obj1", "obj2"))
    captions = entry["type"] == "natural"
    objects = {one: "1+", other: "1+"} if captions else _numbers([one, other])
    relation = (f"some {one}", NSR_RELATIONS[entry["relation"]], other)
    return Expected(
        entry["prompt"].strip(),
        entry["type"],
        objects,
        nothing_else=not captions,
        relations=[relation],
        compounds=captions,
    )


def of_objects(entry: Mapping) -> Expected:
    """MultiGen: every object once, words before the noun are its attributes."""
    labels = [" ".join(entry[f"obj_{i}_attributes"]) for i in range(1, entry["num_objects"] + 1)]
    return Expected(entry["text"].strip(), "", _numbers(labels))


def of_sentence(prompt: str) -> Expected:
    """What the sentence says if it has one of the templates' forms; without expectations otherwise."""
    text = re.sub(r"\s+", " ", prompt.lower()).strip()
    for template in (_of_lmd, _of_two_objects, _of_two_attributes, _of_complex, _of_numbers):
        if found := template(prompt, text):
            return found
    return Expected(prompt, nothing_else=False)


def _of_lmd(prompt: str, text: str) -> Expected | None:
    if not text.startswith(_LMD):
        return None
    stated = text.removeprefix(_LMD)
    if match := re.fullmatch(r"without (\w+)", stated):
        return Expected(prompt, "absence", absent=[match[1]])
    if match := re.fullmatch(rf"with ({'|'.join(NUMBERS)}) (\w+)", stated):
        return Expected(prompt, "numeracy", {match[2]: NUMBERS[match[1]]})
    if match := re.fullmatch(r"with an? (.+) on the (\w+) and an? (.+) on the (\w+)", stated):
        one, side, other, otherside = match.groups()
        relations = [(one, LMD_SIDES[side]), (other, LMD_SIDES[otherside])]
        return Expected(prompt, "sides", _numbers([one, other]), relations=relations)
    return _of_two_attributes(prompt, stated.removeprefix("with "))


def _of_two_objects(prompt: str, text: str) -> Expected | None:
    """T2I-CompBench spatial and 3d_spatial."""
    if not (match := _TWO_OBJECTS.fullmatch(text)):
        return None
    one, relation, other = match.groups()
    some = (f"some {one}", T2I_RELATIONS[relation], other)
    return Expected(prompt, relation, _numbers([one, other]), relations=[some])


def _of_two_attributes(prompt: str, text: str) -> Expected | None:
    """T2I-CompBench color, shape and texture."""
    match = _TWO_ATTRIBUTES.fullmatch(text)
    if not match or not (match[1] or match[4]):
        return None
    nouns, attributes = [], []
    for article, word, noun in (match.group(1, 2, 3), match.group(4, 5, 6)):
        if not article and not _is_plural(noun):
            return None
        nouns.append(_noun(noun))
        attributes.append("|".join(f"{word} {name}" for name in nouns[-1].split("|")))
    return Expected(prompt, "attributes", _numbers(nouns), attributes=_numbers(attributes))


def _of_complex(prompt: str, text: str) -> Expected | None:
    """The sentences of T2I-CompBench complex that state one relation of two things."""
    if not (match := _COMPLEX.fullmatch(text)) or " and the " in text:
        return None
    one, relation, other = (words_of(part) for part in match.groups())
    objects = dict.fromkeys((one[-1], other[-1]), "1+")
    attributes = {f"{words[0]} {words[-1]}": "1+" for words in (one, other) if len(words) > 1}
    relations = [(f"some {one[-1]}", COMPLEX_RELATIONS[" ".join(relation)], other[-1])]
    return Expected(prompt, "complex", objects, relations=relations, attributes=attributes)


def _of_numbers(prompt: str, text: str) -> Expected | None:
    """T2I-CompBench numeracy: "two bees, a lamp and one drum", with or without a verb and more after it."""
    parts = re.split(r",? and |, ", text.rstrip("."))
    short = all(part.split()[0] not in ("a", "an") or len(part.split()) <= MOST_WORDS for part in parts)
    if not short or not all(_NUMBER.match(part) for part in parts) or NUMBERS.keys().isdisjoint(text.split()):
        return None
    found: Counter[str] = Counter()
    sentence = False
    for part in parts:
        for match in _NUMBERED.finditer(part):
            number, words = NUMBERS.get(match[1], 1), match[2].split()
            if match.start() and match[1] in ("a", "an"):  # "six people gathered for a picnic"
                continue
            if number == 1:  # "one kite flew": any of the words may be the noun
                noun, size = "|".join(words), 1
            else:
                size = next((i for i, word in enumerate(words, start=1) if _is_plural(word)), len(words))
                noun = " ".join(words[:size])
            found[noun] += number
            sentence |= size < len(words) or match.end() < len(part)
    return Expected(prompt, "numeracy", dict(found), nothing_else=not sentence)


def _numbers(nouns: Iterable[str]) -> dict[str, Count]:
    """How many objects each noun means: "bear" means the teddy bear too. "A skis" may be one thing or two."""
    nouns = list(nouns)
    counted = {noun: sum(f" {other}".endswith(f" {noun}") for other in nouns) for noun in nouns}
    return {noun: "1-2" if count == 1 and _is_plural(noun) else count for noun, count in counted.items()}


def _noun(words: str) -> str:
    """The reference of a noun phrase without article: "a piece of cake" may be called a piece or a cake."""
    return "|".join(words.split(" of "))


def _is_plural(word: str) -> bool:
    """By the last word's form."""
    word = word.split()[-1]
    return word.endswith("s") and not word.endswith("ss") or word in IRREGULAR_PLURALS or word.endswith(UNCHANGED)
