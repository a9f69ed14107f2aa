"""Models that answer questions about a picture, and how sure they are of an answer: BLIP, vision language models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, BlipForQuestionAnswering, PretrainedConfig

from realcompo_core.bench.seen import Question
from realcompo_core.text.words import NUMBERS

from ..models import ModelFileError
from .loading import Classes, Pretrained, load_pretrained

YES_NO = ("yes", "no")
HOW_MANY = "How many"
LARGEST_DIGITS = 10  # numbers up to it also count as digits
BLIP_TOKENS = 35  # of a question, at most
NOT_READ = re.compile(r'[.!"()*#:;~]')  # what BLIP's questions were without, when it learnt them


@dataclass(frozen=True)
class Answerer:
    """A model that answers questions. `name` is what a report calls it, `identity` says which model it is, as JSON."""

    name: str
    identity: Mapping[str, Any]
    answer: Callable[[Image.Image, Sequence[Question]], list[float]]

    def __call__(self, picture: Image.Image, questions: Sequence[Question]) -> list[float]:
        """The probability, in 0..1, of each question's answer. picture: RGB."""
        return self.answer(picture, questions)


def load_answerer(spec: str, device: str = "cpu") -> Answerer:
    """BLIP for visual question answering, or a vision language model, from a folder or by its id on the hub.

    Raises ModelFileError for a model that cannot be loaded or has no form for questions, DeviceError.
    """
    loaded = load_pretrained(spec, _classes, device)
    if loaded.model.config.model_type == "blip":
        return Answerer(loaded.name, loaded.identity, _blip(loaded))
    if not getattr(loaded.processor, "chat_template", None):
        raise ModelFileError(
            f"{spec} has no chat template, which says how it is asked about a picture: choose a model that was made to "
            "follow instructions"
        )
    return Answerer(loaded.name, loaded.identity, _language_model(loaded))


def spellings(question: str, answer: str) -> list[str]:
    """How an answer may be written: in lower case or with a capital, after a space or not.

    Where the question is how many there are, also in digits.
    """
    words = [answer.lower(), answer.capitalize()]
    number = NUMBERS.get(answer.lower(), 0)
    if question.startswith(HOW_MANY) and 0 < number <= LARGEST_DIGITS:
        words.append(str(number))
    return [*words, *(f" {word}" for word in words)]


def first_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """The tokens that the texts begin with, each once. A token that is a space alone begins any text, and is left out.

    Unknown words have none.
    """
    tokens = (tokenizer.encode(text, add_special_tokens=False)[:1] for text in texts)
    known = dict.fromkeys(token for some in tokens for token in some if token != tokenizer.unk_token_id)
    return [token for token in known if tokenizer.decode([token]).strip()]


def _classes(config: PretrainedConfig) -> Classes:
    if config.model_type == "blip":
        return Classes(BlipForQuestionAnswering, AutoProcessor)
    return Classes(AutoModelForImageTextToText, AutoProcessor, "auto")


def _blip(loaded: Pretrained) -> Callable[[Image.Image, Sequence[Question]], list[float]]:
    """P(yes) / (P(yes) + P(no)) of the first token after the decoder's start, as in T2I-CompBench's BLIP-VQA.

    Other answers than yes and no have the probability of their first token among all.

    Questions are in lower case and begin with the token [ENC] instead of [CLS]. BLIP has learnt so, and the official
    code asks so; the processor of transformers does neither.
    """
    model, processor = loaded.model, loaded.processor
    tokenizer, text = processor.tokenizer, model.config.text_config
    start, encode = text.bos_token_id, text.bos_token_id + 1
    yes_no = dict(zip(YES_NO, (first_tokens(tokenizer, [word]) for word in YES_NO), strict=True))

    @torch.inference_mode()
    def answer(picture: Image.Image, questions: Sequence[Question]) -> list[float]:
        pixels = processor.image_processor(picture, return_tensors="pt").pixel_values.to(model.device)
        image = model.vision_model(pixel_values=pixels).last_hidden_state  # (1, patches, width)
        seen = torch.ones(image.shape[:2], dtype=torch.long, device=image.device)
        return [_one(image, seen, question, wanted) for question, wanted in questions]

    def _one(image: Tensor, seen: Tensor, question: str, wanted: str) -> float:
        asked = tokenizer(
            NOT_READ.sub("", question.lower()).rstrip(), truncation=True, max_length=BLIP_TOKENS, return_tensors="pt"
        ).to(model.device)
        if encode < text.vocab_size:
            asked.input_ids[:, 0] = encode
        states = model.text_encoder(
            input_ids=asked.input_ids,
            attention_mask=asked.attention_mask,
            encoder_hidden_states=image,
            encoder_attention_mask=seen,
        ).last_hidden_state
        begun = torch.full((1, 1), start, dtype=torch.long, device=model.device)
        p = model.text_decoder(
            input_ids=begun, encoder_hidden_states=states, encoder_attention_mask=asked.attention_mask
        ).logits[0, -1]
        p = p.float().softmax(-1)
        if wanted.lower() in YES_NO:
            each = {word: p[tokens].sum() for word, tokens in yes_no.items()}
            return float(each[wanted.lower()] / (each["yes"] + each["no"]))
        return float(p[first_tokens(tokenizer, spellings(question, wanted))].sum())

    return answer


def _language_model(loaded: Pretrained) -> Callable[[Image.Image, Sequence[Question]], list[float]]:
    """The probability that the first token of a reply in one word begins the answer, as in GenEval 2's Soft-TIFA."""
    model, processor = loaded.model, loaded.processor

    @torch.inference_mode()
    def answer(picture: Image.Image, questions: Sequence[Question]) -> list[float]:
        found = []
        for question, wanted in questions:
            text = {"type": "text", "text": f"{question} Answer in one word."}
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image", "image": picture}, text]}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(model.device, dtype=model.dtype)
            p = model(**inputs).logits[0, -1].float().softmax(-1)
            found.append(float(p[first_tokens(processor.tokenizer, spellings(question, wanted))].sum()))
        return found

    return answer
