"""Segmentation pictures from layouts, and layouts from them and from masks of class numbers."""

import itertools
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from realcompo_core import errors
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.segmentation import (
    ADE20K,
    UnknownClassError,
    class_of,
    draw_segmentation,
    from_colour_map,
    from_index_mask,
    own_name,
    parse_classes,
    parse_indices,
    parse_phrases,
)
from shapescenes import data
from shapescenes.palette import PALETTE

SKY, TREE, ROAD, PERSON, CAR = (6, 230, 230), (4, 200, 3), (140, 140, 140), (150, 5, 61), (0, 102, 200)
STREET = Layout(
    (
        LayoutObject("a red car", (0.25, 0.5, 0.75, 0.75)),
        LayoutObject("the blue sky", (0, 0, 1, 0.5)),
        LayoutObject("a road", (0, 0.5, 1, 1)),
    )
)


def ade(phrase):
    return own_name(class_of(phrase, ADE20K))


@pytest.mark.parametrize(
    ("index", "name", "colour"),
    [
        (1, "wall", (120, 120, 120)),
        (2, "building", (180, 120, 120)),
        (3, "sky", SKY),
        (4, "floor", (80, 50, 50)),
        (5, "tree", TREE),
        (7, "road", ROAD),
        (13, "person", PERSON),
        (21, "car", CAR),
        (67, "flower", (255, 0, 0)),
        (81, "bus", (255, 0, 245)),
        (127, "animal", (255, 0, 122)),
        (133, "sculpture", (255, 255, 0)),
        (149, "clock", (102, 255, 0)),
        (150, "flag", (92, 0, 255)),
    ],
)
def test_classes_of_ade20k(index, name, colour):
    names, found = list(ADE20K.items())[index - 1]
    assert (own_name(names), found) == (name, colour)


def test_ade20k_has_150_classes_and_one_colour_twice():
    assert len(ADE20K) == 150 and (0, 0, 0) not in ADE20K.values()
    same = [{own_name(a), own_name(b)} for (a, x), (b, y) in itertools.combinations(ADE20K.items(), 2) if x == y]
    assert same == [{"road", "skyscraper"}]


def test_every_name_finds_its_own_class():
    names = [(name, names) for names in ADE20K for name in names.split(";")]
    assert len(dict(names)) == len(names), "no name is of two classes"
    wrong = {name: ade(f"a {name}") for name, names in names if class_of(f"a {name}", ADE20K) != names}
    assert not wrong


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("a person", "person"),
        ("people", "person"),
        ("four friends", "person"),
        ("two old men", "person"),
        ("a man in a red car", "person"),
        ("a red car on the road", "car"),
        ("three buses", "bus"),
        ("a small black cat", "animal"),
        ("Corgis", "animal"),
        ("two street lamps", "streetlight"),
        ("a table lamp", "lamp"),
        ("a coffee table", "coffee table"),
        ("a wooden table", "table"),
        ("a teddy bear", "plaything"),
        ("a brown bear", "animal"),
        ("a (red car:1.3)", "car"),
        ("a trash can", "ashcan"),
        ("a tall glass building", "building"),
    ],
)
def test_class_is_that_of_the_head_noun(phrase, name):
    assert ade(phrase) == name


@pytest.mark.parametrize("phrase", ["two large red circles", "a red circle", "Red circle", "a small red circle"])
def test_plurals_and_sizes_of_shapes(phrase):
    assert class_of(phrase, PALETTE) == "red circle"


@pytest.mark.parametrize(
    ("phrase", "palette", "told"),
    [
        (
            "a pentagon",
            PALETTE,
            "'a pentagon' is none of the palette's classes: red circle, .*purple cross.*'pentagon=",
        ),
        ("a circle", PALETTE, "'a circle' is none"),
        ("a steering wheel", ADE20K, "none of the palette's 150 classes"),
        ("a benches-like thing", ADE20K, "none of the palette's 150"),
        ("a carr", ADE20K, r"near are .*'car' \(car\).*'carr="),
        ("", ADE20K, "'' is none"),
    ],
)
def test_a_phrase_of_no_class_is_refused_with_what_is_near(phrase, palette, told):
    with pytest.raises(UnknownClassError, match=told):
        class_of(phrase, palette)


