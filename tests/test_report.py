"""What a report shows of a trace, and both renderers of it: Pillow's picture, the command line's sheet and page."""

import io
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from realcompo_cli.page import page
from realcompo_cli.report import Picture, Report, legend_rows
from realcompo_cli.sheet import sheet
from realcompo_core.attention.drawing import View
from realcompo_core.attention.reading import Gradient
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.branch import branch_names
from realcompo_core.guidance.drawing import draw_report, draw_reports
from realcompo_core.guidance.report import ATTENTION_COLORS, TraceReport
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.trace import Trace, TraceStep
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.drawing import ascii_text
from realcompo_core.palettes import BRANCHES, PALETTES, color_of, colorize
from realcompo_core.sampling.samplers import plms

PHRASES = ["a small yellow triangle", "a large purple star"]
NAN = float("nan")


@pytest.fixture(autouse=True)
def numpy_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def step(index, K=2, batch=1, G=2, read=True, seed=0, size=(6, 8)):
    """One evaluation with random numbers, all drawn from `seed`."""
    random = torch.Generator().manual_seed(1000 * seed + index)
    c = torch.randn(batch, K, *size, generator=random)
    made = {}
    if read:
        made = {
            "losses": torch.rand(batch, K, G, generator=random),
            "gradient": torch.rand(batch, K, generator=random) * 1e-3 + 1e-6,
            "maps": torch.rand(batch, K, G, 3, 4, generator=random),
        }
    return TraceStep(index, 10.0 - index, c.softmax(1), c, **made)


def fixed(index, weights):
    weights = torch.tensor(weights, dtype=torch.float32)
    return TraceStep(index, 10.0 - index, weights[None, :, None, None].expand(1, len(weights), 6, 8))


def trace(steps=3, K=2, batch=1, phrases=PHRASES, **change):
    """Nothing is read at step 0, as in one pass."""
    made = [step(i, K, batch, len(phrases), read=i > 0) for i in range(steps)]
    return Trace(tuple(branch_names(K)), [list(phrases)] * batch, made, **change)


def command_line_report(shown: Trace) -> Report:
    objects = tuple(LayoutObject(f"object {i}", (0.1 * i, 0.1, 0.1 * i + 0.1, 0.5)) for i in range(4))
    return Report("a prompt", Layout(objects), [Picture("balanced", Image.new("RGB", (32, 24)))], shown, {"seed": "1"})


def render(shown: Trace):
    """The report by both renderers: Pillow's picture, the command line's sheet as a picture, and its page."""
    report = command_line_report(shown)
    return draw_report(shown), Image.open(io.BytesIO(sheet(report))), page(report)


@pytest.fixture
def written(monkeypatch):
    """All texts that Pillow writes."""
    texts = set()
    write = ImageDraw.ImageDraw.text

    def recording(draw, xy, text, *args, **kwargs):
        texts.add(text)
        return write(draw, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recording)
    return texts


# a step that is evaluated more than once


def test_last_evaluation_of_a_step_counts():
    own = [step(0, read=False), step(1), step(1, read=False, seed=5), step(2)]
    shown = Trace(("fidelity", "spatial"), steps=own)
    assert [found.index for found in shown.by_step] == [0, 1, 2]
    assert shown.by_step[1].weights is own[2].weights
    assert len(shown.steps) == 4


def test_maps_of_a_step_are_those_of_the_last_evaluation_that_read_them():
    first, last = step(1), step(1, read=False, seed=5)
    read = Trace(("fidelity", "spatial"), steps=[first, last]).read_steps
    assert [(found.weights is last.weights, found.maps is first.maps) for found in read] == [(True, True)]
    again = step(1, seed=7)
    read = Trace(("fidelity", "spatial"), steps=[first, again]).read_steps
    assert [(found.losses is again.losses, found.maps is again.maps) for found in read] == [(True, True)]


