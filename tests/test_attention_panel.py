"""The files of the viewer's panel, against the maps they are made of."""

import errno
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from panel_file import PanelFile

from realcompo_core.attention.grounding_metrics import grounding_table, layout_targets
from realcompo_core.attention.maps import AttentionMaps, BranchMaps, MapLayer, WordColumns
from realcompo_core.attention.panel import write_panel
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.trace import Trace, TraceStep
from realcompo_core.layout import Layout, LayoutObject

LAYERS = [MapLayer("input 1", (6, 8)), MapLayer("middle", (3, 4))]
STEPS = [0, 3]
CORGI, TABLE = LayoutObject("small corgi", (0, 0.25, 0.5, 1)), LayoutObject("table", (0.3, 0.6, 1, 1))
PICTURES = [{"filename": "a.png", "subfolder": "", "type": "temp"}, None]


def branch(name, prompt, seed, heads=3):
    made = BranchMaps(name, layers=list(LAYERS), noise_levels={0: 14.6, 3: 2.5})
    texts = prompt.split()
    made.words = {
        "positive": [WordColumns("<start>", (0,)), *(WordColumns(text, (i + 1,)) for i, text in enumerate(texts))],
        "negative": [WordColumns("<start>", (0,)), WordColumns("blurry", (1, 2))],
    }
    random = torch.Generator().manual_seed(seed)
    for conditioning, tokens in (("positive", len(texts) + 1), ("negative", 3)):
        for layer, step in itertools.product(LAYERS, STEPS):
            scores = 3 * torch.randn(2, heads, tokens, *layer.size, generator=random)
            made.maps[conditioning, layer.name, step] = scores.softmax(2).half()
    return made


@pytest.fixture(scope="module")
def maps():
    random = torch.Generator().manual_seed(2)
    steps = [TraceStep(i, 1.0, torch.rand(2, 2, 5, 5, generator=random)) for i in STEPS]
    branches = [
        branch("fidelity", "a small corgi on a table", 0),
        branch("spatial", "a corgi with a hat on a small table", 1, heads=1),
    ]
    return AttentionMaps(branches, Layout((CORGI, TABLE)), Trace(("fidelity", "spatial"), steps=steps))


def written(maps, folder):
    name, _ = write_panel(maps, PICTURES, folder, "panel")
    return PanelFile(folder, name)


@pytest.fixture(scope="module")
def panel(maps, tmp_path_factory):
    return written(maps, tmp_path_factory.mktemp("panel"))


def test_every_record_is_its_words_map(maps, panel):
    for number, own in enumerate(maps.branches):
        for conditioning, words in own.words.items():
            if conditioning == "positive":
                words = [*words, *(target.word for target in layout_targets(own, maps.layout))]
            heads = [None, *range(own.heads)] if own.heads > 1 else [None]
            for layer, step, (i, head) in itertools.product((None, *LAYERS), (None, *STEPS), enumerate(heads)):
                expected = own.word_maps(words, conditioning, layer=layer and layer.name, step=step, head=head).numpy()
                for item in range(2):
                    found = panel.frame(
                        number, conditioning, layer.name if layer else "all", "all" if step is None else step, i, item
                    )
                    np.testing.assert_allclose(found, expected[item], rtol=0, atol=expected[item].max() / 65535)


def test_phrases_are_mean_maps_of_their_words_where_the_prompt_has_them(maps, tmp_path):
    name, _ = write_panel(maps, PICTURES, tmp_path, "panel", ["small corgi", "hat"])
    panel = PanelFile(tmp_path, name)
    assert panel.header["phrases"] == ["small corgi", "hat"]
    for number, own in enumerate(maps.branches):
        kept = panel.header["branches"][number]["conditionings"]
        assert kept["positive"]["phrases"] == [["small corgi"], ["hat"]][number]  # the words stand in a row, or not
        assert kept["negative"]["phrases"] == []
        expected = own.word_maps([own.find(kept["positive"]["phrases"][0])], layer="middle", step=3)[1, 0]
        found = panel.frame(number, "positive", "middle", 3, item=1)[-1]
        np.testing.assert_allclose(found, expected, rtol=0, atol=expected.max() / 65535)


