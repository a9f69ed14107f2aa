"""Scores of the benchmarks: against plain loops over random detections, and against values by hand."""

import json
import math
import statistics
from collections import Counter

import numpy as np
import pytest

from realcompo_core.bench.geneval import COLOURS, POSITIONS, GenEval, colour_texts, positions
from realcompo_core.bench.geneval2 import SKILLS, GenEval2, geometric_mean
from realcompo_core.bench.multigen import MultiGen
from realcompo_core.bench.own_prompts import OwnPrompts
from realcompo_core.bench.scores import Metric, Picture, Scores, mean_over_rounds
from realcompo_core.bench.seen import Detection, Seen
from realcompo_core.bench.t2i_compbench import T2ICompBench, iou, position, same_object
from realcompo_core.bench.visor import Visor
from shapescenes import judge
from shapescenes.benchmark import KINDS, ShapeScenes, scene_of, scenes_file

SEEDS = range(5)
CELL = 20  # pixels: edges of random boxes are on this grid, so that centres and edges often coincide
SIZES = ((480, 480), (1024, 480), (480, 768))
CLASSES = ("cat", "dog", "cup", "kite", "boat", "bed", "cow")


def look(*detections, size=(480, 480), **models):
    """What is seen in a picture. detections: (name, box, score) or (name, box, score, colour)."""
    return Seen(*size, tuple(Detection(*d) for d in detections), **models)


def at(x, y, side=20):
    """A square box with this centre."""
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def random_box(rng):
    x, y, width, height = rng.integers((0, 0, 1, 1), (16, 16, 9, 9))
    return tuple(float(CELL * edge) for edge in (x, y, x + width, y + height))


def random_detections(rng, names, thresholds, most=3, colours=("",)):
    """Up to `most` of each name; some scores are thresholds."""
    found = []
    for name in names:
        for _ in range(rng.integers(most + 1)):
            score = rng.choice(thresholds) if rng.random() < 0.2 else rng.random()
            found.append(Detection(name, random_box(rng), float(score), str(rng.choice(colours))))
    return [found[i] for i in rng.permutation(len(found))]


def random_run(rng, prompts, see, pictures=4):
    """A run in which some pictures are missing. see(prompt): what is seen in a picture of it."""
    places = [Picture(index, number) for index in prompts for number in range(pictures)]
    return {place: see(prompts[place.index]) for place in places if rng.random() < 0.9}


def parsed(benchmark, records):
    return {i: benchmark.parse(i, record) for i, record in enumerate(records)}


def named(scores):
    """All metrics and details by their names."""
    return {m.name: m for group in (scores.metrics, *scores.groups.values()) for m in group}


def values(scores):
    return {m.name: m.value for m in scores.metrics}


def agree(metric, expected, scale=100, rounds=True):
    """That a metric is the mean of `expected`, by pictures, and its ± the spread of the rounds' means."""
    assert metric.count == len(expected)
    assert metric.value == pytest.approx(scale * sum(expected.values()) / len(expected), abs=1e-9)
    numbers = {picture.number for picture in expected}
    if not rounds or len(numbers) == 1:
        assert metric.std is None
        return
    means = [statistics.fmean(v for p, v in expected.items() if p.number == number) for number in numbers]
    assert metric.std == pytest.approx(scale * statistics.pstdev(means), abs=1e-9)


def agree_by_class(group, names, has):
    """The share of pictures that show each class, of those that should. names, has: by pictures."""
    wanted = {name for own in names.values() for name in own}
    assert {m.name for m in group} == wanted
    for metric in group:
        shown = [metric.name in has[p] for p, own in names.items() if metric.name in own]
        assert (metric.count, metric.value) == (len(shown), pytest.approx(100 * sum(shown) / len(shown)))
    assert [m.value for m in group] == sorted((m.value for m in group), reverse=True)


def detected(one, threshold):
    there = set()
    for d in one.detections:
        if d.score > threshold:
            there.add(d.name)
    return there


def multigen_record(names):
    attributes = {f"obj_{i}_attributes": [name] for i, name in enumerate(names, 1)}
    return {"text": f"a photo of {', '.join(names)}", "num_objects": len(names), **attributes}


def visor_record(first, relation, second):
    return multigen_record((first, second)) | {"text": f"a {first} {relation} a {second}", "rel_type": relation}


@pytest.mark.parametrize("seed", SEEDS)
def test_multigen_on_random_detections(seed):
    rng = np.random.default_rng(seed)
    benchmark = MultiGen("COCO")
    names = [rng.choice(CLASSES, 5, replace=i % 2 == 0).tolist() for i in range(12)]
    prompts = parsed(benchmark, map(multigen_record, names))
    seen = random_run(
        rng,
        prompts,
        lambda prompt: look(*random_detections(rng, sorted({*prompt.names, "rug"}), (0.1,), most=1)),
        pictures=10,
    )
    scores = benchmark.score(prompts, seen)
    has = {p: detected(one, 0.1) for p, one in seen.items()}
    classes = {p: set(prompts[p.index].names) for p in seen}
    assert any(len(own) < 5 for own in classes.values())  # a class twice
    assert [m.name for m in scores.metrics] == ["MG2", "MG3", "MG4", "MG5"]
    for k, metric in enumerate(scores.metrics, 2):
        agree(metric, {p: len(has[p] & classes[p]) >= k for p in seen if len(classes[p]) >= k})
    agree_by_class(scores.groups["Success rate by class"], classes, has)
    assert scores.success == {p: pytest.approx(len(has[p] & classes[p]) / len(classes[p])) for p in seen}


def test_multigen_by_hand():
    """Two prompts of three classes, two pictures of each: 3 and 2, 1 and 2 of the classes are there."""
    benchmark = MultiGen("COCO")
    prompts = parsed(benchmark, [multigen_record(("cat", "dog", "cup")), multigen_record(("cat", "bed", "cow"))])
    cat, dog, cup, bed = ((name, at(50, 50), 0.5) for name in ("cat", "dog", "cup", "bed"))
    seen = {
        Picture(0, 0): look(cat, cat, dog, cup),
        Picture(1, 0): look(cat, dog, cup),
        Picture(0, 1): look(dog, cup, ("cat", at(9, 9), 0.1)),
        Picture(1, 1): look(cat, bed, bed),
    }
    scores = benchmark.score(prompts, seen)
    assert [str(m) for m in scores.metrics] == ["75.00 ± 25.00", "25.00 ± 25.00"]  # MG2: 1 of 2, 2 of 2; MG3: 1, 0
    rates = {m.name: (round(m.value, 1), m.count) for m in scores.groups["Success rate by class"]}
    assert rates == {"cup": (100, 2), "dog": (100, 2), "cat": (75, 4), "bed": (50, 2), "cow": (0, 2)}
    assert list(rates) == ["cup", "dog", "cat", "bed", "cow"]
    official = json.loads(benchmark.official(prompts, seen)["results.json"])
    assert official["0_1"] == {"classes": ["dog", "cup", "cat"], "scores": [0.5, 0.5, 0.1]}