class Branch:
    """Denoises to half of x; its loss is smaller the lower the noise."""

    def __init__(self, name):
        self.name = name

    def acts_at(self, sigma):
        return True

    def moved(self, x, sigma):
        return x

    def denoise(self, x, sigma):
        return x / 2

    def denoise_with_gradient(self, x, sigma):
        return x / 2, Gradient(torch.ones_like(x), torch.full((1, 1), sigma / 10), torch.rand(1, 1, 3, 4))


def test_sampler_that_evaluates_its_second_step_twice_has_each_step_once():
    sigmas = [8.0, 4.0, 2.0, 1.0, 0.0]
    balancer = Balancer(
        [Branch(name) for name in branch_names(2)], sigmas, [0], torch.ones(1, 6, 8), BalanceSettings(t1=1.0)
    )
    plms(balancer, torch.ones(1, 4, 6, 8), sigmas)
    assert [own.index for own in balancer.trace.steps] == [0, 1, 1, 2, 3]
    report = TraceReport(balancer.trace)
    assert [own.index for own in balancer.trace.by_step] == [0, 1, 2, 3]
    assert report.step_names == ["step 1", "step 2", "step 3"]
    assert report.losses().curves[0].values == pytest.approx([0.4, 0.2, 0.1])


def test_report_has_one_column_for_a_step_that_is_evaluated_twice():
    own = [step(0), step(1), step(1, seed=5), step(2)]
    shown = Trace(("fidelity", "spatial"), [PHRASES], own)
    report = TraceReport(shown)
    assert report.step_names == ["step 0", "step 1", "step 2"]
    assert report.losses().curves[0].values[1] == pytest.approx(float(own[2].losses[0, 0, 0]))
    expected = colorize(own[2].weights[0, 1].numpy(), ("#542788", "#f7f7f7", "#b35806"))
    np.testing.assert_array_equal(report.weights()[0].pictures[1], expected)


# what is shown


def test_steps_are_counted_from_0_in_every_rendering(written):
    shown = Trace(("fidelity", "spatial"), [PHRASES], [step(0), step(1)])
    _, _, html = render(shown)
    assert {"step 0", "step 1"} <= written and "step 2" not in written
    assert "step 0" in html and "step 2" not in html


def test_columns_are_the_steps_that_were_read_evenly_spaced():
    assert TraceReport(trace(5)).step_names == [f"step {i}" for i in (1, 2, 3, 4)]
    names = TraceReport(trace(51)).step_names
    assert len(names) == 8 and (names[0], names[-1]) == ("step 1", "step 50")
    only_weights = Trace(("fidelity", "spatial"), steps=[fixed(i, [0.5, 0.5]) for i in range(3)])
    assert TraceReport(only_weights).step_names == ["step 0", "step 1", "step 2"]


def test_caption_says_what_was_done_in_which_steps():
    own = [fixed(0, [0, 1]), fixed(1, [0, 1]), step(2), step(3), step(4), fixed(5, [1, 0]), fixed(6, [0.4, 0.6])]
    caption = TraceReport(Trace(("fidelity", "spatial"), [PHRASES], own)).weights_caption
    assert "Steps 0, 1: the spatial branch alone. Steps 2 to 4: balanced. Step 5: the fidelity branch alone." in caption
    assert caption.endswith("Step 6: given weights.")


def test_objects_that_share_a_map_have_the_first_ones_colour_and_their_number(written):
    shown = trace(objects=[[[0, 1], [2]]])
    first, second = TraceReport(shown).objects
    assert (first.label, second.label) == ("a small yellow triangle ×2", "a large purple star")
    assert first.color == "#e43c32" and second.color == "#1e9646"
    report = command_line_report(shown)
    assert report.boxes(0) == [item.box for item in report.layout.objects[:2]]
    assert report.boxes(1) == [report.layout.objects[2].box]
    draw_report(shown)
    assert "a small yellow triangle x2" in written