@pytest.mark.parametrize(
    ("prompt", "nouns"),
    [
        ("a small corgi on a table", ["corgi", "table"]),
        ("fluffy orange cat sleeping", ["cat"]),
        ("a race car", ["car"]),
        ("", []),
    ],
)
def test_nouns_are_marked(prompt, nouns, tmp_path):
    words = written(AttentionMaps([branch("model", prompt, 0)]), tmp_path).header["branches"][0]["conditionings"]
    assert [word["text"] for word in words["positive"]["words"] if word["noun"]] == nouns


def test_weights_are_the_traces(maps, panel):
    means = torch.stack([step.weights for step in maps.trace.steps]).mean(0)
    for item in range(2):
        np.testing.assert_allclose(panel.weights("all", item), means[item], rtol=0, atol=1e-5)
        np.testing.assert_allclose(panel.weights(3, item), maps.trace.steps[1].weights[item], rtol=0, atol=1e-5)


def test_weights_of_a_step_that_is_evaluated_twice_are_those_of_its_last_evaluation(maps, tmp_path):
    """Heun's and PLMS's samplers evaluate the level of the next step before they are there."""
    trial = TraceStep(3, 1.0, torch.zeros(2, 2, 5, 5))
    twice = Trace(maps.trace.branches, steps=[maps.trace.steps[0], trial, maps.trace.steps[1]])
    again = AttentionMaps(maps.branches, maps.layout, twice)
    panel = written(again, tmp_path)
    assert panel.header["weights"]["steps"] == STEPS
    assert again.weights(3) is maps.trace.steps[1].weights and again.weights(1) is None
    np.testing.assert_allclose(panel.weights(3), maps.trace.steps[1].weights[0], rtol=0, atol=1e-5)


def test_trace_without_steps_has_no_weights(maps, tmp_path):
    nothing = Trace(("fidelity", "spatial"), note="nothing was sampled: denoise is 0")
    assert written(AttentionMaps(maps.branches, maps.layout, nothing), tmp_path).header["weights"] is None
    with pytest.raises(RealCompoError, match="no attention was recorded: nothing was sampled: denoise is 0"):
        write_panel(AttentionMaps([BranchMaps("fidelity")], maps.layout, nothing), [None], tmp_path, "nothing")


def test_weights_that_are_nan_are_written_as_0(maps, tmp_path):
    steps = [TraceStep(i, 1.0, torch.full((2, 2, 5, 5), 0.5)) for i in STEPS]
    steps[1].weights[:, :, 0] = torch.nan
    panel = written(AttentionMaps(maps.branches, None, Trace(("fidelity", "spatial"), steps=steps)), tmp_path)
    assert panel.weights(3)[:, 0].max() == 0 and panel.weights(3)[:, 1:].min() == pytest.approx(0.5)
    assert panel.weights("all").min() == pytest.approx(0.5)


def test_shares_are_those_of_the_grounding_table(maps, panel):
    own = maps.branches[0]
    kept = panel.header["branches"][0]["conditionings"]["positive"]
    regions = panel.regions(own.size)
    rows = grounding_table(own, [layout_targets(own, maps.layout)])
    assert [target["label"] for target in kept["targets"]] == ["small corgi", "table"]
    for row in rows:
        targets = panel.frame(0, "positive", "all", "all", 0, row.item)[len(kept["words"]) :]
        (index,) = (i for i, target in enumerate(kept["targets"]) if target["label"] == row.label)
        region = regions[kept["targets"][index]["region"]]
        assert (targets[index] * region).sum() / targets[index].sum() == pytest.approx(row.share, abs=1e-4)
        assert region.mean() == pytest.approx(row.area, abs=1e-4)


def test_header_says_what_there_is(maps, panel):
    first, second = panel.header["branches"]
    assert panel.header["pictures"] == PICTURES
    assert (first["name"], second["name"], first["items"]) == ("fidelity", "spatial", 2)
    kept = first["conditionings"]["positive"]
    assert kept["steps"] == [{"index": 0, "level": 14.6}, {"index": 3, "level": 2.5}]
    assert (kept["heads"], second["conditionings"]["positive"]["heads"]) == (3, 0)
    layers = [(layer["name"], layer["size"]) for layer in kept["layers"]]
    assert layers == [("all", [6, 8]), ("input 1", [6, 8]), ("middle", [3, 4])]
    assert panel.header["objects"][0] == {"phrase": "small corgi", "box": [0, 0.25, 0.5, 1], "color": "#e43c32"}
    assert [region["label"] for region in panel.header["regions"]] == ["small corgi", "table"]


