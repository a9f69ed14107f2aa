"""Layouts of the `rules` provider for prompts as people type them, and for 10 000 that nobody would.

`REALCOMPO_FUZZED_PROMPTS` sets another number of the latter.
"""

import json
import os
import random
import string
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.layout_checks import Expected, problems
from realcompo_core.errors import ProviderError, RealCompoError
from realcompo_core.providers.profiles import profile_names
from realcompo_core.providers.rules import RulesProvider

SQUARE = (512, 512)
EVERYDAY = [
    Expected.from_dict(entry)
    for entry in json.loads((Path(__file__).parent / "data" / "everyday_prompts.json").read_text(encoding="utf-8"))
]
READABLE = [expected for expected in EVERYDAY if not expected.refused]
SHARE = 0.95  # of the prompts that have to hold

FUZZED = int(os.environ.get("REALCOMPO_FUZZED_PROMPTS", "10000"))
BATCHES = 10
SLOWEST = 3.0  # seconds of this process for one prompt


def propose(prompt):
    """The layout and an empty text, or None and why there is none."""
    try:
        return RulesProvider().propose(prompt, SQUARE), ""
    except RealCompoError as error:
        return None, str(error)


def failures(expectations, kinds=None):
    """A line for each prompt with a problem of these kinds, or of any kind."""
    lines = []
    for expected in expectations:
        layout, error = propose(expected.prompt)
        found = [
            f"{kind}: {error or text}" for kind, text in problems(expected, layout) if kinds is None or kind in kinds
        ]
        if found:
            lines.append("\n    ".join([expected.prompt, *found]))
    return lines


def test_there_are_120_prompts_of_all_kinds():
    assert len({expected.prompt for expected in EVERYDAY}) == len(EVERYDAY) == 120
    assert min(Counter(expected.style for expected in EVERYDAY).values()) >= 3
    assert all(expected.labelled for expected in EVERYDAY)


def test_everyday_prompts_hold():
    failed = failures(EVERYDAY)
    held = 1 - len(failed) / len(EVERYDAY)
    assert held >= SHARE, f"{held:.1%} hold, {SHARE:.0%} must:\n" + "\n".join(failed)


def test_phrases_are_spans_with_a_noun_as_head():
    """Of every prompt: a head that is a verb or an article would take the attention of its object."""
    failed = failures(READABLE, {"phrase"})
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("expected", [e for e in EVERYDAY if e.refused], ids=lambda expected: expected.prompt)
def test_other_languages_are_refused_with_a_way_out(expected):
    with pytest.raises(ProviderError, match="(?i)english") as refusal:
        RulesProvider().propose(expected.prompt, SQUARE)
    assert any(name in str(refusal.value) for name in profile_names()), f"no provider in {refusal.value}"


# Fuzzed prompts: seeded, so that a failure can be repeated.

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


@pytest.mark.parametrize("seed", range(BATCHES))
def test_fuzzed_prompts_raise_named_errors_only(seed):
    rng = random.Random(seed)
    provider = RulesProvider()
    for _ in range(FUZZED // BATCHES):
        prompt = rng.choice([shuffled, mutated, spliced, soup])(rng)
        start = time.process_time()
        try:
            layout = provider.propose(prompt, SQUARE)
        except RealCompoError as error:
            assert str(error)
        except Exception as error:
            raise AssertionError(f"{error!r} for prompt {prompt!r}") from error
        else:
            layout.validate(prompt)
        assert (taken := time.process_time() - start) < SLOWEST, f"{taken:.1f} s for prompt {prompt!r}"