def test_multigen_counts_up_to_the_most_classes_of_a_prompt():
    """A prompt of two classes cannot have three, and is not among those that could."""
    prompts = parsed(MultiGen("COCO"), [multigen_record(("cat", "dog")), multigen_record(("cat", "cup", "bed"))])
    everything = look(*((name, at(9, 9), 0.5) for name in CLASSES))
    scores = MultiGen("COCO").score(prompts, {Picture(0, 0): everything, Picture(1, 0): everything})
    assert {m.name: (m.value, m.count) for m in scores.metrics} == {"MG2": (100, 2), "MG3": (100, 1)}
    assert set(scores.success.values()) == {1}


def test_multigen_of_prompts_with_one_class_is_the_share_that_shows_it():
    prompts = parsed(MultiGen("COCO"), [multigen_record(("cat",))] * 4)
    seen = {Picture(i, 0): look(("cat", at(9, 9), 0.2)) if i == 3 else look() for i in prompts}
    assert values(MultiGen("COCO").score(prompts, seen)) == {"MG1": 25}


@pytest.mark.parametrize("seed", SEEDS)
def test_visor_on_random_detections(seed):
    rng = np.random.default_rng(seed)
    holds = {
        "to the left of": lambda a, b: centre(a)[0] < centre(b)[0],
        "to the right of": lambda a, b: centre(a)[0] > centre(b)[0],
        "above": lambda a, b: centre(a)[1] < centre(b)[1],
        "below": lambda a, b: centre(a)[1] > centre(b)[1],
    }
    benchmark = Visor()
    records = [visor_record(a, relation, b) for relation in holds for a, b in rng.choice(CLASSES, (8, 2)).tolist()]
    prompts = parsed(benchmark, records)
    seen = random_run(rng, prompts, lambda prompt: look(*random_detections(rng, sorted({*prompt.names}), (0.1,))))
    both, right = {}, {}
    for picture, one in seen.items():
        first, second = prompts[picture.index].names
        boxes = [[d.box for d in one.detections if d.name == name and d.score > 0.1] for name in (first, second)]
        both[picture] = min(map(len, boxes)) > 0
        right[picture] = False
        for a in boxes[0]:
            for b in boxes[1]:
                right[picture] |= holds[prompts[picture.index].record["rel_type"]](a, b)
    scores = benchmark.score(prompts, seen)
    found = named(scores)
    agree(found["OA"], both)
    agree(found["VISOR uncond"], right)
    agree(found["VISOR cond"], {p: right[p] for p in seen if both[p]}, rounds=False)
    made = Counter(p.index for p in seen)
    counts = {i: sum(right[p] for p in seen if p.index == i) for i in made if made[i] == 4}
    assert 0 < len(counts) < len(made)  # a prompt without all of its pictures has no place there
    for n in (1, 2, 3, 4):
        agree(found[f"VISOR-{n}"], {Picture(i, 0): count >= n for i, count in counts.items()})
    for relation in holds:
        of_it = {p: right[p] for p in seen if prompts[p.index].record["rel_type"] == relation}
        agree(found[relation], of_it, rounds=False)
    names = {p: set(prompts[p.index].names) for p in seen}
    agree_by_class(scores.groups["Success rate by class"], names, {p: detected(one, 0.1) for p, one in seen.items()})
    official = json.loads(benchmark.official(prompts, seen)["results.json"])
    assert {key: entry["sra"] for key, entry in official.items()} == {f"{p[0]}_{p[1]}": right[p] for p in seen}


def test_visor_by_hand():
    """Two prompts, four pictures each: of the first all show both, three are right; of the second one shows both."""
    benchmark = Visor()
    prompts = parsed(benchmark, [visor_record("cat", "to the left of", "dog"), visor_record("cup", "above", "bed")])
    dog, bed = ("dog", at(200, 50), 0.5), ("bed", at(100, 100), 0.5)
    seen = {
        Picture(0, 0): look(dog, ("cat", at(100, 300), 0.5)),
        Picture(0, 1): look(dog, ("cat", at(199, 50), 0.5)),  # a pixel is enough
        Picture(0, 2): look(dog, ("cat", at(200, 50), 0.5)),  # right above: not to the left
        Picture(0, 3): look(dog, ("cat", at(300, 50), 0.5), ("cat", at(100, 50), 0.2)),  # one pair of several
        Picture(1, 0): look(bed, ("cup", at(100, 200), 0.9)),
        Picture(1, 1): look(bed, ("cup", at(100, 20), 0.1)),  # no more than the threshold
        Picture(1, 2): look(bed),
        Picture(1, 3): look(),
    }
    scores = benchmark.score(prompts, seen)
    assert values(scores) == {
        "OA": 62.5,
        "VISOR uncond": 37.5,
        "VISOR cond": 60,
        "VISOR-1": 50,
        "VISOR-2": 50,
        "VISOR-3": 50,
        "VISOR-4": 0,
    }
    by_relation = {m.name: (m.value, m.count) for m in scores.groups["VISOR uncond by relation"] if m.count}
    assert by_relation == {"to the left of": (75, 4), "above": (0, 4)}
    assert [scores.success[p] for p in seen] == [1, 1, 0.5, 1, 0.5, 0, 0, 0]
    entry = json.loads(benchmark.official(prompts, seen)["results.json"])["0_3"]
    assert (entry["classes"], entry["recall"], entry["sra"]) == (["dog", "cat", "cat"], 2, 1)
    assert entry["centroid"] == [[200, 50], [300, 50], [100, 50]]


PAIRS = (
    ("a dog on the left of a cat", "dog", "on the left of", "cat"),
    ("a cup on the right of a bed", "cup", "on the right of", "bed"),
    ("a cat on the top of a bed", "cat", "on the top of", "bed"),
    ("a boat on the bottom of a kite", "boat", "on the bottom of", "kite"),
    ("a girl near a cow", "person", "near", "cow"),
    ("a cup next to a cat", "cup", "next to", "cat"),
    ("a dog on side of a man", "dog", "on side of", "person"),
)


def cells(box):
    """The cells of the grid that a random box covers."""
    x0, y0, x1, y1 = (round(edge / CELL) for edge in box)
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


def slow_position(place, box, other, longer):
    (ax, ay), (bx, by) = centre(box), centre(other)
    if place in ("near", "next to", "on side of"):
        limit = longer * 150 / 480
        return 1.0 if abs(ax - bx) < limit or abs(ay - by) < limit else limit / max(abs(ax - bx), abs(ay - by))
    right = {
        "on the left of": bx - ax > abs(ay - by),
        "on the right of": ax - bx > abs(ay - by),
        "on the top of": by - ay > abs(ax - bx),
        "on the bottom of": ay - by > abs(ax - bx),
    }
    overlap = len(cells(box) & cells(other)) / len(cells(box) | cells(other))
    return right[place] * (1.0 if overlap < 0.1 else 0.1 / overlap)


