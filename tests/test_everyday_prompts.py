"""Layouts of the `rules` provider for prompts as people type them, and for 10 000 that nobody would.

`REALCOMPO_FUZZED_PROMPTS` sets another number of the latter.
"""

import os
import random
from collections import Counter

import pytest
from endless import ends
from fuzzed_text import EVERYDAY, fuzzed_prompt

from benchmarks.layout_checks import problems
from realcompo_core.errors import ProviderError, RealCompoError
from realcompo_core.providers.profiles import profile_names
from realcompo_core.providers.rules import RulesProvider

SQUARE = (512, 512)
READABLE = [expected for expected in EVERYDAY if not expected.refused]
SHARE = 0.95  # of the prompts that have to hold

FUZZED = int(os.environ.get("REALCOMPO_FUZZED_PROMPTS", "10000"))
BATCHES = 10


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


@pytest.mark.parametrize("seed", range(BATCHES))
def test_fuzzed_prompts_raise_named_errors_only(seed):
    rng = random.Random(seed)
    provider = RulesProvider()
    for _ in range(FUZZED // BATCHES):
        prompt = fuzzed_prompt(rng)
        try:
            with ends():
                layout = provider.propose(prompt, SQUARE)
        except RealCompoError as error:
            assert str(error)
        except Exception as error:
            raise AssertionError(f"{error!r} for prompt {prompt!r}") from error
        else:
            layout.validate(prompt)
