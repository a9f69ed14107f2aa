"""Files that are written whole or not at all."""

import os
import stat

import pytest

from realcompo_core.files import new_folder, replacing, write_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shared", [False, True])
def test_the_older_file_stays_until_the_new_one_is_whole(tmp_path, shared):
    path = tmp_path / "a.txt"
    write_file(path, "old", shared=shared)
    with replacing(path, shared=shared) as part:
        part.write_text("new, first half")
        assert path.read_text() == "old" and part.parent == tmp_path
        part.write_text("new")
    assert path.read_text() == "new" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_older_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    write_file(path, "old")
    with pytest.raises(error), replacing(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_an_error_of_the_replacement_itself_leaves_no_part(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_file(tmp_path / "folder", "text")
    assert names(tmp_path) == ["folder"]
    with pytest.raises(OSError):
        write_file(tmp_path / "missing" / "a.txt", "text")


def test_synced_content_is_on_the_disk_before_it_replaces(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("fsync") or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("replace") or replace(*paths))
    write_file(tmp_path / "a", b"text", sync=True)
    write_file(tmp_path / "b", b"text")
    assert done == ["fsync", "replace", "replace"]


def test_two_writers_of_a_shared_file_do_not_meet(tmp_path):
    path = tmp_path / "a"
    with replacing(path, shared=True) as first:
        first.write_text("one")
        with replacing(path, shared=True) as second:
            second.write_text("two")
        assert path.read_text() == "two"
    assert path.read_text() == "one" and names(tmp_path) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_are_those_of_any_new_file(tmp_path):
    """Whatever a library gives the file that it writes, and whatever a killed process left."""
    (tmp_path / "plain").write_text("")
    (tmp_path / "a.part").write_text("left")
    (tmp_path / "a.part").chmod(0o600)
    with replacing(tmp_path / "a") as part:
        part.unlink()
        part.touch(mode=0o600)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a")}
    assert len(modes) == 1 and names(tmp_path) == ["a", "plain"]


def test_a_new_folder_is_there_when_it_is_complete(tmp_path):
    folder = tmp_path / "some" / "set"
    with new_folder(folder) as part:
        (part / "a").write_text("text")
        assert not folder.exists()
    assert names(folder) == ["a"] and names(folder.parent) == ["set"]
    with pytest.raises(FileExistsError, match="set is there already"), new_folder(folder):
        pytest.fail("it began")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "other") as part:
        (part / "a").write_text("text")
        raise KeyboardInterrupt
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty"):
        (tmp_path / "third.part").mkdir()
        with pytest.raises(FileExistsError, match="third.part is there already"), new_folder(tmp_path / "third"):
            pytest.fail("it began")
    assert names(tmp_path) == ["empty", "some", "third.part"]