def slow_spatial(first, place, second, one):
    surest = {}
    for d in one.detections:
        if d.name in (first, second) and d.score > max(0.5, surest[d.name].score if d.name in surest else 0):
            surest[d.name] = d
    score = sum(d.score for d in surest.values()) / 4
    if len(surest) == 2:
        score += slow_position(place, surest[first].box, surest[second].box, max(one.width, one.height)) / 2
    return score if score >= 0.5 else 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_spatial_and_object_accuracy_on_random_detections(seed):
    rng = np.random.default_rng(seed)
    benchmark = T2ICompBench("spatial")
    prompts = parsed(benchmark, [pair[0] for pair in PAIRS] * 5)

    def see(prompt):
        found = random_detections(rng, prompt.names, (0.1, 0.5), most=2)
        return look(*(d._replace(score=d.score**0.3) if d.score > 0.5 else d for d in found), size=rng.choice(SIZES))

    seen = random_run(rng, prompts, see)
    expected = {p: slow_spatial(*PAIRS[p.index % len(PAIRS)][1:], one) for p, one in seen.items()}
    scores = benchmark.score(prompts, seen)
    agree(named(scores)["2D-spatial"], expected, scale=1)
    assert scores.success == pytest.approx(expected)
    everything = {p: {*PAIRS[p.index % len(PAIRS)][1::2]} <= detected(one, 0.1) for p, one in seen.items()}
    agree(named(scores)["object accuracy"], everything)
    conditional = {p: v for p, v in expected.items() if everything[p]}
    agree(named(scores)["2D-spatial, all objects detected"], conditional, scale=1, rounds=False)
    assert scores.missing == ()


@pytest.mark.parametrize(
    ("place", "box", "other", "expected"),
    [
        ("on the left of", at(100, 100), at(200, 199), 1),
        ("on the left of", at(100, 100), at(200, 200), 0),  # as far below
        ("on the left of", at(200, 100), at(100, 100), 0),
        ("on the right of", at(200, 100), at(100, 100), 1),
        ("on the top of", at(100, 100), at(100, 200), 1),
        ("on the bottom of", at(100, 100), at(100, 200), 0),
        ("on the left of", (0, 0, 100, 100), (50, 0, 150, 100), 0.3),  # IoU 1/3
        ("near", at(0, 0), at(149, 400), 1),
        ("near", at(0, 0), at(150, 300), 0.5),
        ("next to", at(0, 0), at(150, 150), 1),
        ("on side of", at(0, 0), at(200, 400), 0.375),
        ("on top of", at(100, 100), at(100, 200), 0),  # no place to the official code
        (None, at(100, 100), at(100, 200), 0),
    ],
)
def test_position_by_hand(place, box, other, expected):
    assert position(place, box, other, 480) == pytest.approx(expected)


def test_position_on_random_boxes():
    rng = np.random.default_rng(0)
    partial = 0
    for place in ("on the left of", "on the right of", "on the top of", "on the bottom of", "near") * 300:
        box, other = random_box(rng), random_box(rng)
        expected = slow_position(place, box, other, 480)
        assert position(place, box, other, 480) == pytest.approx(expected)
        assert iou(box, other) == pytest.approx(len(cells(box) & cells(other)) / len(cells(box) | cells(other)))
        partial += 0 < expected < 1
    assert partial > 50


def test_near_is_measured_in_the_longer_side_of_the_picture():
    assert position("near", at(0, 0), at(319, 900), 1024) == 1
    assert position("near", at(0, 0), at(320, 640), 1024) == pytest.approx(0.5)


def test_boxes_without_area_do_not_overlap():
    assert iou((5, 5, 5, 5), (5, 5, 5, 5)) == 0 and iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert position("on the left of", (5, 5, 5, 5), (9, 5, 9, 5), 480) == 1


def test_spatial_by_hand():
    benchmark = T2ICompBench("spatial")
    prompts = parsed(benchmark, ["a dog on the left of a cat"] * 6)
    cat = ("cat", at(300, 100), 0.6)
    seen = {
        Picture(0, 0): look(cat, ("dog", at(100, 100), 0.8)),  # 0.25 · 1.4 + 0.5
        Picture(1, 0): look(cat, ("dog", at(400, 100), 0.8)),  # 0.35, below a half
        Picture(2, 0): look(cat, ("dog", at(400, 100), 0.8), ("dog", at(100, 100), 0.7)),  # the surest is wrong
        Picture(3, 0): look(cat, ("dog", at(100, 100), 0.5)),  # no more than the threshold
        Picture(4, 0): look(cat, ("dog", (250, 50, 350, 150), 1.0)),
        Picture(5, 0): look(("cat", at(300, 100), 1.0), ("dog", at(400, 100), 1.0)),  # 0.5 without the position
    }
    scores = benchmark.score(prompts, seen)
    assert list(scores.success.values()) == pytest.approx([0.85, 0, 0, 0, 0, 0.5])
    assert values(scores)["2D-spatial"] == pytest.approx(1.35 / 6)
    assert values(scores)["object accuracy"] == 100


NUMBERED = (
    ("three cats and two dogs", {"cat": 3, "dog": 2}),
    ("a girl and four boats", {"person": 1, "boat": 4}),
    ("two goldfish, one cup and three kites", {"fish": 2, "cup": 1, "kite": 3}),
)


def pixels(box):
    """(480, 480): which pixels a box covers, those of its edges too."""
    x0, y0, x1, y1 = (round(edge) for edge in box)
    there = np.zeros((480, 480), bool)
    there[y0 : y1 + 1, x0 : x1 + 1] = True
    return there


def slow_count(detections):
    kept = []
    for d in sorted(detections, key=lambda d: d.score, reverse=True):
        own = pixels(d.box)
        overlaps = [(own & other).sum() / area.sum() for other in kept for area in (own, other, own | other)]
        if max(overlaps, default=0) <= 0.9:
            kept.append(own)
    return len(kept)


