import numpy as np
import pytest
from PIL import Image, ImageDraw

from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.drawing import PAPER, draw_layout, readable_size
from realcompo_core.palettes import OBJECTS, color_of


def pixels(layout, size=(200, 200), background=None):
    return np.asarray(draw_layout(layout, size, background)).astype(int)


def is_color(picture, color):
    return (picture == color).all(-1)


def test_box_outline_is_where_the_box_is():
    outline = is_color(pixels(Layout((LayoutObject("a cat", (0.25, 0.5, 0.75, 0.9)),))), color_of(0))
    assert outline[150, 50] and outline[150, 149] and outline[179, 100]
    assert not outline[150, 47:50].any() and not outline[180:, :].any() and not outline[150, 100]


def test_objects_have_colours_of_their_own():
    assert len(set(OBJECTS)) == len(OBJECTS) >= 10
    boxes = [(0.1, 0.1, 0.4, 0.4), (0.6, 0.6, 0.9, 0.9)]
    picture = pixels(Layout(tuple(LayoutObject("a cat", box) for box in boxes)))
    assert is_color(picture, color_of(0))[:100, :100].any() and is_color(picture, color_of(1))[100:, 100:].any()


@pytest.mark.parametrize("size", [(128, 128), (512, 512), (300, 120)])
@pytest.mark.parametrize("box", [(0, 0, 0.01, 0.01), (0.99, 0, 1, 0.01), (0, 0.99, 0.01, 1), (0.99, 0.99, 1, 1)])
def test_label_of_a_tiny_box_in_a_corner_lies_inside_the_picture(monkeypatch, size, box):
    texts = []
    write = ImageDraw.ImageDraw.text

    def recording(draw, xy, text, fill=None, font=None, anchor=None):
        texts.append((text, draw.textbbox(xy, text, font, anchor)))
        write(draw, xy, text, fill, font, anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recording)
    draw_layout(Layout((LayoutObject("a speck", box),), background="a wall"), size)
    (_, caption), (label, place) = texts
    assert label == "a speck"
    assert place[0] >= 0 and place[1] >= 0 and place[2] <= size[0] and place[3] <= caption[1]


def test_long_phrase_is_cut_to_the_picture():
    picture = pixels(Layout((LayoutObject("a very " * 5000 + "long\nphrase", (0.5, 0.5, 0.6, 0.6)),)))
    assert is_color(picture, color_of(0)).any()


def test_mask_is_filled_and_the_rest_of_its_box_is_not():
    mask = np.zeros((10, 10), bool)
    mask[4:8, 4:6] = True
    picture = pixels(Layout((LayoutObject("a cat", (0.2, 0.4, 0.8, 0.8), mask),)))
    assert (picture[120, 100] != PAPER).any()
    assert (picture[120, 60] == PAPER).all()


def test_unseen_keypoints_are_not_drawn():
    points = ((0.3, 0.5, 0.9), (0.7, 0.5, 0.0))
    white = is_color(pixels(Layout((LayoutObject("a cat", (0.1, 0.3, 0.9, 0.9), keypoints=points),))), (255, 255, 255))
    assert white[100, 60] and not white[100, 140]


def test_caption_only_with_something_to_say():
    assert (pixels(Layout()) == PAPER).all()
    assert (pixels(Layout(negative="backpacks"))[-1] != PAPER).all()
    assert (pixels(Layout(negative="backpacks"))[:150] == PAPER).all()


def test_background_is_scaled_and_left_unchanged():
    photo = Image.new("RGB", (37, 53), (10, 200, 30))
    picture = pixels(Layout((LayoutObject("a cat", (0.5, 0.5, 0.9, 0.9)),)), (120, 80), photo)
    assert picture.shape == (80, 120, 3)
    assert tuple(picture[10, 10]) == (10, 200, 30)
    assert photo.size == (37, 53) and photo.getextrema() == ((10, 10), (200, 200), (30, 30))


@pytest.mark.parametrize(
    "size, readable",
    [((128, 128), (512, 512)), ((192, 128), (768, 512)), ((512, 512), (512, 512)), ((1024, 300), (1024, 300))],
)
def test_small_pictures_are_drawn_at_a_whole_multiple_of_their_size(size, readable):
    assert readable_size(size) == readable


def test_label_covers_little_of_the_picture_of_a_small_latent():
    """At 128 pixels a label was as wide as its box and hid those beside it."""
    layout = Layout(
        (LayoutObject("a red circle", (0.1, 0.3, 0.4, 0.6)), LayoutObject("a blue square", (0.6, 0.3, 0.9, 0.6)))
    )
    picture = pixels(layout, readable_size((128, 128)))
    for index in (0, 1):
        assert is_color(picture, color_of(index)).mean() < 0.02
