"""A network of diffusers with its conditioning, as a branch of the balancer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from ..attention.checkpointing import checkpointed, swapped_forwards
from ..attention.input_gradients import frozen
from ..attention.losses import Objective
from ..attention.reading import Gradient, GradientReader
from ..attention.source import AttentionSource, NetworkPass, Stage
from .denoisers import denoiser_of
from .joint_attention import JointAttention
from .regional import masked_attention
from .request import Conditioner, UNetPass
from .schedule import FlowSchedule, NoiseSchedule


class RegionalPhrase(NamedTuple):
    """A prompt of its own for a region. arguments: text arguments for B items. weight: (B, 1, h, w), 0 outside."""

    arguments: dict[str, Any]
    weight: Tensor


class ComposedPart(NamedTuple):
    """A part of B prompts. arguments: its text arguments. weight: (B, 1, 1, 1), 0 for an item that has fewer parts."""

    arguments: dict[str, Any]
    weight: Tensor


class RegionalTexts(NamedTuple):
    """The positive texts of B items with phrases behind them, for regional attention (docs/method.md, R19).

    arguments: text arguments that take the place of the positive ones. mask: (B, L, L) bool, of all texts and then the
    picture. above: noise level above which the regions act.
    """

    arguments: dict[str, Any]
    mask: Tensor
    above: float


class DenoiserBranch:
    """See `guidance.branch.Branch`.

    positive, negative: text arguments of the network for B items each. conditioners: add to them in each pass.
    objective: None where nothing is read. phrases: prompts of regions, which the positive prediction is averaged with.
    unguided_below: noise level from which on there is no guidance. parts: their predictions are composed in the place
    of the positive one, at every noise level, and maps are read in a pass of their own (docs/method.md, R13).
    values: (B, T, d) encodings that cross-attention takes its values from in the positive pass, instead of the text's
    (R14). regional: what the positive pass reads instead, under regional attention.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        schedule: NoiseSchedule | FlowSchedule,
        positive: dict[str, Any],
        negative: dict[str, Any],
        guidance_scale: float,
        conditioners: Sequence[Conditioner] = (),
        objective: Objective | None = None,
        phrases: Sequence[RegionalPhrase] = (),
        unguided_below: float = 0.0,
        parts: Sequence[ComposedPart] = (),
        values: Tensor | None = None,
        regional: RegionalTexts | None = None,
    ):
        self.name = name
        self._denoiser, self._schedule, self._guidance = denoiser_of(network), schedule, guidance_scale
        self._regional = regional
        self._phrases = {f"phrase {i}": phrase for i, phrase in enumerate(phrases)}
        self._arguments = {"positive": positive, "negative": negative}
        self._parts = {f"part {i}": part for i, part in enumerate(parts)}
        self._arguments |= {key: found.arguments for key, found in (self._phrases | self._parts).items()}
        self._conditioners, self._objective = list(conditioners), objective
        self._values = {} if values is None else {"positive": values}
        self._unguided_below = unguided_below
        self.conditional: Tensor | None = None
        networks = [network, *(network for conditioner in self._conditioners for network in conditioner.networks)]
        self._networks = networks
        self._blocks = [m for network in networks for m in network.modules() if isinstance(m, BasicTransformerBlock)]

    @cached_property
    def _source(self) -> AttentionSource:
        return self._denoiser.source()

    def acts_at(self, sigma: float) -> bool:
        return True

    def moved(self, x: Tensor, sigma: float) -> Tensor:
        return x

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        with torch.no_grad():
            if self._parts:
                self.conditional = self._denoised(x, self._composed(x, sigma), sigma)
                return self.conditional
            if not self._is_guided(sigma):
                output = self._with_phrases(self._run(x, sigma, ("positive",)), x, sigma)
                self.conditional = self._denoised(x, output, sigma)
                return self.conditional
            negative, positive = self._negative_and_positive(x, sigma)
            positive = self._with_phrases(positive, x, sigma)
            self.conditional = self._denoised(x, positive, sigma)
            return self._denoised(x, self._guided(positive, negative), sigma)

    def gradient(self, x: Tensor, sigma: float, objective: Objective | None = None) -> Gradient:
        with self._reading(x, sigma, "lookahead", objective or self._objective) as reader:
            self._run(reader.x, sigma, ("positive",))
        return reader.gradient

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient]:
        if self._parts:
            return self.denoise(x, sigma), self.gradient(x, sigma)
        with self._reading(x, sigma, "step", self._objective) as reader:
            output = self._run(reader.x, sigma, ("positive",)).detach()
        with torch.no_grad():
            output = self._with_phrases(output, x, sigma)
            if self._is_guided(sigma):
                output = self._guided(output, self._run(x, sigma, ("negative",)))
            return self._denoised(x, output, sigma), reader.gradient

    def _negative_and_positive(self, x: Tensor, sigma: float) -> Sequence[Tensor]:
        """In one pass, unless the positive text is longer."""
        keys = "negative", "positive"
        if self._regions_at(sigma) is not None:
            return [self._run(x, sigma, (key,)) for key in keys]
        return self._run(torch.cat([x, x]), sigma, keys).chunk(2)

    def _is_guided(self, sigma: float) -> bool:
        return self._guidance != 1 and sigma >= self._unguided_below

    def _with_phrases(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        """The positive prediction, averaged with those of the phrases by their weights; its own weight is 1."""
        total, weights = output, 1.0
        for key, phrase in self._phrases.items():
            total = total + phrase.weight * self._run(x, sigma, (key,))
            weights = weights + phrase.weight
        return total / weights

    def _composed(self, x: Tensor, sigma: float) -> Tensor:
        keys = ("negative", *self._parts)
        negative, *outputs = self._run(torch.cat([x] * len(keys)), sigma, keys).chunk(len(keys))
        differences = zip(self._parts.values(), outputs, strict=True)
        return negative + sum(self._guidance * part.weight * (output - negative) for part, output in differences)

    def _guided(self, positive: Tensor, negative: Tensor) -> Tensor:
        return negative + self._guidance * (positive - negative)

    def _denoised(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        return self._schedule.parametrisation.denoised(x, output, sigma)

    def _run(self, x: Tensor, sigma: float, conditionings: Sequence[str]) -> Tensor:
        """The network's raw output in x's precision; x has B items of each conditioning."""
        regions = self._regions_at(sigma) if tuple(conditionings) == ("positive",) else None
        text = joined([self._arguments[conditioning] for conditioning in conditionings])
        text |= {} if regions is None else regions.arguments
        t = torch.full((), self._schedule.timestep(sigma), device=x.device)  # does not wait for the device
        scaled = self._schedule.parametrisation.scale_input(x, sigma).to(self._denoiser.network.dtype)
        run = UNetPass(conditionings, sigma, scaled, t, text)
        arguments = dict(text)
        for conditioner in self._conditioners:
            arguments |= conditioner(run)
        with self._own_values(conditionings), self._masked(regions):
            return self._denoiser(scaled, t, arguments).to(x.dtype)

    def _regions_at(self, sigma: float) -> RegionalTexts | None:
        return self._regional if self._regional is not None and sigma > self._regional.above else None

    def _masked(self, regions: RegionalTexts | None) -> AbstractContextManager:
        if regions is None:
            return nullcontext()
        return masked_attention(regions.mask, self._denoiser.text_behind(regions.arguments))

    @contextmanager
    def _own_values(self, conditionings: Sequence[str]) -> Iterator[None]:
        """Inside, cross-attention takes the values of these conditionings from `values`, where they have any."""
        hooks = []
        if self._values.keys() & set(conditionings):
            texts = [self._arguments[conditioning]["encoder_hidden_states"] for conditioning in conditionings]
            own = zip(conditionings, texts, strict=True)
            values = torch.cat([self._values.get(conditioning, text) for conditioning, text in own])
            blocks = [block for block in self._denoiser.network.modules() if isinstance(block, BasicTransformerBlock)]
            hooks = [block.attn2.to_v.register_forward_pre_hook(lambda *_: (values,)) for block in blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _reading(self, x: Tensor, sigma: float, stage: Stage, objective: Objective) -> Iterator[GradientReader]:
        """A pass of the positive conditioning whose attention is read. Weights take no part in the gradient."""
        reader = GradientReader(x, objective, stage == "lookahead")
        running = NetworkPass(tuple(x.shape[-2:]), stage=stage)
        repeated = _cheap_to_repeat(self._blocks)
        if isinstance(self._source, JointAttention):
            modes = partial(self._masked, self._regions_at(sigma))
            repeated = {b: checkpointed(b.forward, modes) for b in self._source.before(objective.layers)}
        with (
            frozen(self._networks),
            self._source.emitting(reader.read, running, objective.layers),
            swapped_forwards(repeated),
            reader,
        ):
            yield reader


def _cheap_to_repeat(blocks: Sequence[nn.Module]) -> dict[nn.Module, Callable]:
    """Forwards with gradient checkpointing: feed-forward layers with their norms, and gated layers.

    They hold most of the activations and take little of the time.
    """
    forwards = {}
    for block in blocks:
        if block.norm_type == "layer_norm" and block.norm3 is not None:
            forwards[block.norm3] = _identity
            forwards[block.ff] = checkpointed(_chained(block.norm3.forward, block.ff.forward))
        if hasattr(block, "fuser"):
            forwards[block.fuser] = checkpointed(block.fuser.forward)
    return forwards


def _chained(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))


def _identity(x: Tensor) -> Tensor:
    return x


def joined(parts: Sequence[Any]) -> Any:
    """(Nested) dictionaries of tensors as one, along the batch."""
    if isinstance(parts[0], dict):
        return {key: joined([part[key] for part in parts]) for key in parts[0]}
    return torch.cat(list(parts))