@pytest.mark.parametrize("seed", SEEDS)
def test_numeracy_on_random_detections(seed):
    rng = np.random.default_rng(seed)
    benchmark = T2ICompBench("numeracy")
    prompts = parsed(benchmark, [text for text, _ in NUMBERED] * 4)

    def see(prompt):
        found = []
        for name, count in NUMBERED[prompt.index % len(NUMBERED)][1].items():
            for _ in range(max(0, count + rng.integers(-1, 2))):
                d = Detection(name, tuple(min(v, 470) for v in random_box(rng)), float(0.45 + 0.55 * rng.random()))
                found.append(d)
                if rng.random() < 0.3:  # the same object once more
                    box = tuple(v + shift for v, shift in zip(d.box, rng.integers(0, 4, 4), strict=True))
                    found.append(d._replace(box=box, score=float(0.45 + 0.55 * rng.random())))
        return look(*found)

    seen = random_run(rng, prompts, see)
    expected, twice = {}, 0
    for picture, one in seen.items():
        wanted = NUMBERED[picture.index % len(NUMBERED)][1]
        sure = {name: [d for d in one.detections if d.name == name and d.score > 0.5] for name in wanted}
        counts = {name: slow_count(found) for name, found in sure.items()}
        twice += sum(counts[name] < len(found) for name, found in sure.items())
        points = [0 if counts[name] == 0 else 1 if counts[name] == n else 0.5 for name, n in wanted.items()]
        expected[picture] = sum(points) / len(points)
    assert twice > 10
    agree(named(benchmark.score(prompts, seen))["numeracy"], expected, scale=1)


def test_numeracy_by_hand():
    benchmark = T2ICompBench("numeracy")
    prompts = parsed(benchmark, ["three cats and two dogs"] * 5)
    cats = [("cat", at(x, 100), 0.9) for x in (50, 150, 250)]
    dogs = [("dog", at(x, 300), 0.9) for x in (50, 150)]
    seen = {
        Picture(0, 0): look(*cats, *dogs),
        Picture(1, 0): look(*cats, *dogs, ("dog", at(150, 300), 0.6)),  # the same dog once more
        Picture(2, 0): look(*cats, *dogs, ("dog", at(250, 300), 0.6)),
        Picture(3, 0): look(*cats[:2], ("cat", at(250, 100), 0.5)),
        Picture(4, 0): look(*cats, *dogs, ("cat", (250, 100, 253, 104), 0.6)),  # inside a surer cat
    }
    scores = benchmark.score(prompts, seen)
    assert list(scores.success.values()) == [1, 1, 0.75, 0.25, 1]
    assert values(scores)["numeracy"] == 0.8 and values(scores)["object accuracy"] == 80
    assert values(scores)["numeracy, all objects detected"] == pytest.approx(3.75 / 4)


def test_boxes_are_of_one_object_where_either_is_inside_the_other():
    assert same_object((0, 0, 99, 99), (0, 0, 9, 9))  # a hundredth of the larger one
    assert same_object((0, 0, 99, 99), (9, 0, 108, 99))  # 91 of 100 columns
    assert not same_object((0, 0, 99, 99), (10, 0, 109, 99))  # 90 of 100
    assert not same_object((0, 0, 9, 9), (20, 20, 29, 29))
    assert not same_object((0, 0, 0, 99), (50, 0, 50, 99)) and not same_object((0, 0, 99, 0), (0, 50, 99, 50))


@pytest.mark.parametrize("category", ["color", "shape", "texture"])
def test_blip_vqa_on_random_answers(category):
    rng = np.random.default_rng(len(category))
    benchmark = T2ICompBench(category)
    prompts = parsed(benchmark, ["a red cat and a blue dog", "a cup", "a bed, a cow, a kite and a round boat"] * 4)
    nouns = ({"cat", "dog"}, {"cup"}, {"bed", "cow", "kite", "boat"})

    def see(prompt):
        answers = {question: float(rng.random()) for question in benchmark.wanted(prompt).questions}
        return look(*random_detections(rng, prompt.names, (0.1,), most=1), answers=answers)

    seen = random_run(rng, prompts, see)
    expected = {}
    for picture, one in seen.items():
        assert len(one.answers) == len(nouns[picture.index % 3])
        product = 1.0
        for answer in one.answers.values():
            product *= answer
        expected[picture] = product
    found = named(benchmark.score(prompts, seen))
    everything = {p: nouns[p.index % 3] <= detected(one, 0.1) for p, one in seen.items()}
    agree(found["BLIP-VQA"], expected, scale=1)
    agree(found["object accuracy"], everything)
    conditional = {p: v for p, v in expected.items() if everything[p]}
    agree(found["BLIP-VQA, all objects detected"], conditional, scale=1, rounds=False)


def test_blip_vqa_by_hand():
    benchmark = T2ICompBench("color")
    prompts = parsed(benchmark, ["A red cat and a blue dog on the left."])
    assert benchmark.wanted(prompts[0]).questions == (("A red cat?", "yes"), ("a blue dog?", "yes"))
    answers = {("A red cat?", "yes"): 0.5, ("a blue dog?", "yes"): 0.8}
    cat, dog = ("cat", at(9, 9), 0.2), ("dog", at(50, 9), 0.1)
    seen = {Picture(0, 0): look(cat, dog, answers=answers), Picture(0, 1): look(cat, answers=answers | {dog[:2]: 0})}
    scores = benchmark.score(prompts, seen)
    assert values(scores)["BLIP-VQA"] == pytest.approx(0.4)
    assert values(scores)["object accuracy"] == 0 and math.isnan(values(scores)["BLIP-VQA, all objects detected"])


def test_blip_vqa_asks_for_eight_chunks_at_most():
    benchmark = T2ICompBench("color")
    text = "a red cat, a dog, a cup, a kite, a boat, a bed, a cow, a spoon and a green fork"
    questions = benchmark.wanted(benchmark.parse(0, text)).questions
    assert [q for q, _ in questions] == [f"{chunk}?" for chunk in text.replace(" and", ",").split(", ")[:8]]


def test_clip_score_is_the_mean_likeness_to_the_whole_line():
    benchmark = T2ICompBench("non_spatial")
    text = "A girl is feeding a cow."
    prompts = parsed(benchmark, [text])
    assert benchmark.wanted(prompts[0]).texts == (text,)
    girl, cow = ("person", at(9, 9), 0.2), ("cow", at(50, 9), 0.2)
    seen = {
        Picture(0, 0): look(girl, cow, likeness={text: 0.3}),
        Picture(0, 1): look(cow, likeness={text: 0.1}),
    }
    scores = benchmark.score(prompts, seen)
    assert str(scores.metrics[0]) == "0.2000 ± 0.1000"
    assert values(scores)["CLIPScore, all objects detected"] == 0.3 and values(scores)["object accuracy"] == 50


COMPLEX = (
    ("The red cat sat next to the small dog.", "spatial", ("cat", "dog"), "The cat sat next to the dog ."),
    ("The old man carried a heavy cup.", "action", None, "The man carried a cup ."),
    (
        "The black cow ran to the blue boat near the kite.",
        None,
        ("boat", "kite"),
        "The cow ran to the boat near the kite .",
    ),
    ("The bright kite flew over the green bed.", None, None, "The kite flew over the bed ."),
)


