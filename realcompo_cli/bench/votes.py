"""The votes of a user study: read from the voters' files, and how often each run wins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from realcompo_core.errors import RealCompoError
from realcompo_core.files import read_file

from .study import QUESTIONS

SIDES = ("left", "right")
CHOICES = ("left", "same", "right")
CONFIDENCE = 0.95


class Vote(NamedTuple):
    """What a voter says of a pair of pictures: the better run for each question, None where they are the same."""

    voter: str
    runs: frozenset[str]
    better: Mapping[str, str | None]


@dataclass(frozen=True)
class Votes:
    """All votes that count. `runs` are in the key's order; `notes` say what doesn't count, and what is incomplete."""

    runs: tuple[str, ...]
    votes: tuple[Vote, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rate:
    """How often `first` won against `second` (None: against any other) in the votes on a question."""

    question: str
    first: str
    second: str | None
    wins: int
    ties: int
    losses: int
    voters: int

    @property
    def count(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float:
        """From 0 to 1; a tie is half a win."""
        return (self.wins + self.ties / 2) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval of `rate`, with 95 % confidence.

        It takes the votes as independent. Votes of one voter, or on one pair of pictures, resemble each other, so that
        with few voters or few pairs the truth is less certain than it says. Ties make it wider than necessary: half
        wins vary less than wins and losses.
        """
        n, p = self.count, self.rate
        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        return max(0.0, centre - half), min(1.0, centre + half)


class _Ballot(NamedTuple):
    """A voter's file. `saved` is when, in a form that sorts; empty where the file doesn't say."""

    path: Path
    voter: str
    saved: str
    votes: tuple[Vote, ...]


def read_key(path: Path) -> dict[str, Any]:
    """The key of a study. Raises RealCompoError for a file that is none."""
    try:
        key = _json_object(path)
        if not {"study", "runs", "pairs"} <= key.keys():
            raise ValueError("it has not all of study, runs and pairs")
    except ValueError as error:
        raise RealCompoError(f"{path} is no key of a study ({error}): give the file made with its page") from error
    return key


def read_votes(paths: Sequence[Path], key: Mapping[str, Any]) -> Votes:
    """The votes in these files. A file that cannot be used is named in the notes, and the others count.

    Of several files of one voter the one saved last counts, or the longest where they don't say when. Raises
    RealCompoError where no file can be used.
    """
    ballots: dict[str, _Ballot] = {}
    notes = []
    for path in dict.fromkeys(paths):
        try:
            ballot = _read_ballot(path, key)
        except ValueError as error:
            notes.append(f"{path} does not count: {error}")
            continue
        other = ballots.setdefault(ballot.voter, ballot)
        if other is not ballot:
            dropped, counted = sorted((other, ballot), key=lambda b: (b.saved, len(b.votes)))
            ballots[ballot.voter] = counted
            notes.append(f"{dropped.path} does not count: of this voter's files {counted.path} does")
    if not ballots:
        message = f"there are no votes on the study {key['study']}: give its voters' files"
        raise RealCompoError("\n".join([message, *notes]))
    for ballot in ballots.values():
        if len(ballot.votes) < len(key["pairs"]):
            notes.append(f"{ballot.path} is incomplete: its {len(ballot.votes)} of {len(key['pairs'])} pairs count")
    votes = tuple(vote for ballot in ballots.values() for vote in ballot.votes)
    return Votes(tuple(key["runs"]), votes, tuple(notes))


def win_rates(votes: Votes) -> list[Rate]:
    """For each question each pair of runs, and, of more than two runs, each run against all others.

    Runs that nobody has compared have no rate.
    """
    rates = []
    for question in QUESTIONS:
        rates += [_rate(votes, question, *pair) for pair in combinations(votes.runs, 2)]
        if len(votes.runs) > 2:
            rates += [_rate(votes, question, run) for run in votes.runs]
    return [rate for rate in rates if rate.count]


def votes_table(rows: Sequence[Rate]) -> str:
    """The rates as a table in Markdown."""
    lines = [
        f"| question | run | against | wins | ties | losses | voters | win rate | {CONFIDENCE:.0%} interval |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        low, high = row.interval
        names = [name.replace("|", "\\|") for name in (row.first, row.second or "all others")]
        numbers = (row.wins, row.ties, row.losses, row.voters, f"{row.rate:.1%}", f"{low:.1%} to {high:.1%}")
        lines.append(f"| {' | '.join(map(str, (row.question, *names, *numbers)))} |")
    return "\n".join(lines) + "\n"


def _rate(votes: Votes, question: str, first: str, second: str | None = None) -> Rate:
    """Of the votes on `first` and `second`, or on `first` and any other."""
    runs = {first} if second is None else {first, second}
    counted = [vote for vote in votes.votes if runs <= vote.runs]
    better = [vote.better[question] for vote in counted]
    wins, ties = better.count(first), better.count(None)
    voters = len({vote.voter for vote in counted})
    return Rate(question, first, second, wins, ties, len(better) - wins - ties, voters)


def _read_ballot(path: Path, key: Mapping[str, Any]) -> _Ballot:
    """Raises ValueError, which says what is wrong."""
    data = _json_object(path)
    if data.get("study") != key["study"]:
        raise ValueError(f"it is of the study {data.get('study')!r}, and the key of {key['study']!r}")
    voter, entries = data.get("voter"), data.get("votes")
    if not isinstance(voter, str) or not voter:
        raise ValueError(f"voter is {voter!r}: a text was expected")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("votes is no list of objects")
    votes: dict[str, Vote] = {}
    for entry in entries:
        pair = entry.get("pair")
        if not isinstance(pair, str) or pair not in key["pairs"]:
            raise ValueError(f"the study has no pair {pair!r}")
        if pair in votes:
            raise ValueError(f"it votes twice on the pair {pair}")
        sides = {side: key["pairs"][pair][side] for side in SIDES}
        for question in QUESTIONS:
            choice = entry.get(question)
            if choice not in CHOICES:
                raise ValueError(f"{question} of the pair {pair} is {choice!r}: none of {', '.join(CHOICES)}")
        better = {question: sides.get(entry[question]) for question in QUESTIONS}
        votes[pair] = Vote(voter, frozenset(sides.values()), better)
    saved = data.get("saved")
    return _Ballot(path, voter, saved if isinstance(saved, str) else "", tuple(votes.values()))


def _json_object(path: Path) -> dict[str, Any]:
    """Raises ValueError, which says what is wrong."""
    try:
        data = json.loads(read_file(path))
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"it holds {type(data).__name__}: an object was expected")
    return data
