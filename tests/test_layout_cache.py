"""The layout cache: what is a hit, what is a miss, and what happens when the disk does not cooperate."""

import pytest

from realcompo_core.errors import ReplyError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.providers import CachedProvider, OpenAIProvider, get_provider, openai_server
from realcompo_core.providers.profiles import Profile

SIZE = (512, 512)
GOOD = '[{"phrase": "a cat", "box": [0.1, 0.2, 0.6, 0.9]}]'


class Model(OpenAIProvider):
    """Answers from memory and counts how often it is asked."""

    def __init__(self, reply=GOOD, model="m", url="http://a.example/v1", **options):
        super().__init__(Profile("local", url, model), **options)
        self.text = reply
        self.asked = 0

    def reply(self, chat, timeout):
        self.asked += 1
        return self.text if isinstance(self.text, str) else self.text[min(self.asked, len(self.text)) - 1]


def test_a_request_is_answered_from_disk_the_second_time(tmp_path):
    first, second = Model(), Model()
    layout = CachedProvider(first, tmp_path).propose("a cat", SIZE)
    again = CachedProvider(second, tmp_path).propose("a cat", SIZE)
    assert again.to_dict() == layout.to_dict()
    assert (first.asked, second.asked) == (1, 0)


@pytest.mark.parametrize(
    ("other", "prompt", "size"),
    [
        (Model(model="other"), "a cat", SIZE),
        (Model(url="http://b.example/v1"), "a cat", SIZE),
        (Model(seed=1), "a cat", SIZE),
        (Model(), "the cat", SIZE),
        (Model(), "a cat", (512, 768)),
    ],
)
def test_another_request_is_a_miss(tmp_path, other, prompt, size):
    CachedProvider(Model(), tmp_path).propose("a cat", SIZE)
    CachedProvider(other, tmp_path).propose(prompt, size)
    assert other.asked == 1


def test_another_template_is_a_miss(tmp_path, monkeypatch):
    model = Model()
    CachedProvider(model, tmp_path).propose("a cat", SIZE)
    monkeypatch.setattr(openai_server, "TEMPLATE_VERSION", "next")
    CachedProvider(model, tmp_path).propose("a cat", SIZE)
    assert model.asked == 2


def test_revisions_are_kept_by_layout_and_instruction(tmp_path):
    layout = CachedProvider(Model(), tmp_path).propose("a cat", SIZE)
    moved = Model('[{"phrase": "a cat", "box": [0.3, 0.2, 0.8, 0.9]}]')
    first = CachedProvider(moved, tmp_path).revise(layout, "move it right", SIZE)
    again = CachedProvider(moved, tmp_path).revise(layout, "move it right", SIZE)
    assert again.to_dict() == first.to_dict() != layout.to_dict() and moved.asked == 1
    CachedProvider(moved, tmp_path).revise(layout, "move it far right", SIZE)
    CachedProvider(moved, tmp_path).revise(first, "move it right", SIZE)
    assert moved.asked == 3


def test_only_the_repaired_layout_is_stored(tmp_path):
    model = Model(["no idea", GOOD])
    CachedProvider(model, tmp_path).propose("a cat", SIZE)
    assert model.asked == 2
    other = Model("never asked")
    assert CachedProvider(other, tmp_path).propose("a cat", SIZE).objects and other.asked == 0


def test_a_reply_that_does_not_parse_is_not_stored(tmp_path):
    with pytest.raises(ReplyError):
        CachedProvider(Model("no idea"), tmp_path).propose("a cat", SIZE)
    assert CachedProvider(Model(), tmp_path).propose("a cat", SIZE).objects


@pytest.mark.parametrize("damage", [b"", b'{"version": 1, "obj', b"[]", b"\xff\xfe", b"[" * 100_000, b'{"version": 9}'])
def test_a_damaged_file_is_a_miss_and_is_repaired(tmp_path, damage):
    model = Model()
    cached = CachedProvider(model, tmp_path)
    cached.propose("a cat", SIZE)
    [path] = tmp_path.iterdir()
    path.write_bytes(damage)
    cached.propose("a cat", SIZE)
    cached.propose("a cat", SIZE)
    assert model.asked == 2


def test_a_full_disk_costs_a_warning_only(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match="not cached.*No space left"):
        assert CachedProvider(Model(), tmp_path).propose("a cat", SIZE).objects
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_a_warning_only(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="not cached"):
        assert CachedProvider(Model(), tmp_path / "file" / "cache").propose("a cat", SIZE).objects


def test_default_folder_and_off_switch(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("REALCOMPO_PROVIDERS", str(tmp_path / "providers.json"))
    (tmp_path / "providers.json").write_text("{}")
    monkeypatch.setattr("sys.platform", "linux")
    assert get_provider("openai").folder == tmp_path / "realcompo" / "layouts"
    assert isinstance(get_provider("openai", cache=False), OpenAIProvider)


def test_the_file_is_a_layout(tmp_path):
    CachedProvider(Model(), tmp_path).propose("a cat", SIZE)
    [path] = tmp_path.iterdir()
    stored = Layout.from_json(path.read_text())
    expected = Layout((LayoutObject("a cat", (0.1, 0.2, 0.6, 0.9)),), prompt="a cat")
    assert stored.to_dict() == expected.to_dict()