def test_a_class_by_hand_comes_first_and_by_any_of_its_names():
    assert own_name(class_of("two small gizmos", ADE20K, {"a gizmo": "dog"})) == "animal"
    assert own_name(class_of("a toy car", ADE20K, {"toy car": "toy"})) == "plaything"
    assert own_name(class_of("a car", ADE20K, {"toy car": "toy"})) == "car"
    with pytest.raises(UnknownClassError, match="class 'doog'.*'dog'"):
        class_of("a gizmo", ADE20K, {"gizmo": "doog"})


def test_texts_of_phrases_classes_and_numbers():
    assert parse_phrases("a corgi=animal, a red car") == (["a corgi", "a red car"], {"a corgi": "animal"})
    assert parse_classes("corgi = dog\ngizmo=toy") == {"corgi": "dog", "gizmo": "toy"} and parse_classes(" ") == {}
    assert parse_indices("1=a cat, 12 = a dog") == {1: "a cat", 12: "a dog"}
    assert parse_indices("a cat, a dog") == ["a cat", "a dog"]
    for parse, text, told in [
        (parse_phrases, "a corgi=", "'a corgi='"),
        (parse_phrases, "a=b=c", "'a=b=c'"),
        (parse_classes, "corgi", "classes: 'corgi' has none"),
        (parse_indices, "1=a cat, a dog", "'a dog'"),
        (parse_indices, "a cat=1", "'a cat=1'"),
    ]:
        with pytest.raises(errors.LayoutFormatError, match=told):
            parse(text)
    with pytest.raises(errors.PhraseCountError, match="1 is named twice"):
        parse_indices("1=a cat, 1=a dog")


def test_street_in_the_colours_of_ade20k():
    picture = np.asarray(draw_segmentation(STREET, ADE20K, (8, 4)))
    sky, road, car = ([list(colour)] for colour in (SKY, ROAD, CAR))
    assert picture.tolist() == [sky * 8] * 2 + [road * 2 + car * 4 + road * 2, road * 8]


def test_what_no_object_covers_is_black_and_large_pictures_are_the_small_ones_enlarged():
    layout = Layout((LayoutObject("a tree", (0.25, 0, 0.5, 1)),))
    picture = np.asarray(draw_segmentation(layout, ADE20K, (2048, 512)))
    assert picture.shape == (512, 2048, 3)
    assert (picture[:, 512:1024] == TREE).all() and not picture[:, :512].any() and not picture[:, 1024:].any()


def test_an_object_smaller_than_a_pixel_is_drawn():
    layout = Layout((LayoutObject("the sky", (0, 0, 1, 1)), LayoutObject("a pole", (0.53, 0, 0.55, 1))))
    picture = np.asarray(draw_segmentation(layout, ADE20K, (8, 4)))
    assert (picture[:, 4] == (51, 0, 255)).all() and (np.delete(picture, 4, 1) == SKY).all()


def test_regions_of_poses_and_masks_are_drawn_in_their_shape():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[3, 3] = True
    layout = Layout(
        (
            LayoutObject("a tree", (0, 0, 1, 1), mask),
            LayoutObject("a gizmo", (0, 0, 1, 1), keypoints=((0.9, 0.05, 1), (0.9, 0.45, 1))),
        )
    )
    picture = np.asarray(draw_segmentation(layout, ADE20K, (40, 40), {"gizmo": "person"}))
    assert (picture[:10, :10] == TREE).all() and (picture[30:, 30:] == TREE).all()
    assert (picture[2, 36] == PERSON).all() and not picture[2, 30].any() and not picture[20, 10].any()


def test_pictures_of_shapes_are_those_that_the_bundled_controlnet_was_trained_with():
    """The rule of the training set, worked out pixel by pixel."""
    for index in range(6):
        layout = data.scene("flat", index).layout_with_masks
        expected = np.zeros((128, 128, 3), np.uint8)
        for item in sorted(layout.objects, key=lambda item: -item.mask.sum()):
            words = item.phrase.split()
            (kind,) = (kind for kind in PALETTE if set(kind.split()) <= set(words))
            expected[item.mask > 0.5] = PALETTE[kind]
        assert np.array_equal(np.asarray(draw_segmentation(layout, PALETTE, (128, 128))), expected)