@pytest.fixture
def complex_prompts(tmp_path):
    """The benchmark and its prompts, whose lists are beside the file, in other letters."""
    (tmp_path / "complex_val.txt").write_text("\r\n".join(text for text, *_ in COMPLEX))
    for about in ("spatial", "action"):
        lines = [text.upper() for text, kind, *_ in COMPLEX if kind == about]
        (tmp_path / f"complex_val_{about}.txt").write_text("\n".join(["The sky is blue.", *lines]) + "\n")
    benchmark = T2ICompBench.of_file(tmp_path / "complex_val.txt")
    file = benchmark.read(tmp_path / "complex_val.txt")
    assert file.problems == ()
    return benchmark, {prompt.index: prompt for prompt in file.prompts}


def test_three_in_one_on_random_models(complex_prompts):
    rng = np.random.default_rng(0)
    benchmark, prompts = complex_prompts

    def see(prompt):
        wanted = benchmark.wanted(prompt)
        assert wanted.texts == (COMPLEX[prompt.index][3],)
        return look(
            *(d._replace(score=d.score**0.2) for d in random_detections(rng, prompt.names, (0.5,))),
            answers={question: float(rng.random()) for question in wanted.questions},
            likeness={text: float(rng.random()) for text in wanted.texts},
        )

    seen = random_run(rng, prompts, see, pictures=30)
    expected = {}
    for picture, one in seen.items():
        _, about, pair, text = COMPLEX[picture.index]
        parts = [math.prod(one.answers.values())]
        if about != "action":
            place = {0: "next to", 2: "near"}.get(picture.index)
            parts.append(slow_spatial(pair[0], place, pair[1], one) if pair else 0)
        if about != "spatial":
            parts.append(one.likeness[text])
        expected[picture] = statistics.fmean(parts)
    assert {p.index for p, v in expected.items() if v > 0.5}
    agree(named(benchmark.score(prompts, seen))["3-in-1"], expected, scale=1)


def test_a_complex_prompt_of_both_lists_is_one_of_spatial(complex_prompts, tmp_path):
    (tmp_path / "complex_val_action.txt").write_text(COMPLEX[0][0])
    benchmark, _ = complex_prompts
    file = benchmark.read(tmp_path / "complex_val.txt")
    assert [p.record["about"] for p in file.prompts] == ["spatial", "both", "both", "both"]


def test_absent_lists_of_complex_prompts_are_told(tmp_path):
    (tmp_path / "complex_val.txt").write_text("The red cat sat next to the small dog.")
    file = T2ICompBench("complex").read(tmp_path / "complex_val.txt")
    assert {p.where for p in file.problems} == {"complex_val_spatial.txt", "complex_val_action.txt"}
    assert file.prompts[0].record["about"] == "both"


def clause(name, count=1, **others):
    return {"class": name, "count": count, **others}


def geneval_record(tag, *include, exclude=()):
    record = {"tag": tag, "prompt": f"a photo of {tag}", "include": list(include)}
    return record | ({"exclude": list(exclude)} if exclude else {})


def random_geneval(rng, tag):
    a, b = (str(name) for name in rng.choice(CLASSES, 2, replace=False))
    colour, other = (str(c) for c in rng.choice(COLOURS[:2], 2))
    n = int(rng.integers(1, 4))
    return {
        "single_object": lambda: geneval_record(tag, clause(a)),
        "two_object": lambda: geneval_record(tag, clause(a), clause(b)),
        "counting": lambda: geneval_record(tag, clause(a, n), exclude=[clause(a, n + 1)]),
        "colors": lambda: geneval_record(tag, clause(a, n, color=colour)),
        "position": lambda: geneval_record(
            tag, clause(a, n), clause(b, int(rng.integers(1, 3)), position=[str(rng.choice(POSITIONS)), 0])
        ),
        "color_attr": lambda: geneval_record(tag, clause(a, color=colour), clause(b, color=other)),
    }[tag]()


TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


def slow_positions(box, other):
    """By the angle between the centres, with what lies beyond a tenth of the sides together."""
    (ax, ay), (bx, by) = centre(box), centre(other)
    distance = math.dist((ax, ay), (bx, by))
    found = set()
    for low, high, offset, sides in (
        ("left of", "right of", ax - bx, box[2] - box[0] + other[2] - other[0]),
        ("above", "below", ay - by, box[3] - box[1] + other[3] - other[1]),
    ):
        beyond = abs(offset) - sides / 10
        if beyond >= 1e-3 and beyond / distance > 0.5:
            found.add(low if offset < 0 else high)
    return found


def slow_geneval(record, one):
    threshold = 0.9 if record["tag"] == "counting" else 0.3
    objects = {}
    for d in sorted(one.detections, key=lambda d: d.score, reverse=True):
        if d.score > threshold and len(objects.setdefault(d.name, [])) < 16:
            objects[d.name].append(d)
    groups = [objects.get(part["class"], [])[: part["count"]] for part in record["include"]]
    for part, group in zip(record["include"], groups, strict=True):
        if len(group) != part["count"] or {d.colour for d in group} - {part.get("color", d.colour) for d in group}:
            return False
        relation, target = part.get("position", (None, 0))
        for d in group if relation else ():
            for other in groups[target]:
                if relation not in slow_positions(d.box, other.box):
                    return False
    return not any(len(objects.get(part["class"], [])) >= part["count"] for part in record.get("exclude", []))


@pytest.mark.parametrize("seed", SEEDS)
def test_geneval_on_random_detections(seed):
    rng = np.random.default_rng(seed)
    benchmark = GenEval()
    prompts = parsed(benchmark, [random_geneval(rng, tag) for tag in TAGS for _ in range(20)])

    def see(prompt):
        names = [part["class"] for part in prompt.record["include"]]
        found = random_detections(rng, names, (0.3, 0.9), most=4, colours=COLOURS[:2])
        return look(*(d._replace(score=d.score**0.2) if d.score not in (0.3, 0.9) else d for d in found))

    seen = random_run(rng, prompts, see)
    expected = {p: slow_geneval(prompts[p.index].record, one) for p, one in seen.items()}
    scores = benchmark.score(prompts, seen)
    assert scores.success == expected and scores.missing == ()
    found, tasks = named(scores), []
    for tag in TAGS:
        of_it = {p: right for p, right in expected.items() if prompts[p.index].record["tag"] == tag}
        assert 0 < sum(of_it.values()) < len(of_it)
        agree(found[tag.replace("_", " ")], of_it, rounds=False)
        tasks.append(100 * sum(of_it.values()) / len(of_it))
    assert found["overall"].value == pytest.approx(statistics.fmean(tasks)) and found["overall"].count == 6
    agree(found["right pictures"], expected, rounds=False)
    once = {Picture(i, 0): any(right for p, right in expected.items() if p.index == i) for i, _ in expected}
    agree(found["right prompts"], once, rounds=False)
    lines = [json.loads(line) for line in benchmark.official(prompts, seen)["results.jsonl"].splitlines()]
    assert [line["correct"] for line in lines] == list(expected.values())
    assert lines[0]["filename"] == f"00000/samples/{next(iter(seen)).number:04}.png"
    assert json.loads(lines[-1]["metadata"]) == prompts[max(prompts)].record


