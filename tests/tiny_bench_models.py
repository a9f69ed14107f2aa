"""Tiny models with random weights and their processors, saved as the real ones are: folders for `realcompo bench`."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    BertConfig,
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2Processor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTProcessor,
    PreTrainedTokenizerFast,
    SwinConfig,
    YolosConfig,
    YolosForObjectDetection,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

from shapescenes.tokenizer import tokenizer as clip_tokenizer

SIDE = 64  # pixels that the models see
LABELS = {0: "person", 1: "cat", 2: "mouse", 3: "N/A"}
TRANSFORMER = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = "a photo of cat dog red circle blue square man teddy bear yes no two 2 how many are there ? . ! in the".split()


def bert_tokenizer() -> BertTokenizer:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})


def _saved(folder: Path, model, processor) -> Path:
    """With weights large enough for the outputs to differ."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _clip_parts(longest: int) -> tuple:
    """Tokenizer and configurations of text and vision."""
    tokens = clip_tokenizer(longest)
    text = TRANSFORMER | {"vocab_size": len(tokens), "max_position_embeddings": longest}
    text |= {"eos_token_id": tokens.eos_token_id, "bos_token_id": tokens.bos_token_id}
    text |= {"pad_token_id": tokens.pad_token_id}
    return tokens, text, TRANSFORMER | {"image_size": SIDE, "patch_size": 16}


def owl(folder: Path, version: int) -> Path:
    torch.manual_seed(version)
    tokens, text, vision = _clip_parts(16)
    size = {"height": SIDE, "width": SIDE}
    if version == 1:
        model = OwlViTForObjectDetection(OwlViTConfig(text_config=text, vision_config=vision, projection_dim=32))
        return _saved(folder, model, OwlViTProcessor(OwlViTImageProcessorPil(size=size, crop_size=size), tokens))
    model = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=32))
    return _saved(folder, model, Owlv2Processor(Owlv2ImageProcessorPil(size=size), tokens))


def _swin() -> SwinConfig:
    return SwinConfig(
        image_size=SIDE,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def grounding_dino(folder: Path) -> Path:
    torch.manual_seed(3)
    tokens = bert_tokenizer()
    swin = _swin()
    swin.out_features = ["stage2", "stage3", "stage4"]
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=BertConfig(**TRANSFORMER, vocab_size=len(tokens)),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_n_points=2,
        decoder_n_points=2,
        num_queries=20,
        max_text_len=32,
    )
    size = {"height": 2 * SIDE, "width": 2 * SIDE}
    processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil(size=size), tokens)
    return _saved(folder, GroundingDinoForObjectDetection(config), processor)


def yolos(folder: Path) -> Path:
    torch.manual_seed(4)
    config = YolosConfig(
        **TRANSFORMER,
        image_size=[SIDE, SIDE],
        patch_size=16,
        num_detection_tokens=10,
        id2label=LABELS,
        label2id={name: i for i, name in LABELS.items()},
    )
    processor = YolosImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _saved(folder, YolosForObjectDetection(config), processor)


def mask2former(folder: Path) -> Path:
    torch.manual_seed(10)
    config = Mask2FormerConfig(
        backbone_config=_swin(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=32,
        num_queries=8,
        id2label=LABELS,
        label2id={name: i for i, name in LABELS.items()},
    )
    processor = Mask2FormerImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _saved(folder, Mask2FormerForUniversalSegmentation(config), processor)


def blip(folder: Path) -> Path:
    """Its tokens [DEC] and [ENC] come after those of the tokenizer, as in the released models."""
    torch.manual_seed(6)
    tokens = bert_tokenizer()
    text = TRANSFORMER | {
        "vocab_size": len(tokens) + 2,
        "bos_token_id": len(tokens),
        "sep_token_id": tokens.sep_token_id,
        "pad_token_id": tokens.pad_token_id,
        "encoder_hidden_size": TRANSFORMER["hidden_size"],
    }
    config = BlipConfig(text_config=text, vision_config=TRANSFORMER | {"image_size": SIDE, "patch_size": 16})
    processor = BlipProcessor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokens)
    return _saved(folder, BlipForQuestionAnswering(config), processor)


def clip(folder: Path) -> Path:
    torch.manual_seed(7)
    tokens, text, vision = _clip_parts(24)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return _saved(folder, model, CLIPProcessor(processor, tokens))


REPLIES = ["Yes", "yes", "No", "no", "two", "Two", "2", "one", "One", "1"]
CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %} assistant:{% endfor %}"
)


def byte_tokenizer(image: str = "<image>") -> PreTrainedTokenizerFast:
    """A token for each reply, with and without a space before it; any other text falls apart into bytes."""
    own = Tokenizer(BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    own.train_from_iterator([text for reply in REPLIES for text in (reply, f" {reply}")], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=own, eos_token="<end>", pad_token="<end>", extra_special_tokens={"image_token": image}
    )


def llava(folder: Path, chat: str | None = CHAT) -> Path:
    """A vision language model."""
    torch.manual_seed(8)
    tokens = byte_tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TRANSFORMER, image_size=SIDE, patch_size=16, projection_dim=32),
        text_config=LlamaConfig(**TRANSFORMER, vocab_size=len(tokens), max_position_embeddings=512),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokens,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat,
    )
    return _saved(folder, LlavaForConditionalGeneration(config), processor)