def street_map(scale=1):
    """Sky above a road with a car, and a black strip at the right: 40 x 40 times `scale` pixels."""
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:20, :36], picture[20:, :36], picture[24:32, 8:20] = SKY, ROAD, CAR
    return picture.repeat(scale, 0).repeat(scale, 1)


def test_each_phrase_gets_the_mask_of_its_class_and_the_rest_is_background():
    layout = from_colour_map(street_map(), ADE20K, ["a red car", "the sky"], prompt="a red car below the sky")
    car, sky = layout.objects
    assert (car.phrase, car.box) == ("a red car", (0.2, 0.6, 0.5, 0.8))
    assert (sky.phrase, sky.box) == ("the sky", (0, 0, 0.9, 0.5))
    assert np.array_equal(car.mask, (street_map() == CAR).all(-1)) and layout.prompt == "a red car below the sky"


def test_without_phrases_every_class_is_an_object():
    layout = from_colour_map(street_map(), ADE20K)
    assert {item.phrase for item in layout.objects} == {"sky", "road", "car"}
    assert sum(item.mask.sum() for item in layout.objects) == 40 * 36


def test_a_picture_of_a_layout_gives_its_masks_back():
    layout = data.scene("flat", 1).layout_with_masks
    phrases = [item.phrase for item in layout.objects]
    assert len(set(phrases)) == len(phrases) > 1
    back = from_colour_map(np.asarray(draw_segmentation(layout, PALETTE, (128, 128))), PALETTE, phrases)
    for before, after in zip(layout.objects, back.objects, strict=True):
        assert after.phrase == before.phrase and np.array_equal(after.mask, before.mask > 0.5)


def test_the_colour_that_two_classes_share_is_what_was_asked_for():
    assert [item.phrase for item in from_colour_map(street_map(), ADE20K, "skyscrapers").objects] == ["skyscrapers"]
    with pytest.raises(
        errors.PhraseCountError, match=r"'a road' and 'a skyscraper' both have the colour \(140, 140, 140\)"
    ):
        from_colour_map(street_map(), ADE20K, ["a road", "a skyscraper"])
    with pytest.raises(errors.PhraseCountError, match="'a car' and 'a taxi' both .*of 'car'"):
        from_colour_map(street_map(), ADE20K, ["a car", "a taxi"])


def test_a_class_by_hand_for_a_phrase():
    (item,) = from_colour_map(street_map(), ADE20K, "a gizmo", classes={"a gizmo": "car"}).objects
    assert item.phrase == "a gizmo" and item.box == (0.2, 0.6, 0.5, 0.8)


def test_a_phrase_whose_class_is_not_in_the_picture_is_named():
    with pytest.raises(errors.EmptyMaskError, match=r"'a cat'.*\(255, 0, 122\).*'animal'.*sky.*road"):
        from_colour_map(street_map(), ADE20K, ["a car", "a cat"])


def test_a_colour_of_no_class_is_counted_and_its_neighbour_named():
    picture = street_map()
    picture[2:14, 2:14] = (4, 190, 3)
    with pytest.raises(
        UnknownClassError, match=r"144 pixels have the colour \(4, 190, 3\).*'tree' \(4, 200, 3\), 10 away"
    ):
        from_colour_map(picture, ADE20K)
    (tree,) = from_colour_map(picture, ADE20K, "a tree", tolerance=10).objects
    assert tree.mask.sum() == 144


