"""The end of `make test`, seen in a run of pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="no cat found: get one from a shelter")
@pytest.mark.parametrize("number", [1, 2])
def test_cat(number): ...

def test_dog():
    pytest.skip("no dog found: whistle")

@pytest.mark.slow
def test_tortoise(): ...

def test_that_runs(): ...
"""


def end_of_run(folder, *arguments):
    (folder / "test_animals.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "not_run", "-p", "no:cacheprovider", "-q", *arguments]
    found = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": found, "PYTEST_ADDOPTS": ""}
    done = subprocess.run([*command, folder], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("processes", ["0", "2"])
def test_what_was_not_run_is_said_with_its_number_and_the_way_to_run_it(tmp_path, processes):
    lines = end_of_run(tmp_path, "-m", "not slow", "-n", processes).splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.strip("= ") == "not run")
    assert lines[start + 1 : start + 4] == [
        "2 skipped: no cat found: get one from a shelter",
        "1 skipped: no dog found: whistle",
        "1 slow: `make test-slow` runs them",
    ]


def test_nothing_is_said_where_all_that_was_asked_for_was_run(tmp_path):
    assert " not run " not in end_of_run(tmp_path, "-k", "that_runs")
