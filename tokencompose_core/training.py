"""Fine-tuning with TokenCompose's losses: the settings and the training loop.

The noise, timestep and caption dropout of a sample depend on the seed and on its position in the run alone. So a
resumed run gives the same weights as one that was not stopped, and many processes train as one with a batch as large as
all of theirs (docs/method.md, T5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from realcompo_core.attention.projections import ProjectionSource
from realcompo_core.attention.source import Layer
from realcompo_core.errors import RealCompoError
from realcompo_core.sampling.parametrisation import Parametrisation

from .checkpoints import Checkpoints, check_weights
from .ema import ExponentialMovingAverage
from .losses import Convention, attention_share, grounding_losses, noun_targets
from .runtime import Runtime
from .supervision import SupervisedAttention


@dataclass(frozen=True)
class TrainSettings:
    """What a run does. The defaults are the paper's for SD1.4.

    steps: optimizer steps, each of `accumulation` batches of `batch_size` samples in each process.
    schedule: of the learning rate after `warmup` steps. optimizer: `adamw8bit` needs bitsandbytes.
    token_weight, pixel_weight: λ and γ of docs/method.md, T3; with both 0 nothing is recorded.
    factors: how many times smaller than the latent the supervised maps may be; None for all that the model offers.
    caption_dropout: share of the samples that see the empty caption, and no grounding.
    ema: decay of the exponential moving average of the weights, which is then what is saved; None for none.
    """

    steps: int = 24_000
    batch_size: int = 1
    accumulation: int = 4
    learning_rate: float = 5e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    token_weight: float = 1e-3
    pixel_weight: float = 5e-5
    convention: Convention = "official"
    factors: tuple[int, ...] | None = None
    caption_dropout: float = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float | None = None
    seed: int = 0
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    validate_every: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulation", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise RealCompoError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        for name, allowed in (
            ("schedule", ("constant", "linear", "cosine")),
            ("optimizer", ("adamw", "adamw8bit")),
            ("convention", ("official", "paper")),
            ("precision", ("fp32", "bf16", "fp16")),
        ):
            if getattr(self, name) not in allowed:
                raise RealCompoError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}")
        if not 0 <= self.caption_dropout <= 1:
            raise RealCompoError(f"caption_dropout is {self.caption_dropout}: it is a share, from 0 to 1")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise RealCompoError(f"ema is {self.ema}: it is a decay, from 0 to below 1, such as 0.999")


FREE_TO_CHANGE = {"steps", "checkpoint_every", "keep_checkpoints", "validate_every"}  # when a run is resumed


class TrainableModel(Protocol):
    """What training needs of a diffusion model. Conditionings and latents are made without gradient."""

    network: nn.Module
    """Its parameters with `requires_grad` are trained."""
    attention: ProjectionSource
    """Its cross-attention layers."""
    alphas: Tensor
    """Cumulative products ᾱ_t of the noise schedule, (timesteps,)."""
    parametrisation: Parametrisation
    """What the network predicts."""
    text_length: int

    def encode(self, images: Tensor, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents, (B, C, h, w) in fp32, of pictures (B, 3, H, W).

        `keys`: the examples' names, for a model that caches their latents.
        """

    def embed(self, captions: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
        """The conditioning of B captions for pictures of this size (height, width), for `predict`."""

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        """The raw output of `network`, which may be a wrapped `self.network`."""


class StepReport(NamedTuple):
    """The result of one optimizer step, over all processes. `step` counts from 1.

    losses: `total` (docs/method.md, T3) and its three terms `ldm`, `token`, `pixel` without their weights; `share` is a
    metric: how much of the nouns' attention falls inside their masks (NaN where no noun was shown).
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float


def train(
    model: TrainableModel,
    batches: Callable[[int], Iterator[Sequence[dict]]],
    settings: TrainSettings,
    checkpoints: Checkpoints | None = None,
    runtime: Runtime | None = None,
    report: Callable[[StepReport], None] = lambda report: None,
    validate: Callable[[int], None] = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train `model.network` in place; returns the number of steps done, fewer than `settings.steps` if `stop` said so.

    Raises RealCompoError for settings that do not fit the model, for a checkpoint of another run, and at a step whose
    loss or gradient is not finite (see `check_finite`).

    batches(first): this process's batches of examples (see `dataset.load_example`) from number `first` on, without end;
    a step takes `accumulation` of them. A run that finds a checkpoint of its own goes on from it. `stop` is asked after
    each step; what was learnt is then saved. With `ema`, `validate(step)` sees the average of the weights, and it stays
    in the network at the end.
    """
    runtime = runtime or Runtime(settings.precision)
    shapes = {name: tuple(p.shape) for name, p in model.network.named_parameters() if p.requires_grad}
    network, optimizer = runtime.prepare(model.network, make_optimizer(trained_parameters(model.network), settings))
    trained = trained_parameters(network)  # a wrapper may have others than before
    average = None if settings.ema is None else ExponentialMovingAverage(trained, settings.ema)
    supervised = SupervisedAttention(model.attention, supervised_layers(model.attention, settings.factors))
    identity = {**asdict(settings), "processes": runtime.processes}
    done, state = 0, None if checkpoints is None else checkpoints.latest(identity, FREE_TO_CHANGE)
    if state is not None:
        check_weights(state["network"], shapes)
        done = state["step"]
        runtime.load(network, optimizer, state)
        if average:
            average.load(state["average"])
    stream = batches(done * settings.accumulation)
    network.train()
    while done < settings.steps:
        rate = settings.learning_rate * rate_factor(done, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(2, len(TERMS))
        for micro in range(settings.accumulation):
            number = (done * settings.accumulation + micro) * runtime.processes + runtime.rank
            with runtime.accumulating(network, last=micro == settings.accumulation - 1):
                sums += backward(model, network, supervised, next(stream), number, settings, runtime)
        norm = runtime.clip(trained, optimizer, settings.max_grad_norm)
        totals, counts = runtime.sum(sums)
        losses = dict(zip(TERMS, (totals / counts).tolist(), strict=True))
        done += 1
        check_finite(done, losses["total"], norm, rate, settings, runtime)
        runtime.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
        if average:
            average.update()
        report(StepReport(done, losses, rate, norm))
        last = done == settings.steps or runtime.any(stop())
        if checkpoints is not None and (last or done % settings.checkpoint_every == 0):
            state = {"step": done, "settings": identity, **runtime.state(network, optimizer)}
            if average:
                state["average"] = average.state()
            if runtime.is_main:
                checkpoints.save(state)
        if settings.validate_every and (last or done % settings.validate_every == 0):
            with average.applied() if average else nullcontext():
                validate(done)
            network.train()
        if last:
            break
    if average:
        average.copy_to_parameters()
    network.eval()
    return done


def backward(
    model: TrainableModel,
    network: nn.Module,
    attention: SupervisedAttention,
    examples: Sequence[dict],
    number: int,
    settings: TrainSettings,
    runtime: Runtime,
) -> Tensor:
    """The total loss (docs/method.md, T3) of one batch, differentiated. `number`: of the batch, over all processes.

    Returns (2, terms): the sums of the terms over the samples, and of how many samples each is.
    """
    first = number * settings.batch_size
    generators = [sample_generator(settings.seed, first + b) for b in range(len(examples))]
    shown = [torch.rand((), generator=g).item() >= settings.caption_dropout for g in generators]
    wanted = noun_targets(
        [e["tokens"] if s else [] for e, s in zip(examples, shown, strict=True)],
        [e["masks"] if s else e["masks"][:0] for e, s in zip(examples, shown, strict=True)],
    ).to(runtime.device)
    captions = [e["caption"] if s else "" for e, s in zip(examples, shown, strict=True)]
    timesteps = torch.cat([torch.randint(len(model.alphas), (1,), generator=g) for g in generators])
    noisy, goal, conditioning = noisy_inputs(model, examples, captions, generators, timesteps, runtime)
    supervised = (settings.token_weight or settings.pixel_weight) and wanted.members.any()
    recording = attention.recording(wanted.columns, tuple(noisy.shape[-2:])) if supervised else nullcontext({})
    with recording as maps:
        with runtime.autocast():
            output = model.predict(network, noisy, timesteps.to(runtime.device), conditioning)
        ldm = (output.float() - goal).square().mean((1, 2, 3))
        grounding = grounding_losses(maps, wanted, settings.convention, model.text_length)
        total = ldm + settings.token_weight * grounding.token + settings.pixel_weight * grounding.pixel
        runtime.backward(total.mean() / settings.accumulation)
    terms = [total, ldm, *grounding]
    share, grounded = attention_share(maps, wanted)
    sums = torch.stack([*(term.detach().sum() for term in terms), share])
    counts = torch.tensor([float(len(examples))] * len(terms) + [grounded])
    return torch.stack([sums.float().cpu(), counts])


@torch.no_grad()
def noisy_inputs(
    model: TrainableModel,
    examples: Sequence[dict],
    captions: Sequence[str],
    generators: Sequence[torch.Generator],
    timesteps: Tensor,
    runtime: Runtime,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Noisy latents (B, C, h, w) at `timesteps` (B,), what the network should answer, and the conditioning."""
    images = torch.stack([example["image"] for example in examples]).to(runtime.device)
    conditioning = model.embed(captions, tuple(images.shape[-2:]))
    mean, std = model.encode(images, [example["key"] for example in examples])
    drawn = [torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators]).to(mean) for _ in range(2)]
    latents, noise = mean + std * drawn[0], drawn[1]
    alphas = model.alphas[timesteps].view(-1, 1, 1, 1).to(latents)
    noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    return noisy, model.parametrisation.target(latents, noise, alphas), conditioning


def check_finite(step: int, loss: float, norm: float, rate: float, settings: TrainSettings, runtime: Runtime) -> None:
    """Stop a run before an optimizer step that would spoil the weights, in all processes alike. Raises RealCompoError.

    That is a step whose loss, or whose gradient's norm, is NaN or infinite in any process. With fp16 a gradient of that
    kind is usual as long as the gradient scaler can lower its scale: such a step is left out by the scaler, and counts
    as done (`Runtime.skips_step`).
    """
    name, value = ("loss", loss) if not math.isfinite(loss) else ("gradient's norm", norm)
    is_wrong = not math.isfinite(value) and (name == "loss" or not runtime.skips_step)
    if runtime.any(is_wrong):
        wider = {"fp16": ", or bf16 or fp32 for precision", "bf16": ", or fp32 for precision", "fp32": ""}
        raise RealCompoError(
            f"the {name} is {value} at step {step} (learning_rate {rate:g}, precision {settings.precision}): begin "
            f"another run, in another folder, with a lower learning_rate{wider[settings.precision]}. Nothing of this "
            "step was learnt, and the checkpoints from before it are as they were"
        )


TERMS = ("total", "ldm", "token", "pixel", "share")


def sample_generator(seed: int, position: int) -> torch.Generator:
    """The random generator of the sample at this position of the run, whatever batch and process it is in."""
    (state,) = np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> 1))


def rate_factor(step: int, settings: TrainSettings) -> float:
    """Share of the learning rate at step 0, 1, ...: a linear warm-up, then the schedule down to 0."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[
        settings.schedule
    ]


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Those that require a gradient. Raises RealCompoError where there is none."""
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise RealCompoError("nothing to train: no parameter of the network requires a gradient")
    return trained


def make_optimizer(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW
    if settings.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit as kind
        except ImportError as error:
            raise RealCompoError(
                "optimizer adamw8bit needs bitsandbytes (`pip install bitsandbytes`): install it, or take adamw"
            ) from error
    return kind(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def supervised_layers(attention: ProjectionSource, factors: Sequence[int] | None = None) -> list[Layer]:
    """The layers of the middle block and the decoder, those whose maps are `factors` times smaller than the latent.

    factors: None for all. Raises RealCompoError where there is none.
    """
    layers = [layer for layer in attention.layers if layer.part != "encoder"]
    chosen = [layer for layer in layers if factors is None or layer.downsampling in factors]
    if not chosen:
        known = sorted({layer.downsampling for layer in layers})
        raise RealCompoError(f"factors is {factors}: this model's supervised layers have {known}")
    return chosen
