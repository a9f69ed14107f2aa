"""Where published files are looked for, and what is said where they are absent."""

import pytest

from benchmarks import published_data
from benchmarks.published_data import LMD_REPLIES, SOURCES


def test_folder_of_the_environment_variable_comes_before_the_default(tmp_path, monkeypatch):
    default, given = tmp_path / "default", tmp_path / "given"
    monkeypatch.setattr(published_data, "DEFAULT", default)
    for folder in (default, given):
        folder.mkdir()
        (folder / LMD_REPLIES).write_text("{}")
    monkeypatch.delenv("REALCOMPO_DATA", raising=False)
    assert published_data.published_file(LMD_REPLIES) == default / LMD_REPLIES
    monkeypatch.setenv("REALCOMPO_DATA", str(given))
    assert published_data.published_file(LMD_REPLIES) == given / LMD_REPLIES


@pytest.mark.parametrize("name", SOURCES)
def test_absent_file_is_said_with_its_source_and_the_way_out(tmp_path, monkeypatch, name):
    monkeypatch.setenv("REALCOMPO_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as absent:
        published_data.published_file(name)
    message = str(absent.value)
    assert name in message and str(tmp_path) in message and "REALCOMPO_DATA" in message
    assert SOURCES[name] in message and "https://github.com/" in SOURCES[name]
