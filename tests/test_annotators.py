"""Caption choice and masks through transformers, with tiny models of random weights: no download, no meaning."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
    SwinConfig,
)

from realcompo_core.errors import RealCompoError
from shapescenes.tokenizer import tokenizer
from tokencompose_core import annotators

SIZE = (60, 40)


@pytest.fixture(scope="module")
def image():
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Grounding DINO."""
    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = BertConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    ).to_dict()
    sizes = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=12,
        **sizes,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "cat", "dog"]))
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """SAM, with larger weights than usual, so that its masks have shapes."""
    folder = tmp_path_factory.mktemp("segmenter")
    torch.manual_seed(0)
    common = {"image_size": 64, "patch_size": 16}
    attention = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32}
    model = SamModel(
        SamConfig(
            vision_config={
                **common,
                **attention,
                "output_channels": 16,
                "num_pos_feats": 8,
                "window_size": 2,
                "global_attn_indexes": [1],
            },
            prompt_encoder_config={**common, "hidden_size": 16, "mask_input_channels": 4},
            mask_decoder_config={**attention, "iou_head_hidden_dim": 16},
        )
    )
    for parameter in model.parameters():
        parameter.data *= 5
    model.save_pretrained(folder)
    SamProcessor(SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})).save_pretrained(
        folder
    )
    return str(folder)


def test_masks_have_the_images_size_and_join_all_instances(image, detector, segmenter, monkeypatch):
    monkeypatch.setattr(annotators, "BOX_THRESHOLD", 0.0)  # random weights are sure of nothing
    make = annotators.GroundedSam(detector, segmenter)
    boxes = make._boxes(image, "Cat")
    assert len(boxes) > 1 and boxes.shape[1] == 4
    assert (boxes[:, 2:] >= boxes[:, :2]).all() and boxes[:, 0::2].max() <= SIZE[0] + 1
    masks = make(image, "picture", ["cat", "dog"])
    assert [mask.shape for mask in masks] == [SIZE[::-1]] * 2 and masks[0].dtype == bool
    alone = [make._mask(image, box[None]) for box in boxes]
    assert 0 < np.mean(alone) < 1
    assert np.array_equal(masks[0], np.any(alone, 0))


def test_noun_that_is_not_found_has_no_mask(image, detector, segmenter, monkeypatch):
    monkeypatch.setattr(annotators, "BOX_THRESHOLD", 1.0)
    assert annotators.GroundedSam(detector, segmenter)(image, "picture", ["cat"]) == [None]


def test_chosen_caption_has_the_highest_similarity(image, tmp_path):
    torch.manual_seed(0)
    words = tokenizer()
    words.save_pretrained(tmp_path)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text = {**small, "vocab_size": len(words), "eos_token_id": words.eos_token_id}
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=16)
    ).eval()
    model.save_pretrained(tmp_path)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pictures, CLIPTokenizer.from_pretrained(tmp_path)).save_pretrained(tmp_path)
    captions = ["a red circle", "a blue square above a green star", "two yellow hearts"]
    choose = annotators.ClipChooser(str(tmp_path))
    pixels = pictures(image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        seen = model.get_image_features(pixels).pooler_output
        read = [model.get_text_features(**words(c, return_tensors="pt")).pooler_output for c in captions]
    likeness = [float(torch.cosine_similarity(seen, own)) for own in read]
    assert choose(image, captions) == int(np.argmax(likeness))
    assert choose(image, captions[:1]) == 0


def test_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RealCompoError, match="nowhere.*give a folder with it"):
        annotators.ClipChooser(str(tmp_path / "nowhere"))
