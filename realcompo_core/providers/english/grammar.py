"""Reads a prompt into a scene graph: which objects it names, how many, and how they stand to each other.

A dependency parser (`text.parser`) says what depends on what. Before it runs, connectors of several words become one
preposition ("to the left of" is parsed as "beside"), so that they attach as a whole. Then:

- A noun with its modifiers is an object; "a herd of five zebras" is five. Frames ("a photo of"), settings ("in a
  park"), styles, parts of a body and abstract nouns are not.
- A preposition relates its object to what it depends on; behind a verb that is the verb's subject. A verb relates its
  object to its subject.
- Nouns joined by "and" share a direction: in "a dog and a cat to the left of a car" both are on the left. In "a dog
  above a cat and a car" the dog is above both: the sentence may mean the cat alone, and this satisfies either.
- "the cat", a pronoun and "the other" are what was named before. "a cat" is a new one, except in a second statement
  about the same pair: "a cat above a dog and a dog above a cat".

Prompts in tags ("1girl, long hair, park") are read tag by tag; a tag that begins with a verb or a preposition is about
the first object. What cannot be read is left out with a warning that quotes it.
"""

from __future__ import annotations

import re

from ...errors import ProviderError, TooManyObjectsError
from ...layout import MAX_OBJECTS
from ...text.words import DETERMINERS
from ..profiles import usable_profiles
from . import vocabulary as v
from .comparisons import without_comparisons
from .language import other_language
from .markup import plain
from .naming import Story
from .nouns import BOORU, units_of
from .scene import SceneGraph
from .statements import Sentence

MAX_PROMPT = 4000  # characters; a caption, not a document
HINT = "Say it as in 'a red circle to the left of a blue square', choose another provider, or draw the layout by hand."


def parse(prompt: str) -> SceneGraph:
    """The scene graph that `prompt` states.

    Raises ProviderError for a prompt that names no object and no absence, that is longer than 4000 characters or in
    another language than English; TooManyObjectsError for more than 30 objects.
    """
    if len(prompt) > MAX_PROMPT:
        raise ProviderError(
            f"prompt {_short(prompt)} has {len(prompt)} characters, rules reads up to {MAX_PROMPT}. {HINT}"
        )
    text, marked = plain(prompt)
    if language := other_language(text):
        raise ProviderError(f"rules reads English, prompt {_short(prompt)} is {language}: {_who_else()}")
    story = Story(prompt, text)
    scene = story.scene
    text, comparisons = without_comparisons(text)
    segments = _segments(text)
    are_tags = marked or _are_tags([text[start:end] for start, end in segments])
    for start, end in segments if are_tags else _sentences(text):
        start, frames = _after_frame(text, start, end)
        scene.background += frames
        Sentence(story, units_of(text, start, end), are_tags)
    for comparison in comparisons:
        comparison.apply(scene)
    scene.merge_repeated_pairs()
    scene.set_scales()
    if not scene.groups and not scene.absent:
        raise ProviderError(f"rules finds no object in prompt {_short(prompt)}. {HINT}")
    count = sum(group.count for group in scene.groups)
    if count > MAX_OBJECTS:
        listed = ", ".join(f"{group.count} × {group.phrase!r}" for group in scene.groups[:MAX_OBJECTS])
        raise TooManyObjectsError(f"{count} objects in prompt {_short(prompt)} ({listed}), {MAX_OBJECTS} are possible")
    return scene


def _segments(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"[^,.;!?\n]+", text) if match[0].strip()]


def _sentences(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"(?:[^.;!?\n]|\.(?=\w))+[.;!?]*", text) if match[0].strip()]


def _are_tags(segments: list[str]) -> bool:
    """Whether the parts between commas are tags, not clauses: a booru tag, or mostly short parts without an article."""
    words = [segment.lower().split() for segment in segments]
    if any(BOORU.fullmatch(word) for segment in words for word in segment):
        return True
    styled = [segment for segment in words if len(segment) <= 4 and not v.STYLE.isdisjoint(segment)]
    bare = [segment for segment in words if len(segment) <= 3 and segment[0] not in DETERMINERS | v.NUMBERS.keys()]
    enough = 2 if styled else 5  # "an apple, a pear and a lemon on a table, photo" stays a sentence
    return len(segments) >= enough and 2 * len(bare) > len(segments)


def _after_frame(text: str, start: int, end: int) -> tuple[int, list[str]]:
    """Where the sentence goes on after "a photo of", and such frames."""
    frames = []
    while match := _FRAME.match(text, start, end):
        frames.append(_FRAME_END.sub("", " ".join(match[1].split())))
        start = match.end()
    return start, [frame for frame in frames if frame]


_FRAME = re.compile(
    r"[\s,:]*(?:please )?(?:(?:i (?:want|need|would like)|give me|can you|(?:this|it|here|there) is|there's|it's) )?"
    r"(?:(?:draw|generate|create|show|make|paint|imagine|render)(?: me| us)? )?"
    rf"((?:(?:an?|the|this|my) )?(?:(?!(?:an?|the|of|on|in|with|from|by|,|\.) )[\w-]+ ){{0,5}}?{v.PICTURE}s?"
    r"(?: of| with| showing| shows| depicting| containing| featuring| where| in which|(?=[\s.,]*$)))(?= |$)",
    re.IGNORECASE,
)
_FRAME_END = re.compile(r" (?:of|with|showing|shows|depicting|containing|featuring|where|in which)$", re.IGNORECASE)


def _who_else() -> str:
    """Which providers read other languages; those that are set up on this machine by name."""
    if usable := [repr(profile.name) for profile in usable_profiles()]:
        return f"choose another provider that is set up here ({' or '.join(usable)}), or translate it"
    return (
        "choose another provider: a language model as clip, 'openai' with a key, or a local one (Ollama, LM Studio, "
        "llama.cpp) described in providers.json, see `realcompo providers`; or translate it"
    )


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 200 else prompt[:200] + "…")
