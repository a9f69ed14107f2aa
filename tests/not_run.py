"""A plugin of pytest: the last lines say which tests were not run, how many, and how to run them."""

from collections import Counter

import pytest

SLOW = pytest.StashKey[int]()


def pytest_configure(config):
    config.stash[SLOW] = 0


def pytest_deselected(items):
    for item in items:
        asked_for_others = item.config.option.keyword
        item.config.stash[SLOW] += not asked_for_others and item.get_closest_marker("slow") is not None


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # of a process of `pytest -n`, which has deselected for itself
        session.config.workeroutput["slow"] = session.config.stash[SLOW]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    if hasattr(node, "workeroutput"):  # not that of a process that crashed
        node.config.stash[SLOW] = node.workeroutput["slow"]  # the same in every process


def pytest_terminal_summary(terminalreporter, config):
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    lines = [f"{count} skipped: {reason}" for reason, count in reasons.most_common()]
    if config.stash[SLOW]:
        lines.append(f"{config.stash[SLOW]} slow: `make test-slow` runs them")
    if lines:
        terminalreporter.section("not run")
        terminalreporter.write("".join(f"{line}\n" for line in lines))
