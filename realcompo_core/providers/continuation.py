"""What a layout keeps of the one that it revises: masks, keypoints, and a prompt that names its objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import PhraseNotInPromptError
from ..layout import Box, Layout, LayoutObject
from ..layout.changes import in_box
from ..text.words import DETERMINERS, MEASURES, NUMBERS, count_of, match_phrases, noun_words, singular

ROUNDING = 2e-3  # a box that a model repeats may be rounded to three decimals


def continued(old: Layout, new: Layout) -> Layout:
    """`new`, which a language model wrote as a revision of `old`, as the layout that follows `old`.

    Objects that `old` has too, by their phrase, keep their mask, keypoints and region, moved into the new box; of
    several with one phrase each keeps those of the nearest. Others are new: the prompt gets those of their phrases that
    it lacks. `warnings` say that, and name removed objects, which the prompt still describes. Raises a LayoutError if
    the result is no valid layout of its prompt.
    """
    origins = _origins(old, new)
    objects = tuple(
        item if origin is None else _in_place(old.objects[origin], item.box)
        for item, origin in zip(new.objects, origins, strict=True)
    )
    kept = [item.phrase for item, origin in zip(objects, origins, strict=True) if origin is not None]
    pairs = [(old.objects[i], item) for i, item in zip(origins, objects, strict=True) if i is not None]
    added = [item.phrase for item, origin in zip(objects, origins, strict=True) if origin is None]
    removed = [item.phrase for i, item in enumerate(old.objects) if i not in origins]
    layout = Layout(objects, new.background or old.background, new.negative or old.negative)
    return follow_up(layout, old, added, removed, kept, [*new.warnings, *lost_masks(pairs)])


def follow_up(
    layout: Layout,
    old: Layout,
    added: Sequence[str],
    removed: Sequence[str],
    kept: Sequence[str],
    warnings: Sequence[str] = (),
) -> Layout:
    """`layout` with the prompt of `old`, extended by those of the phrases `added` that it lacks, and with the warnings.

    A phrase is lacking as well if the prompt names it, but for one of the phrases `kept`. Raises a LayoutError if the
    layout is not valid, or has a phrase that is not in its prompt.
    """
    prompt, notes = old.prompt, list(warnings)
    missing = [phrase for phrase in dict.fromkeys(added) if prompt and not _names(prompt, phrase, kept)]
    if missing:
        prompt = ", ".join([prompt.rstrip(" .,;\n"), *missing])
        notes.append(f"the prompt to encode has changed, it now names what was added: {prompt!r}")
    if prompt and removed:
        named = " and ".join(repr(phrase) for phrase in dict.fromkeys(removed))
        notes.append(f"removed {named}, which the prompt still describes: change it there too")
    return replace(layout, prompt=prompt, warnings=tuple(notes)).validate(prompt or None)


def lost_masks(pairs: Iterable[tuple[LayoutObject, LayoutObject]]) -> list[str]:
    """A warning for each object, given as it was and as it is, whose mask was dropped."""
    return [
        f"{after.phrase!r} has lost its mask, of which nothing is left in the new box: its region is now another"
        for before, after in pairs
        if before.mask is not None and after.mask is None
    ]


def _origins(old: Layout, new: Layout) -> list[int | None]:
    """For each object of `new` the index of the one in `old` that it continues; each is continued once."""
    pairs = [
        (_distance(before.box, after.box), j, i)
        for j, after in enumerate(new.objects)
        for i, before in enumerate(old.objects)
        if _same_phrase(before.phrase, after.phrase)
    ]
    origins: list[int | None] = [None] * len(new.objects)
    for _, j, i in sorted(pairs):
        if origins[j] is None and i not in origins:
            origins[j] = i
    return origins


def _in_place(before: LayoutObject, box: Box) -> LayoutObject:
    """The object in its new box, or as it was if the box is the same but for rounding."""
    return before if _distance(before.box, box) <= ROUNDING else in_box(before, box)


def _distance(a: Box, b: Box) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def _same_phrase(a: str, b: str) -> bool:
    """Whether two phrases are the same but for case and articles."""
    one, other = ([word for word in phrase.casefold().split() if word not in DETERMINERS] for phrase in (a, b))
    return one == other


def _names(prompt: str, phrase: str, others: Sequence[str]) -> bool:
    """Whether the prompt names `phrase` with all its adjectives, in a place that is not one of `others`' alone."""
    try:
        *taken, match = match_phrases([*others, phrase], prompt)
    except PhraseNotInPromptError:
        return False
    adjectives = set(noun_words(phrase)[:-1]) - DETERMINERS - NUMBERS.keys() - MEASURES - {"of"}
    if len(match.words) <= len(adjectives):
        return False
    noun = prompt[slice(*match.head)]
    is_plural = singular(noun) != noun.lower()
    return is_plural or (count_of(phrase) == 1 and match.head not in [other.head for other in taken])