def test_positions_on_random_boxes():
    rng = np.random.default_rng(0)
    found = Counter()
    for _ in range(3000):
        box, other = random_box(rng), random_box(rng)
        assert positions(box, other) == slow_positions(box, other)
        found.update(positions(box, other) or ["none"])
    assert min(found[name] for name in (*POSITIONS, "none")) > 100


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (at(100, 200), {"left of"}),
        (at(300, 200), {"right of"}),
        (at(200, 100), {"above"}),
        (at(200, 300), {"below"}),
        (at(100, 100), {"left of", "above"}),  # 0.57 of the distance in both directions
        (at(200, 200), set()),
        (at(204, 200), set()),  # a tenth of the two sides of 20 pixels
        (at(205, 200), set()),  # 1 of 5 pixels is beyond it
        (at(208.1, 200), {"right of"}),
    ],
)
def test_positions_by_hand(box, expected):
    assert positions(box, at(200, 200)) == expected


def geneval_of(record, *detections):
    return GenEval().is_right(GenEval().parse(0, record).record, look(*detections))


def test_geneval_counts_with_a_higher_threshold_and_excludes_one_more():
    record = geneval_record("counting", clause("cat", 2), exclude=[clause("cat", 3)])
    cats = [("cat", at(x, 50), 0.95) for x in (50, 150, 250)]
    assert not geneval_of(record, *cats[:1]) and geneval_of(record, *cats[:2]) and not geneval_of(record, *cats)
    assert geneval_of(record, *cats[:2], ("cat", at(350, 50), 0.9))
    assert not geneval_of(record, cats[0], ("cat", at(350, 50), 0.9))
    single = geneval_record("single_object", clause("cat"))
    assert geneval_of(single, ("cat", at(9, 9), 0.31)) and not geneval_of(single, ("cat", at(9, 9), 0.3))


def test_geneval_knows_sixteen_objects_of_a_class_at_most():
    cats = [("cat", at(20 * i, 50), 0.95) for i in range(20)]
    assert geneval_of(geneval_record("counting", clause("cat", 16), exclude=[clause("cat", 17)]), *cats)
    assert not geneval_of(geneval_record("counting", clause("cat", 17)), *cats)


def test_geneval_takes_the_colour_of_the_surest():
    record = geneval_record("colors", clause("cat", color="red"))
    red, blue = ("cat", at(50, 50), 0.9, "red"), ("cat", at(99, 50), 0.8, "blue")
    assert geneval_of(record, blue, red) and not geneval_of(record, ("cat", at(9, 9), 0.95, "blue"), red)
    assert not geneval_of(geneval_record("colors", clause("cat", 2, color="red")), red, blue)


def test_geneval_asks_all_pairs_of_the_surest_for_their_position():
    record = geneval_record("position", clause("dog", 2), clause("cat", position=["left of", 0]))
    cat, near, far = ("cat", at(200, 50), 0.5), ("dog", at(100, 50), 0.8), ("dog", at(400, 50), 0.9)
    assert geneval_of(record, cat, far, ("dog", at(300, 50), 0.7)) and not geneval_of(record, cat, near, far)
    assert geneval_of(record, cat, near[:2] + (0.4,), far, ("dog", at(300, 50), 0.7))  # the third of the dogs


def test_geneval_without_a_classifier_of_colours_leaves_its_tasks_out():
    records = [geneval_record("colors", clause("cat", color="red")), geneval_record("single_object", clause("cat"))]
    prompts = parsed(GenEval(), records)
    seen = {Picture(i, 0): look(("cat", at(9, 9), 0.9)) for i in prompts}
    scores = GenEval().score(prompts, seen)
    assert len(scores.missing) == 1 and "--clip" in scores.missing[0] and "color" in scores.missing[0]
    assert math.isnan(values(scores)["colors"]) and math.isnan(values(scores)["overall"])
    assert values(scores)["single object"] == 100
    assert list(scores.success) == [Picture(1, 0)]
    coloured = {Picture(0, 0): look(("cat", at(9, 9), 0.9, "blue")), Picture(1, 0): look()}
    scores = GenEval().score(prompts, coloured)
    assert scores.missing == () and values(scores)["colors"] == 0 and values(scores)["overall"] == 0


def test_geneval_asks_for_the_colours_of_coloured_classes_only():
    record = geneval_record("color_attr", clause("cat", color="red"), clause("dog"), exclude=[clause("cup")])
    wanted = GenEval().wanted(GenEval().parse(0, record))
    assert wanted.names == ("cat", "dog", "cup") and wanted.coloured == ("cat",)
    texts = colour_texts("cat")
    assert list(texts) == list(COLOURS)
    assert texts["red"] == ("a photo of a red cat", "a photo of a red-colored cat", "a photo of a red object")