def test_words_know_the_regions_of_their_objects(panel):
    words = panel.header["branches"][0]["conditionings"]["positive"]["words"]
    assert {word["text"]: word["regions"] for word in words if word["regions"]} == {
        "small": [0],
        "corgi": [0],
        "table": [1],
    }


def test_objects_that_share_their_word_have_one_region(tmp_path):
    """As in the loss; another branch, whose prompt names both, has a region for each."""
    corgis = [LayoutObject("corgi", (0, 0, 0.5, 1)), LayoutObject("corgi", (0.6, 0, 1, 1))]
    branches = [branch("one", "two corgi", 0), branch("two", "a corgi and a corgi", 1)]
    panel = written(AttentionMaps(branches, Layout(tuple(corgis))), tmp_path)
    targets = [own["conditionings"]["positive"]["targets"] for own in panel.header["branches"]]
    assert [[target["region"] for target in own] for own in targets] == [[0], [1, 2]]
    joined, left, right = panel.regions((6, 8))
    np.testing.assert_allclose(joined, np.maximum(left, right), atol=1e-4)


def test_phrases_that_are_not_in_the_prompt_have_regions_but_no_words(maps, tmp_path):
    other = Layout((LayoutObject("zebra", (0, 0, 0.5, 0.5)), LayoutObject("table", (0.5, 0.5, 1, 1))))
    panel = written(AttentionMaps(maps.branches, other), tmp_path)
    assert [region["label"] for region in panel.header["regions"]] == ["zebra", "table"]
    assert panel.header["branches"][0]["conditionings"]["positive"]["targets"] == []
    assert panel.regions((6, 8))[0][:3, :4].min() == pytest.approx(1)


def test_without_layout_and_trace_there_are_neither_regions_nor_weights(maps, tmp_path):
    panel = written(AttentionMaps(maps.branches), tmp_path)
    assert (panel.header["objects"], panel.header["regions"], panel.header["weights"]) == ([], [], None)
    assert panel.frame(1, "negative", "middle", 3).shape == (2, 3, 4)


def test_a_map_of_zeros_stays_one(tmp_path):
    empty = branch("model", "a corgi", 0)
    for value in empty.maps.values():
        value[:, :, 1] = 0
    assert written(AttentionMaps([empty]), tmp_path).frame(0, "positive", "middle", 0)[1].max() == 0


def test_nothing_recorded_is_said(tmp_path):
    with pytest.raises(RealCompoError, match="no attention was recorded"):
        write_panel(AttentionMaps([BranchMaps("model")]), [None], tmp_path, "panel")
    assert not list(tmp_path.iterdir())


class Disk:
    """Opens files that note the size of each write, and take at most `room` bytes."""

    def __init__(self, monkeypatch, room):
        self.writes, self._room, self._open = [], room, Path.open
        monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: self._opened(path, *args, **kwargs))

    def _opened(self, path, *args, **kwargs):
        file = self._open(path, *args, **kwargs)
        write = file.write

        def limited(data):
            self.writes.append(len(data))
            if sum(self.writes) > self._room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(data)

        return _Wrapped(file, limited)


class _Wrapped:
    def __init__(self, file, write):
        self._file, self.write = file, write

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


@pytest.mark.parametrize("room", [0, 5000, -1], ids=["nothing", "some maps", "all but the end of the header"])
def test_a_full_disk_is_an_error_that_names_the_folder_and_nothing_is_left(maps, tmp_path, monkeypatch, room):
    if room < 0:
        room += sum(len(path.read_bytes()) for path in map(tmp_path.joinpath, write_panel(maps, [], tmp_path, "panel")))
    with monkeypatch.context() as patch:
        Disk(patch, room)
        with pytest.raises(RealCompoError) as caught:
            write_panel(maps, [], tmp_path, "panel")
    assert str(tmp_path) in str(caught.value) and "No space left" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_maps_are_written_a_frame_at_a_time(maps, tmp_path, monkeypatch):
    """A recording may be larger than the memory that is left."""
    disk = Disk(monkeypatch, 2**30)
    write_panel(maps, [], tmp_path, "panel")
    most = 2 * 12 * (4 + 2 * 6 * 8)  # items, words and targets of the longer prompt, bytes
    assert max(disk.writes[:-1]) == most
