"""Answers and likeness in `realcompo bench`: what a plain computation with the same model gives."""

import json

import numpy as np
import pytest
import tiny_bench_models
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    BertConfig,
    BertModel,
    BlipForQuestionAnswering,
    CLIPModel,
    LlavaForConditionalGeneration,
)

from realcompo_cli.bench.answering import first_tokens, load_answerer, spellings
from realcompo_cli.bench.clip import load_clip
from realcompo_cli.models import ModelFileError
from realcompo_core.bench.geneval import COLOURS, colour_texts
from realcompo_core.bench.seen import Detection

SIZE = (150, 90)


def picture(size=SIZE, seed=0):
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: getattr(tiny_bench_models, name)(root / name) for name in ("blip", "llava", "clip")}


# BLIP


@pytest.fixture(scope="module")
def blip_reply(folders):
    """`blip_reply(words)`: the probabilities of the first token of BLIP's reply, as its own `generate` has them."""
    model, processor = (c.from_pretrained(folders["blip"]) for c in (BlipForQuestionAnswering, AutoProcessor))
    tokenizer = processor.tokenizer

    def reply(words):
        encode = len(tokenizer) + 1  # [DEC] and [ENC] come after the tokenizer's own
        ids = [encode, *tokenizer.convert_tokens_to_ids(words.split()), tokenizer.sep_token_id]
        pixels = processor.image_processor(picture(), return_tensors="pt").pixel_values
        output = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            pixel_values=pixels,
            max_new_tokens=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        p = output.logits[0][0].softmax(-1)
        return {token: float(p[tokenizer.convert_tokens_to_ids(token)]) for token in ("yes", "no", "two", "2")}

    return reply


def test_blip_answers_yes_as_often_as_no_is_not_its_reply(folders, blip_reply):
    answer = load_answerer(str(folders["blip"]))
    first, second = blip_reply("a red cat ?"), blip_reply("a blue dog in the photo ?")
    assert first != second
    told = answer(picture(), [("A red cat?", "yes"), ("a blue dog in the photo?", "Yes"), ("a red cat?", "no")])
    expected = [first["yes"] / (first["yes"] + first["no"]), second["yes"] / (second["yes"] + second["no"])]
    assert told == pytest.approx([*expected, 1 - expected[0]], abs=1e-5)


def test_blip_reads_a_question_as_it_learnt_to(folders, blip_reply):
    """In lower case, without most marks, and no more than 35 tokens of it."""
    answer = load_answerer(str(folders["blip"]))
    (told,) = answer(picture(), [("(A RED cat!)?", "yes")])
    p = blip_reply("a red cat ?")
    assert told == pytest.approx(p["yes"] / (p["yes"] + p["no"]), abs=1e-5)
    (told,) = answer(picture(), [("cat " * 60 + "?", "yes")])
    p = blip_reply("cat " * 33)
    assert told == pytest.approx(p["yes"] / (p["yes"] + p["no"]), abs=1e-5)


def test_blips_number_is_a_word_or_digits(folders, blip_reply):
    answer = load_answerer(str(folders["blip"]))
    p = blip_reply("how many cat are there ?")
    told = answer(picture(), [("How many cat are there?", "two"), ("how many cat are there?", "two")])
    assert told == pytest.approx([p["two"] + p["2"], p["two"]], abs=1e-6)