def test_three_branches_have_a_row_each_and_colours_and_strokes_of_their_own():
    shown = trace(K=3)
    report = TraceReport(shown)
    assert [row.label for row in report.weights()] == ["spatial 1", "spatial 2"]
    assert [row.label for row in report.attention(0)] == ["fidelity", "spatial 1", "spatial 2"]
    curves = report.gradients().curves
    assert len({curve.color for curve in curves}) == len({curve.dashes for curve in curves}) == 3


def test_both_renderings_have_the_same_words(written):
    K = 3
    shown = trace(K=K, phrases=["a corgi", *PHRASES])
    report = TraceReport(shown)
    _, _, html = render(shown)
    assert all(f"<span>{name}</span>" in html and name in written for name in branch_names(K))
    plots = report.losses(), report.gradients()
    words = [report.weights_title, *report.weight_ends, *report.step_names, *(plot.title for plot in plots)]
    words += [key.label for plot in plots for group in plot.legend for key in group]
    assert len(words) == len(plots) + 3 + len(report.columns) + 3 + 2 * K
    for text in words:
        assert text in written and text in html


def test_usual_names_are_whole_in_both_legends(written):
    phrases = ["a small yellow triangle", "a golden retriever with a red scarf", "three tall glasses of orange juice"]
    shown = trace(phrases=phrases)
    assert set(phrases) <= {key.label for row in legend_rows(TraceReport(shown).losses()) for key in row}
    draw_report(shown)
    assert set(phrases) <= written


def test_a_name_longer_than_the_plot_is_cut_and_stays_in_the_picture(written):
    shown = trace(phrases=["a very " * 60 + "long phrase"])
    assert [key.label[-1] for row in legend_rows(TraceReport(shown).losses())[:1] for key in row] == ["…"]
    draw_report(shown)
    assert any(text.endswith("…") and len(text) > 40 for text in written)


def test_curves_have_the_objects_and_the_branches_colours():
    pixels = np.asarray(draw_report(trace())).reshape(-1, 3)
    wanted = [color_of(0), color_of(1), *(tuple(bytes.fromhex(color[1:])) for color in BRANCHES[:2])]
    for color in wanted:
        assert (pixels == color).all(-1).any(), color


def test_a_single_step_is_drawn_as_dots():
    shown = Trace(("fidelity", "spatial"), [PHRASES], [step(1)])
    assert [curve.dots for curve in TraceReport(shown).losses().curves] == [[0]] * 4
    picture, _, _ = render(shown)
    assert (np.asarray(picture).reshape(-1, 3) == color_of(0)).all(-1).any()


def test_a_gradient_of_0_is_a_gap_and_the_axis_has_whole_decades():
    shown = trace()
    shown.steps[2].gradient[0, 0] = 0
    plot = TraceReport(shown).gradients()
    assert math.isnan(plot.curves[0].values[1]) and plot.logarithmic
    powers = [math.log10(plot.low), math.log10(plot.high)]
    assert powers == pytest.approx([round(power) for power in powers]) and powers[0] < powers[1]
    draw_report(shown)


# what is missing


def test_trace_without_steps_is_its_note(written):
    shown = Trace(("fidelity", "spatial"), note="nothing was sampled: denoise is 0")
    picture, drawn, html = render(shown)
    assert shown.note in written and shown.note in html
    assert picture.height < 300 and "Weight" not in html and drawn.width > 0
    assert len(draw_reports(shown)) == 1
    assert "no steps" in TraceReport(Trace(("fidelity", "spatial"))).note


def test_no_trace_is_refused():
    with pytest.raises(RealCompoError, match="trace is None"):
        draw_report(None)
    with pytest.raises(RealCompoError, match="trace is None"):
        sheet(command_line_report(None))