def geneval2_record(rng, atoms):
    count = int(rng.integers(1, 6))
    return {
        "prompt": "some things",
        "atom_count": atoms,
        "vqa_list": [[f"Is thing {i} there?", "Yes"] for i in range(count)],
        "skills": [str(skill) for skill in rng.choice(SKILLS, count)],
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_geneval2_on_random_answers(seed):
    rng = np.random.default_rng(seed)
    benchmark = GenEval2()
    prompts = parsed(benchmark, [geneval2_record(rng, int(rng.integers(3, 7))) for _ in range(40)])

    def see(prompt):
        certain = rng.choice([None, 0.0, 1.0], p=[0.9, 0.05, 0.05])
        return look(
            answers={q: rng.random() if certain is None else certain for q in benchmark.wanted(prompt).questions}
        )

    seen = random_run(rng, prompts, see, pictures=2)
    arithmetic, geometric, skills, atoms = {}, {}, {s: [] for s in SKILLS}, {}
    for picture, one in seen.items():
        record, answers = prompts[picture.index].record, list(one.answers.values())
        arithmetic[picture] = sum(answers) / len(answers)
        geometric[picture] = math.prod(answers) ** (1 / len(answers))
        for skill, answer in zip(record["skills"], answers, strict=True):
            skills[skill].append(answer)
        atoms.setdefault(record["atom_count"], []).append(geometric[picture])
    scores = benchmark.score(prompts, seen)
    agree(named(scores)["Soft-TIFA AM"], arithmetic, rounds=False)
    agree(named(scores)["Soft-TIFA GM"], geometric, rounds=False)
    assert scores.success == pytest.approx(geometric) and scores.missing == ()
    by_skill = {m.name: (m.count, m.value) for m in scores.groups["Soft-TIFA AM by skill"]}
    assert by_skill == {s: (len(v), pytest.approx(100 * statistics.fmean(v))) for s, v in skills.items()}
    by_atoms = {m.name: (m.count, m.value) for m in scores.groups["Soft-TIFA GM by number of atoms"]}
    assert by_atoms == {f"{n} atoms": (len(v), pytest.approx(100 * statistics.fmean(v))) for n, v in atoms.items()}
    assert list(by_atoms) == [f"{n} atoms" for n in sorted(atoms)]


def test_geneval2_by_hand():
    record = {
        "prompt": "two cats",
        "atom_count": 3,
        "vqa_list": [["How many cats are in the image?", "two"], ["Are there any cats in the image?", "Yes"]],
        "skills": ["count", "object"],
    }
    benchmark = GenEval2()
    prompts = parsed(benchmark, [record] * 3)
    count, there = benchmark.wanted(prompts[0]).questions
    seen = {Picture(0, 0): look(answers={there: 0.9, count: 0.4}), Picture(1, 0): look(answers={there: 1, count: 0})}
    scores = benchmark.score(prompts, seen)
    assert values(scores) == {"Soft-TIFA AM": pytest.approx(57.5), "Soft-TIFA GM": pytest.approx(30)}
    details = {name: m.value for name, m in named(scores).items() if m.count}
    assert details["count"] == pytest.approx(20) and details["object"] == pytest.approx(95) and "verb" not in details
    lists = json.loads(benchmark.official(prompts, seen)["score_lists.json"])
    assert lists == [[0.4, 0.9], [0, 1], None]


def test_geometric_mean_with_a_zero_is_zero():
    assert geometric_mean([0.5, 0.0, 1.0]) == 0 and geometric_mean([0.25, 1.0]) == pytest.approx(0.5)


def shape_detections(rng, scene):
    """The scene's own objects, some of them lost, moved or doubled, and others."""
    found = []
    for item in scene.objects:
        name = f"{item.kind.colour} {item.kind.shape}"
        for _ in range(rng.choice([0, 1, 2], p=[0.1, 0.85, 0.05])):
            x, y = (item.x, item.y) if rng.random() < 0.8 else rng.integers(10, 118, 2)
            score = 0.5 if rng.random() < 0.05 else 0.4 + 0.6 * rng.random()
            found.append(Detection(name, at(float(x), float(y)), float(score)))
    if rng.random() < 0.1:
        found.append(Detection(str(rng.choice(KINDS)), at(20, 20), 0.8))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_shapescenes_on_random_detections(seed):
    rng = np.random.default_rng(seed)
    benchmark = ShapeScenes()
    prompts = parsed(benchmark, map(json.loads, scenes_file(50).splitlines()))
    scenes = {i: scene_of(prompt.record) for i, prompt in prompts.items()}
    seen = random_run(rng, prompts, lambda prompt: look(*shape_detections(rng, scenes[prompt.index])))
    before = {"to the left of": (0, 1), "above": (1, 1), "to the right of": (0, -1), "below": (1, -1)}
    exact, both, right = {}, {}, {}
    for picture, one in seen.items():
        statement = scenes[picture.index].prompt
        sure = [d for d in one.detections if d.score > 0.5]
        told = [judge.Detection(*reversed(d.name.split()), *centre(d.box), d.score) for d in sure]
        exact[picture] = judge.states_hold(statement, told)
        boxes = [[d.box for d in sure if d.name == f"{k.colour} {k.shape}"] for k in statement.kinds]
        if statement.relations:
            both[picture] = all(boxes[r.subject] and boxes[r.other] for r in statement.relations)
            right[picture] = both[picture]
            for relation in statement.relations:
                axis, sign = before[relation.word]
                pairs = [(a, b) for a in boxes[relation.subject] for b in boxes[relation.other]]
                right[picture] &= any(sign * (centre(b)[axis] - centre(a)[axis]) > 0 for a, b in pairs)
    scores = benchmark.score(prompts, seen)
    found = named(scores)
    assert 0 < sum(exact.values()) < len(exact)
    agree(found["exact scenes"], exact)
    kinds = {p: {f"{k.colour} {k.shape}" for k in scenes[p.index].prompt.kinds} for p in seen}
    has = {p: detected(one, 0.5) for p, one in seen.items()}
    for k in (2, 3, 4):
        agree(found[f"MG{k}"], {p: len(kinds[p] & has[p]) >= k for p in seen if len(kinds[p]) >= k})
    agree(found["VISOR OA"], both)
    agree(found["VISOR uncond"], right)
    agree(found["VISOR cond"], {p: right[p] for p in both if both[p]}, rounds=False)
    for category in ("attribute", "spatial", "count", "complex"):
        of_it = {p: v for p, v in exact.items() if scenes[p.index].prompt.category == category}
        agree(found[category], of_it, rounds=False)
    for n, name in enumerate(("1 object", "2 objects", "3 objects", "4 objects"), 1):
        agree(found[name], {p: v for p, v in exact.items() if len(scenes[p.index].objects) == n}, rounds=False)
    agree_by_class(scores.groups["Success rate by kind"], kinds, has)


def test_shapescenes_by_hand():
    """A red circle to the left of two blue squares."""
    objects = [("red", "circle", 20), ("blue", "square", 60), ("blue", "square", 100)]
    record = {
        "prompt": "a red circle to the left of two blue squares",
        "category": "complex",
        "objects": [
            {"size": "", "colour": colour, "shape": shape, "x": x, "y": 64, "radius": 16}
            for colour, shape, x in objects
        ],
        "relations": [{"subject": 0, "word": "to the left of", "other": i} for i in (1, 2)],
    }
    circle, near, far = ((f"{colour} {shape}", at(x, 64), 0.9) for colour, shape, x in objects)
    prompts = parsed(ShapeScenes(), [record] * 6)
    seen = {
        Picture(0, 0): look(circle, near, far),
        Picture(1, 0): look(circle, near),  # one square only: the relation holds, the scene is another
        Picture(2, 0): look(circle, near, far, ("red star", at(64, 100), 0.9)),
        Picture(3, 0): look(("red circle", at(80, 64), 0.9), near, far),  # to the left of one of them
        Picture(4, 0): look(("red circle", at(120, 64), 0.9), near, far),
        Picture(5, 0): look(circle, near, ("blue square", at(100, 64), 0.5)),
    }
    scores = ShapeScenes().score(prompts, seen)
    found = values(scores)
    assert found["exact scenes"] == pytest.approx(100 / 6)
    assert found["MG2"] == 100 and math.isnan(found["MG3"]) and math.isnan(found["MG4"])
    assert found["VISOR OA"] == 100
    assert found["VISOR uncond"] == found["VISOR cond"] == pytest.approx(500 / 6)
    assert [scores.success[p] for p in seen] == [1, 0.5, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("seed", SEEDS)
def test_own_prompts_on_random_detections(seed):
    rng = np.random.default_rng(seed)
    benchmark = OwnPrompts()
    objects = [rng.choice(CLASSES, rng.integers(1, 5), replace=False).tolist() for _ in range(12)]
    prompts = parsed(benchmark, [{"prompt": f"scene {i}", "objects": names} for i, names in enumerate(objects)])
    seen = random_run(
        rng,
        prompts,
        lambda prompt: look(
            *random_detections(rng, prompt.names, (0.1,), most=1), likeness={prompt.text: float(rng.random())}
        ),
    )
    scores = benchmark.score(prompts, seen)
    found, has = named(scores), {p: detected(one, 0.1) for p, one in seen.items()}
    shown = {p: len(has[p] & {*objects[p.index]}) for p in seen}
    assert scores.success == {p: pytest.approx(shown[p] / len(objects[p.index])) for p in seen}
    agree_by_class(scores.groups["Success rate by object"], {p: set(objects[p.index]) for p in seen}, has)
    agree(found["all objects"], {p: shown[p] == len(objects[p.index]) for p in seen})
    for k in range(1, max(map(len, objects)) + 1):
        agree(found[f"MG{k}"], {p: shown[p] >= k for p in seen if len(objects[p.index]) >= k})
    agree(found["CLIPScore"], {p: one.likeness[f"scene {p.index}"] for p, one in seen.items()}, scale=1)


def test_own_prompts_without_clip_have_no_clip_score():
    prompts = parsed(OwnPrompts(), ["a cat and a dog"])
    scores = OwnPrompts().score(prompts, {Picture(0, 0): look(("cat", at(9, 9), 0.2))})
    assert values(scores) == {"all objects": 0, "MG1": 100, "MG2": 0}
    assert len(scores.missing) == 1 and "CLIPScore" in scores.missing[0] and "--clip" in scores.missing[0]


@pytest.mark.parametrize(
    ("category", "text", "metric", "option"),
    [
        ("color", "a red cat and a blue dog", "BLIP-VQA", "--vqa"),
        ("non_spatial", "a cat eats", "CLIPScore", "--clip"),
        ("spatial", "a dog on the left of a cat", "2D-spatial", "--detector"),
        ("numeracy", "two dogs", "numeracy", "--detector"),
        ("complex", "The red cat sat next to the small dog.", "3-in-1", "--vqa"),
    ],
)
def test_a_metric_whose_model_is_missing_has_no_value(category, text, metric, option):
    benchmark = T2ICompBench(category)
    scores = benchmark.score(parsed(benchmark, [text]), {Picture(0, 0): look(detected=False)})
    assert all(math.isnan(m.value) and m.count == 0 for m in scores.metrics)
    assert metric in values(scores) and scores.success == {}
    assert any(option in reason for reason in scores.missing)
    assert any("object accuracy" in reason and "--detector" in reason for reason in scores.missing)


def test_three_in_one_lacks_what_one_of_its_models_did_not_say():
    benchmark = T2ICompBench("complex")
    prompts = parsed(benchmark, ["The red cat sat next to the small dog."])
    wanted = benchmark.wanted(prompts[0])
    said = {"answers": dict.fromkeys(wanted.questions, 1.0), "likeness": dict.fromkeys(wanted.texts, 1.0)}
    for left_out, option in (("answers", "--vqa"), ("likeness", "--clip")):
        models = {name: value for name, value in said.items() if name != left_out}
        scores = benchmark.score(prompts, {Picture(0, 0): look(**models)})
        assert math.isnan(values(scores)["3-in-1"]) and [option in m for m in scores.missing] == [True]
    scores = benchmark.score(prompts, {Picture(0, 0): look(**said, detected=False)})
    assert math.isnan(values(scores)["3-in-1"]) and len(scores.missing) == 2


def test_geneval2_leaves_pictures_without_answers_out():
    record = {
        "prompt": "a cat",
        "atom_count": 1,
        "vqa_list": [["Is there a cat?", "Yes"], ["Is it red?", "Yes"]],
        "skills": ["object", "attribute"],
    }
    prompts = parsed(GenEval2(), [record] * 3)
    first, second = GenEval2().wanted(prompts[0]).questions
    seen = {
        Picture(0, 0): look(answers={first: 0.5, second: 0.5}),
        Picture(1, 0): look(),
        Picture(2, 0): look(answers={first: 1.0}),
    }
    scores = GenEval2().score(prompts, seen)
    assert values(scores) == {"Soft-TIFA AM": pytest.approx(50), "Soft-TIFA GM": pytest.approx(50)}
    assert scores.metrics[0].count == 1 and any("--vqa" in reason for reason in scores.missing)
    del seen[Picture(0, 0)]
    assert all(math.isnan(value) for value in values(GenEval2().score(prompts, seen)).values())


BENCHMARKS = [
    MultiGen("COCO"),
    Visor(),
    GenEval(),
    GenEval2(),
    ShapeScenes(),
    OwnPrompts(),
    *(T2ICompBench(category) for category in ("color", "spatial", "numeracy", "non_spatial", "complex")),
]


def test_what_is_scored_has_been_stored():
    for benchmark in BENCHMARKS:
        assert benchmark.stored_above <= benchmark.threshold
    assert GenEval().threshold < GenEval().counting_threshold
    assert T2ICompBench("spatial").stored_above <= 0.5


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: f"{b.name} {getattr(b, 'category', '')}".strip())
def test_no_picture_gives_no_number(benchmark):
    scores = benchmark.score({}, {})
    everything = [m for group in (scores.metrics, *scores.groups.values()) for m in group]
    assert all(math.isnan(m.value) and m.count == 0 and m.std is None and str(m) == "–" for m in everything)
    assert scores.success == {} and scores.missing == ()


def test_one_round_has_no_spread():
    pictures = {Picture(index, 3): float(index % 2) for index in range(4)}
    assert mean_over_rounds("x", pictures) == Metric("x", 50, 4)
    assert mean_over_rounds("x", pictures | {Picture(0, 1): 1.0}).std == 25
    assert mean_over_rounds("x", {p._replace(number=p.index): v for p, v in pictures.items()}).std == 50


def test_scores_keep_what_is_no_number_in_json():
    scores = Scores((Metric("a", math.nan, 0), Metric("b", 12.5, 8, 1.5)), {"c": (Metric("d", 0, 2, lower=True),)})
    written = json.dumps(scores.to_json(), allow_nan=False)
    assert json.loads(written)["metrics"][0]["value"] is None
    again = Scores.from_json(json.loads(written))
    assert math.isnan(again.metrics[0].value) and again.metrics[0].count == 0 and str(again.metrics[0]) == "–"
    assert again.metrics[1:] == scores.metrics[1:] and again.groups == scores.groups
    assert str(again.metrics[1]) == "12.50 ± 1.50" and str(Metric("x", -0.001, 2)) == "0.00"