def test_a_strip_as_narrow_as_a_smooth_edge_is_filled_and_a_wider_one_refused():
    picture = street_map()
    picture[:, 2:6] = (99, 99, 99)
    sky, road = from_colour_map(picture, ADE20K, ["the sky", "a road"]).objects
    assert sky.mask[:20, :36].all() and road.mask[20:, :8].all()
    picture[:, 2:7] = (99, 99, 99)
    with pytest.raises(UnknownClassError, match="200 pixels"):
        from_colour_map(picture, ADE20K)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_smoothly_enlarged_map_is_read_as_a_sharp_one(factor):
    small = Image.fromarray(street_map())
    smooth = np.asarray(small.resize((40 * factor, 40 * factor), Image.Resampling.BILINEAR))
    sharp = from_colour_map(street_map(factor), ADE20K, ["a car", "the sky", "a road"])
    read = from_colour_map(smooth, ADE20K, ["a car", "the sky", "a road"])
    for before, after in zip(sharp.objects, read.objects, strict=True):
        apart = (before.mask != after.mask).mean()
        assert apart < 0.02


def test_a_compressed_map_needs_a_tolerance():
    file = BytesIO()
    Image.fromarray(street_map(7)).save(file, "JPEG", quality=60)
    picture = np.asarray(Image.open(file))
    with pytest.raises(UnknownClassError, match="raise tolerance"):
        from_colour_map(picture, ADE20K, ["a car"])
    (car,) = from_colour_map(picture, ADE20K, ["a car"], tolerance=40).objects
    assert (car.mask != (street_map(7) == CAR).all(-1)).mean() < 0.01


def test_a_map_of_another_palette_is_refused():
    picture = np.asarray(draw_segmentation(data.scene("flat", 1).layout, PALETTE, (128, 128)))
    with pytest.raises(UnknownClassError, match="Choose the palette"):
        from_colour_map(picture, ADE20K)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (1, 4, 4, 3), (0, 4, 3)])
def test_a_picture_of_another_shape_is_refused(shape):
    with pytest.raises(errors.MaskShapeError, match="expected .height, width, 3. bytes"):
        from_colour_map(np.zeros(shape, np.uint8), ADE20K)
    with pytest.raises(errors.MaskShapeError, match="float64"):
        from_colour_map(np.zeros((4, 4, 3)), ADE20K)


INDICES = np.array([[0, 0, 3, 3], [7, 7, 3, 3]])


@pytest.mark.parametrize(
    "stored", [INDICES, INDICES.astype(np.float32), (INDICES / 255).astype(np.float32), INDICES[None]]
)
def test_numbers_of_a_mask_become_objects(stored):
    layout = from_index_mask(stored, {7: "a cat", 3: "a dog"}, prompt="p")
    assert [(item.phrase, item.box) for item in layout.objects] == [
        ("a cat", (0, 0.5, 0.5, 1)),
        ("a dog", (0.5, 0, 1, 1)),
    ]
    assert np.array_equal(layout.objects[0].mask, INDICES == 7) and layout.prompt == "p"


def test_phrases_in_order_are_numbers_from_1():
    layout = from_index_mask(np.array([[1.0, 2.0]]), ["a cat", "a dog"])
    assert [item.box[0] for item in layout.objects] == [0, 0.5]


def test_zeros_and_ones_are_whole_numbers():
    (item,) = from_index_mask(np.array([[0.0, 1.0]]), {1: "a cat"}).objects
    assert item.box == (0.5, 0, 1, 1)
    (item,) = from_index_mask(np.array([[1 / 255, 1.0]], np.float32), {255: "a cat"}).objects
    assert item.box == (0.5, 0, 1, 1)


@pytest.mark.parametrize(
    ("mask", "phrases", "error", "told"),
    [
        (INDICES, {5: "a cat"}, errors.EmptyMaskError, "'a cat': the mask has no 5, only 0, 3, 7"),
        (INDICES, {}, errors.PhraseCountError, "0, 3, 7"),
        (np.array([[0.0, 0.5]]), ["a cat"], errors.MaskShapeError, "0.5 in row 0, column 1 is neither"),
        (np.array([[0.0, np.nan]]), ["a cat"], errors.MaskShapeError, "nan in row 0, column 1"),
        (np.zeros((2, 2, 2)), ["a cat"], errors.MaskShapeError, r"\(2, 2, 2\)"),
    ],
)
def test_bad_index_masks_are_named(mask, phrases, error, told):
    with pytest.raises(error, match=told):
        from_index_mask(mask, phrases)