def test_another_blip_is_refused(folders, tmp_path):
    for file in folders["blip"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BlipForConditionalGeneration"]}))
    with pytest.raises(ModelFileError, match="is a BlipForConditionalGeneration, not a BlipForQuestionAnswering"):
        load_answerer(str(tmp_path))


# Vision language models


@pytest.fixture(scope="module")
def llava_reply(folders):
    """`llava_reply(question)`: the probability of each token at the beginning of the reply."""
    model, processor = (c.from_pretrained(folders["llava"]) for c in (LlavaForConditionalGeneration, AutoProcessor))

    def reply(question):
        text = f"user: <image>{question} Answer in one word. assistant:"
        inputs = processor(text=text, images=picture(), return_tensors="pt")
        output = model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        p = output.logits[0][0].softmax(-1)
        tokens = processor.tokenizer
        return {
            text: float(p[tokens.encode(text)[0]]) for one in tiny_bench_models.REPLIES for text in (one, f" {one}")
        }

    return reply


def test_a_language_models_answer_counts_in_each_spelling(folders, llava_reply):
    answer = load_answerer(str(folders["llava"]))
    assert answer.name == "llava" and answer.identity["model"] == str(folders["llava"].resolve())
    yes, two = "Is there a cat?", "How many cats are there?"
    p, q = llava_reply(yes), llava_reply(two)
    told = answer(picture(), [(yes, "Yes"), (two, "two"), (yes, "yes"), (yes, "no")])
    of_yes = sum(p[text] for text in ("Yes", "yes", " Yes", " yes"))
    of_two = sum(q[text] for text in ("two", "Two", "2", " two", " Two", " 2"))
    of_no = sum(p[text] for text in ("No", "no", " No", " no"))
    assert told == pytest.approx([of_yes, of_two, of_yes, of_no], abs=1e-5)
    assert answer(picture(seed=1), [(yes, "Yes")])[0] != pytest.approx(of_yes, abs=1e-6)
    assert answer(picture(), []) == []


def test_a_number_has_digits_where_the_question_is_how_many():
    assert spellings("How many cats?", "two") == ["two", "Two", "2", " two", " Two", " 2"]
    assert "10" in spellings("How many cats?", "ten") and "11" not in spellings("How many cats?", "eleven")
    assert spellings("Which number is it?", "two") == ["two", "Two", " two", " Two"]
    assert spellings("Is it red?", "Yes") == ["yes", "Yes", " yes", " Yes"]


class Words:
    """Stands for a tokenizer: a token each for a space at the beginning, for "one" and for each digit."""

    unk_token_id = 0
    tokens = ("", " ", "one", "1", "0")

    def encode(self, text, add_special_tokens):
        found, rest = [], text.lower()
        while rest:
            token = next((t for t in self.tokens[1:] if rest.startswith(t)), "")
            found.append(self.tokens.index(token))
            rest = rest[len(token) :] if token else ""
        return found

    def decode(self, ids):
        return "".join(self.tokens[i] for i in ids)


def test_spellings_that_begin_with_one_token_count_once():
    assert first_tokens(Words(), ["one", "One"]) == [2]
    assert first_tokens(Words(), ["1", "10", "one"]) == [3, 2]


def test_a_space_alone_and_an_unknown_word_begin_no_answer():
    assert first_tokens(Words(), [" one", "two", ""]) == []


def test_a_model_without_a_form_for_questions_is_refused(tmp_path):
    folder = tiny_bench_models.llava(tmp_path / "llava", chat=None)
    with pytest.raises(ModelFileError, match="has no chat template.*made to follow instructions"):
        load_answerer(str(folder))


def test_a_model_that_answers_no_questions_is_refused(folders, tmp_path):
    with pytest.raises(ModelFileError, match=f"cannot load {folders['clip']}"):
        load_answerer(str(folders["clip"]))
    with pytest.raises(ModelFileError, match="is not there"):
        load_answerer(str(tmp_path / "none"))


# CLIP


@pytest.fixture(scope="module")
def plain_clip(folders):
    """`plain_clip(pictures, texts)`: their cosines (pictures, texts), from the model's own forward pass."""
    model, processor = (c.from_pretrained(folders["clip"]) for c in (CLIPModel, AutoProcessor))

    @torch.inference_mode()
    def cosines(pictures, texts):
        inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
        return (model(**inputs).logits_per_image / model.logit_scale.exp()).numpy()

    return cosines


def test_likeness_is_the_cosine_of_both_features(folders, plain_clip):
    clip = load_clip(str(folders["clip"]))
    texts = ["a red circle", "a blue square above a large star", "a cat"]
    told = clip.likeness(picture(), texts)
    assert told == pytest.approx(plain_clip([picture()], texts)[0], abs=1e-5)
    assert clip.likeness(picture(), []) == [] and len(set(told)) == 3
    assert clip.name == "clip" and clip.identity["model"] == str(folders["clip"].resolve())


def test_a_text_is_cut_off_where_the_models_texts_end(folders):
    clip = load_clip(str(folders["clip"]))
    long, longer, other = "red " * 22, "red " * 22 + "blue square", "red " * 21 + "blue"
    a, b, c = clip.likeness(picture(), [long, longer, other])
    assert a == pytest.approx(b, abs=1e-6) and a != pytest.approx(c, abs=1e-4)


def test_features_have_length_one_however_many_pictures_there_are(folders):
    clip = load_clip(str(folders["clip"]))
    pictures = [picture(seed=i) for i in range(19)]
    features = clip.features(pictures)
    assert features.shape == (19, 16) and torch.allclose(features.norm(dim=1), torch.ones(19))
    assert torch.allclose(features[17], clip.features(pictures[17:18])[0], atol=1e-5)


def test_a_crop_of_three_rows_is_not_taken_for_three_channels(folders):
    clip = load_clip(str(folders["clip"]))
    thin = picture((40, 3))
    processor = AutoProcessor.from_pretrained(folders["clip"]).image_processor
    pixels = processor(np.asarray(thin), input_data_format="channels_last", return_tensors="pt").pixel_values
    with torch.inference_mode():
        expected = clip.model.get_image_features(pixels).pooler_output
    assert torch.allclose(clip.features([thin]), expected / expected.norm(), atol=1e-5)


def test_an_objects_colour_is_the_nearest_of_geneval(folders, plain_clip):
    clip = load_clip(str(folders["clip"]))
    whole = picture()
    boxes = [(10.4, 20.6, 80, 70), (-20, -10, 60, 300), (0, 0, 150, 90), (100, 5, 140, 8)]
    crops = [whole.crop(box) for box in ((10, 21, 80, 70), (0, 0, 60, 90), (0, 0, 150, 90))]
    texts = [text for colour in COLOURS for text in colour_texts("cat")[colour]]
    # The mean of three features of length 1 has the mean cosine, over its own length
    cosines = plain_clip(crops, texts).reshape(3, len(COLOURS), 3).mean(-1)
    model, processor = CLIPModel.from_pretrained(folders["clip"]), AutoProcessor.from_pretrained(folders["clip"])
    ids = processor.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        features = model.get_text_features(**ids).pooler_output
    lengths = (features / features.norm(dim=1, keepdim=True)).reshape(len(COLOURS), 3, -1).mean(1).norm(dim=1)
    expected = [COLOURS[i] for i in (cosines / lengths.numpy()).argmax(1)]
    told = clip.colours(whole, [Detection("cat", box, 0.9) for box in boxes], "cat")
    assert told[:3] == expected and told[3] in COLOURS
    assert clip.colours(whole, [Detection("cat", boxes[0], 0.9)], "cat") == told[:1]


def test_a_box_without_pixels_has_no_colour(folders):
    clip = load_clip(str(folders["clip"]))
    empty = [(10, 10, 10, 50), (10, 10, 10.3, 50), (200, 0, 250, 90), (-50, 0, -1, 90), (50, 60, 40, 70)]
    detections = [Detection("cat", box, 0.9) for box in (*empty, (0, 0, 150, 90))]
    told = clip.colours(picture(), detections, "cat")
    assert told[:-1] == [""] * len(empty) and told[-1] in COLOURS
    assert clip.colours(picture(), detections[:2], "cat") == ["", ""] and clip.colours(picture(), [], "cat") == []


def test_a_model_that_compares_nothing_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="is a YolosForObjectDetection, not a YolosModel"):
        load_clip(str(tiny_bench_models.yolos(tmp_path / "yolos")))
    tokens = tiny_bench_models.bert_tokenizer()
    BertModel(BertConfig(**tiny_bench_models.TRANSFORMER, vocab_size=len(tokens))).save_pretrained(tmp_path / "bert")
    tokens.save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelFileError, match="is a BertModel, which does not compare pictures with texts"):
        load_clip(str(tmp_path / "bert"))
    with pytest.raises(ModelFileError, match="is not there"):
        load_clip(str(tmp_path / "none"))