def test_numbers_that_are_none_are_named_in_the_note(written):
    shown = trace(6)
    shown.steps[0].weights[0, :, :2] = NAN
    shown.steps[2].losses[0, 1, 0] = float("inf")
    shown.steps[2].maps[0, 1, 0] = float("inf")
    for i in (3, 4, 5):
        shown.steps[i].gradient[0, 0] = NAN
    note = TraceReport(shown).note
    assert "weights in step 0" in note and "losses of spatial in step 2" in note
    assert "gradient of fidelity in steps 3 to 5" in note
    _, _, html = render(shown)
    assert note in html and "NaN" in " ".join(written)


def test_nothing_but_nan_leaves_the_weights():
    shown = trace()
    for own in shown.steps[1:]:
        for values in (own.losses, own.gradient, own.maps):
            values.fill_(NAN)
    report = TraceReport(shown)
    assert not report.has_losses and "No loss of fidelity, spatial" in report.note
    _, _, html = render(shown)
    assert "Weight of the spatial branch" in html and "Gradient" not in html


def test_branches_whose_attention_was_not_read_have_no_rows():
    """So it is with the setting `sources=(1,)`."""
    shown = trace()
    for own in shown.steps[1:]:
        for values in (own.losses, own.gradient, own.maps):
            values[:, 0] = NAN
    report = TraceReport(shown)
    assert [row.label for row in report.attention(0)] == ["spatial"] and len(report.gradients().curves) == 1
    assert "No loss of fidelity" in report.note and "NaN" not in report.note
    shown.sources = (1,)  # as it was wanted
    assert TraceReport(shown).note == ""
    draw_report(shown)


def test_an_item_without_objects_has_weights_alone_and_its_sheet_the_size_of_the_others():
    shown = trace(batch=2)
    shown.phrases[1] = []
    shown.steps[2].losses[0, 0, 0] = NAN  # a note on the first sheet alone
    first, second = draw_reports(shown)
    assert first.size == second.size and TraceReport(shown, 0).note and not TraceReport(shown, 1).note
    assert not TraceReport(shown, 1).has_losses
    assert (np.asarray(second)[-200:] == 255).all() and (np.asarray(first)[-200:] != 255).any()


def moved(index, *sizes, K=2):
    moves = None if not sizes else torch.tensor([sizes])
    return TraceStep(index, 10.0 - index, torch.full((1, K, 6, 8), 1 / K), moves=moves)


def test_it_is_said_which_branch_moved_the_latent_in_which_steps_and_how_far():
    """Also in an evaluation of a step that is not its last, and nothing of a branch that moved nothing."""
    steps = [moved(0, 0.0, 0.25), moved(1, 0.0, 0.5), moved(1), moved(2, 0.0, 0.0), moved(3, 0.0, 0.125), moved(4)]
    sentence = TraceReport(Trace(tuple(branch_names(2)), steps=steps)).moves
    assert "of the spatial branch in steps 0, 1, 3, by 0.12 to 0.5 " in sentence and "fidelity" not in sentence
    assert TraceReport(trace()).moves == ""


def test_a_single_branch_has_its_moves_and_no_weights(written):
    shown = Trace(tuple(branch_names(1)), steps=[moved(0, 0.5, K=1), moved(1, K=1)])
    *_, text = render(shown)
    for found in (" ".join(written), text):
        assert "moved the latent of the guided branch in step 0, by 0.5 " in found
        assert "Weight" not in found


def test_nan_is_grey():
    pixels = colorize(np.array([[0.0, NAN, 1.0]]), ("#000000", "#ffffff"))[0]
    assert [tuple(pixel) for pixel in pixels] == [(0, 0, 0), (140, 145, 150), (255, 255, 255)]


def test_long_notes_are_wrapped_inside_the_picture(written):
    shown = trace(note="the layout has no objects – " * 30)
    picture = np.asarray(draw_report(shown))
    assert (picture[:, -20:] == 255).all()
    assert ascii_text("“–”") == '"-"'


def test_attention_has_the_colours_of_the_viewer():
    assert ATTENTION_COLORS == PALETTES[View().palette]
