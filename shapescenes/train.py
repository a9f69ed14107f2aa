"""Train the whole family: `python -m shapescenes.train` (all stages), or one stage by name.

Stages, in order: vae, judge, text_to_image, layout_branch, segmentation_controlnet, tokencompose_lora, dit,
dit_layout_lora. Every stage is seeded, saves its state each minute and, run again after an interruption, goes on where
it was. Finished weights land in `shapescenes/weights`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from realcompo_core.attention.regional import RegionalTexts, attention_mask
from realcompo_core.diffusers.conditioners import gligen_tokens
from realcompo_core.diffusers.regional import masked_attention
from realcompo_core.files import replacing
from shapescenes import data, files, judge, models
from shapescenes.sizes import DIT_PATCH, LATENT_SCALE, LATENT_SIDE, TEXT_TOKENS
from shapescenes.tokencompose import RememberedLatents, example
from shapescenes.tokenizer import tokenizer
from shapescenes.world import SIZE, training_scene
from tokencompose_core.checkpoints import Checkpoints
from tokencompose_core.lora import add_lora, lora_state
from tokencompose_core.order import EpochOrder
from tokencompose_core.training import StepReport, TrainSettings, train

# settings --------------------------------------------------------------------------------------------------------
RENDERED, FLAT = 20_000, 8_000  # pictures in the training sets
STEPS = {  # one entry a cycle
    "vae": (4400,),
    "judge": (900,),
    "text_to_image": (1900, 2500),
    "layout_branch": (700,),
    "segmentation_controlnet": (3000,),
    "dit": (1200, 3300),  # scenes of one object, then all
    "dit_layout_lora": (450,),
}
BATCH = {
    "vae": 12,
    "judge": 32,
    "text_to_image": 48,
    "layout_branch": 48,
    "segmentation_controlnet": 32,
    "dit": 32,
    "dit_layout_lora": 24,
}
RATE = {  # peak learning rates
    "vae": 2e-3,
    "judge": 2e-3,
    "text_to_image": 1.2e-3,
    "layout_branch": 1.2e-3,
    "segmentation_controlnet": 1.2e-3,
    "dit": 2e-3,
    "dit_layout_lora": 1.2e-3,
}
CROP = 64  # pixels, VAE training
CAPTION_DROPOUT = 0.1
HINTED_CAPTION_DROPOUT = 0.3  # so that the ControlNet does not leave it to the caption to say what is where
EMA = 0.998
SNR_CAP = 5.0  # min-SNR-gamma weighting, Hang et al. 2023
SAVE_EVERY = 60  # seconds
DIT_LORA_LAYERS = r"attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)$|ff\.net\.(0\.proj|2)$"
MOST_OBJECTS = 4
LORA_RANK, LORA_SCENES, LORA_SEED, LORA_DRAWINGS = 16, 3000, 3, 5 * 10**6
LORA = TrainSettings(
    steps=400,
    batch_size=16,
    accumulation=1,
    learning_rate=5e-4,
    schedule="cosine",
    warmup=20,
    caption_dropout=0.1,
    checkpoint_every=50,
)


def train_loop(
    stage: str, model: nn.Module, loss: Callable[[int], Tensor], folder: Path, matrices: Sequence[nn.Parameter] = ()
) -> nn.Module:
    """AdamW, cosine decay with warm restarts (Loshchilov & Hutter 2017), EMA; resumable. Returns the EMA `model`.

    `loss(step)` must draw its batch from `step` alone, so that a resumed run sees what an uninterrupted one would.
    `matrices` are moved by Muon (Jordan et al. 2024) instead, with the same rate.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    others = [p for p in trained if not any(p is matrix for matrix in matrices)]
    optimizers = [torch.optim.AdamW(others, lr=RATE[stage], weight_decay=1e-2, betas=(0.9, 0.99))]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=RATE[stage], adjust_lr_fn="match_rms_adamw"))
    average = [p.detach().clone() for p in trained]
    state_file, first = folder / f"{stage}.state.pt", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        average, first = state["average"], state["step"]
    steps, saved, began = sum(STEPS[stage]), time.monotonic(), time.monotonic()
    for step in range(first, steps):
        torch.manual_seed(step)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = RATE[stage] * learning_rate(step, STEPS[stage])
        value = loss(step)
        model.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(EMA, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in trained], 1 - decay)
        if (step + 1) % 50 == 0:
            pace = (time.monotonic() - began) / (step + 1 - first)
            print(f"{stage} {step + 1}/{steps} loss {value.item():.4f} {pace:.2f} s/step", flush=True)
        if time.monotonic() - saved > SAVE_EVERY or step + 1 == steps:
            state = {"model": model.state_dict(), "average": average, "step": step + 1}
            with replacing(state_file) as part:
                torch.save({**state, "optimizers": [optimizer.state_dict() for optimizer in optimizers]}, part)
            saved = time.monotonic()
    with torch.no_grad():
        torch._foreach_copy_(trained, average)
    return model.eval()


def learning_rate(step: int, cycles: tuple[int, ...]) -> float:
    """Share of the peak rate: each cycle warms up in 100 steps and cools down to 2 % along a cosine."""
    for length in cycles:
        if step < length:
            return min(1.0, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * step / length))
        step -= length
    raise ValueError(f"step {step} is past the last of the cycles {cycles}")


def batches(stage: str, size: int) -> Callable[[int], np.ndarray]:
    """step -> the sorted indices of its batch, a fresh shuffle each epoch."""

    def indices(step: int) -> np.ndarray:
        per_epoch = size // BATCH[stage]
        order = np.random.default_rng([len(stage), step // per_epoch]).permutation(size)
        start = step % per_epoch * BATCH[stage]
        return np.sort(order[start : start + BATCH[stage]])

    return indices


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(B, 128, 128, 3) uint8 -> (B, 3, 128, 128) in -1..1, channels last."""
    tensor = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last)


def train_vae(folder: Path) -> None:
    rendered, flat = data.pictures("rendered", RENDERED, folder), data.pictures("flat", FLAT, folder)
    vae = models.vae().to(memory_format=torch.channels_last)
    pick_rendered, pick_flat = batches("vae", RENDERED), batches("vae", FLAT)

    def loss(step: int) -> Tensor:
        half = BATCH["vae"] // 3
        pictures = np.concatenate([rendered[pick_rendered(step)[half:]], flat[pick_flat(step)[:half]]])
        x, y = torch.randint(0, SIZE - CROP + 1, (2,)).tolist()
        target = to_tensor(pictures[:, y : y + CROP, x : x + CROP])
        with torch.autocast("cpu", torch.bfloat16):
            latent = vae.encoder(target)
            shown = latent + 0.03 * torch.randn_like(latent)  # a decoder that forgives the denoiser's small errors
            output = vae.decoder(shown).float()
        error = output - target
        edges = sum((error.diff(dim=d)).abs().mean() for d in (2, 3))
        latent = latent.float()
        mean, spread = latent.mean((0, 2, 3)), latent.var((0, 2, 3))
        return error.abs().mean() + 0.5 * edges + 0.01 * (mean.square() + spread.log().square()).mean()

    train_loop("vae", vae, loss, folder)
    files.save("vae", vae.state_dict())


def train_judge(folder: Path) -> None:
    """On both styles, half of the pictures seen through the autoencoder, with noise: it will judge generated ones."""
    sets = {style: data.pictures(style, n, folder) for style, n in (("rendered", RENDERED), ("flat", FLAT))}
    truth = {style: [judge.target(data.scene(style, i)) for i in range(len(sets[style]))] for style in sets}
    pick = {style: batches("judge", len(sets[style])) for style in sets}
    vae = models.vae().eval().to(memory_format=torch.channels_last)
    vae.load_state_dict(files.load("vae"))
    model = judge.Judge().to(memory_format=torch.channels_last)

    def loss(step: int) -> Tensor:
        half = BATCH["judge"] // 2
        chosen = {style: pick[style](step)[:half] for style in sets}
        picture = torch.cat([to_tensor(sets[style][chosen[style]]) for style in sets])
        wanted = torch.stack([truth[style][i] for style in sets for i in chosen[style]])
        with torch.autocast("cpu", torch.bfloat16):
            if step % 3 == 0:
                with torch.no_grad():
                    picture = vae.decoder(vae.encoder(picture)).float()
            picture = picture + 0.05 * torch.rand(()) * torch.randn_like(picture)
            output = model(picture).float()
        return judge.loss(output, wanted)

    train_loop("judge", model, loss, folder)
    files.save("judge", model.state_dict())


def latents(style: str, count: int, folder: Path) -> Tensor:
    """(count, 8, 16, 16): the training set through the autoencoder, scaled for diffusion; encoded on first use."""
    path = folder / f"{style}_{count}_latents.pt"
    if not path.exists():
        vae = models.vae().eval().to(memory_format=torch.channels_last)
        vae.load_state_dict(files.load("vae"))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            parts = data.pictures(style, count, folder)
            encoded = [vae.encoder(to_tensor(parts[i : i + 100])).float() for i in range(0, count, 100)]
        with replacing(path) as part:
            torch.save(torch.cat(encoded).contiguous() * LATENT_SCALE, part)
    return torch.load(path, weights_only=True)


def captions(style: str, count: int) -> Tensor:
    """(count + 1, 32) token ids; the last row is the empty caption."""
    texts = [data.scene(style, i).prompt.caption for i in range(count)]
    return tokenize([*texts, ""])


def tokenize(texts: list[str]) -> Tensor:
    return tokenizer()(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def diffusion_loss(predict: Callable[[Tensor, Tensor], Tensor], latent: Tensor) -> Tensor:
    """Noise prediction with min-SNR weights. latent: (B, 8, 16, 16); predict: noisy latents and timesteps to noise."""
    noise = torch.randn_like(latent)
    t = torch.randint(0, len(ALPHAS), (len(latent),))
    a = ALPHAS[t].view(-1, 1, 1, 1)
    noisy = a.sqrt() * latent + (1 - a).sqrt() * noise
    with torch.autocast("cpu", torch.bfloat16):
        output = predict(noisy, t).float()
    snr = ALPHAS[t] / (1 - ALPHAS[t])
    return (snr.clamp(max=SNR_CAP) / snr * (output - noise).square().mean((1, 2, 3))).mean()


def train_text_to_image(folder: Path) -> None:
    """UNet and text encoder together, on rendered scenes."""
    latent, text_ids = latents("rendered", RENDERED, folder), captions("rendered", RENDERED)
    pick = batches("text_to_image", RENDERED)
    model = nn.ModuleDict({"text_encoder": models.text_encoder(), "unet": models.unet()})
    model["unet"].set_attn_processor(AttnProcessor())  # on CPUs the fused kernel's backward is slow for short heads

    def loss(step: int) -> Tensor:
        chosen = torch.from_numpy(pick(step))
        shown = torch.where(torch.rand(len(chosen)) < CAPTION_DROPOUT, RENDERED, chosen)
        with torch.autocast("cpu", torch.bfloat16):
            text = model["text_encoder"](text_ids[shown]).last_hidden_state
        return diffusion_loss(lambda noisy, t: model["unet"](noisy, t, text).sample, latent[chosen])

    train_loop("text_to_image", model, loss, folder)
    files.save("text_encoder", model["text_encoder"].state_dict())
    files.save("unet", model["unet"].state_dict())


def train_layout_branch(folder: Path) -> None:
    """GLIGEN's gated layers and position net on the frozen UNet, on flat scenes: it learns places, and a flat look."""
    latent, text_ids = latents("flat", FLAT, folder), captions("flat", FLAT)
    pick = batches("layout_branch", FLAT)
    text_encoder = models.text_encoder().eval().requires_grad_(False)
    text_encoder.load_state_dict(files.load("text_encoder"))
    unet = models.unet(gated=True)
    unet.set_attn_processor(AttnProcessor())
    unet.load_state_dict(files.load("unet"), strict=False)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(".fuser." in name or name.startswith("position_net."))
    with torch.no_grad():
        text = torch.cat([text_encoder(ids).last_hidden_state for ids in text_ids.split(500)])
        layouts = [data.scene("flat", i).layout for i in range(FLAT)]
        grounding = gligen_tokens(tokenizer(), text_encoder, layouts)

    def loss(step: int) -> Tensor:
        chosen = torch.from_numpy(pick(step))
        shown = torch.where(torch.rand(len(chosen)) < CAPTION_DROPOUT, FLAT, chosen)
        gligen = {key: value[chosen] for key, value in grounding.items()}
        gligen["masks"] = gligen["masks"] * (shown < FLAT)[:, None]

        def predict(noisy: Tensor, t: Tensor) -> Tensor:
            return unet(noisy, t, text[shown], cross_attention_kwargs={"gligen": gligen}).sample

        with sdpa_kernel(SDPBackend.MATH):  # the gated layers know no attention processor
            return diffusion_loss(predict, latent[chosen])

    train_loop("layout_branch", unet, loss, folder)
    files.save("layout_branch", {k: v for k, v in unet.state_dict().items() if ".fuser." in k or "position_net" in k})


def train_segmentation_controlnet(folder: Path) -> None:
    """A ControlNet of the frozen UNet, on flat scenes: it learns classes and outlines, and a flat look."""
    latent, text_ids = latents("flat", FLAT, folder), captions("flat", FLAT)
    pick = batches("segmentation_controlnet", FLAT)
    text_encoder = models.text_encoder().eval().requires_grad_(False)
    text_encoder.load_state_dict(files.load("text_encoder"))
    unet = models.unet().requires_grad_(False)
    unet.load_state_dict(files.load("unet"))
    controlnet = ControlNetModel.from_unet(unet)
    for model in (unet, controlnet):
        model.set_attn_processor(AttnProcessor())
    with torch.no_grad():
        text = torch.cat([text_encoder(ids).last_hidden_state for ids in text_ids.split(500)])
    hints = data.segmentations(FLAT, folder)

    def loss(step: int) -> Tensor:
        chosen = torch.from_numpy(pick(step))
        shown = torch.where(torch.rand(len(chosen)) < HINTED_CAPTION_DROPOUT, FLAT, chosen)
        hint = torch.from_numpy(hints[chosen.numpy()]).permute(0, 3, 1, 2).float() / 255

        def predict(noisy: Tensor, t: Tensor) -> Tensor:
            down, middle = controlnet(noisy, t, text[shown], hint, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return unet(noisy, t, text[shown], **residuals).sample

        return diffusion_loss(predict, latent[chosen])

    train_loop("segmentation_controlnet", controlnet, loss, folder)
    files.save("segmentation_controlnet", controlnet.state_dict())


def train_tokencompose_lora(folder: Path) -> None:
    """The text-to-image UNet fine-tuned with TokenCompose's losses, on rendered scenes that it has not seen."""
    pipeline = models.pipelines()[0]
    pipeline.unet.set_attn_processor(AttnProcessor())
    add_lora(pipeline.unet, LORA_RANK)
    scenes = [training_scene(LORA_SEED, i, data.COUNTS["flat"]) for i in range(LORA_SCENES)]
    examples = [example(s, pipeline.tokenizer, LORA_DRAWINGS + i, adjectives=False) for i, s in enumerate(scenes)]
    order = EpochOrder(len(examples), LORA.seed)

    def batches(first: int) -> Iterator[list[dict]]:
        return ([examples[i] for i in part] for part in order.batches(LORA.batch_size, first))

    def report(step: StepReport) -> None:
        if step.step % 50 == 0:
            losses = ", ".join(f"{key} {value:.4f}" for key, value in step.losses.items())
            print(f"tokencompose_lora {step.step}/{LORA.steps} {losses}", flush=True)

    model = RememberedLatents(pipeline)
    train(model, batches, LORA, Checkpoints(folder / "tokencompose_lora", keep=1), report=report)
    files.save("tokencompose_lora", lora_state(pipeline.unet))


def flow_matching_loss(predict: Callable[[Tensor, Tensor], Tensor], latent: Tensor) -> Tensor:
    """Rectified flow with logit-normal noise levels (Esser et al. 2024). predict: noisy latents, levels to velocity."""
    noise = torch.randn_like(latent)
    sigma = torch.randn(len(latent)).sigmoid()
    noisy = torch.lerp(latent, noise, sigma.view(-1, 1, 1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        output = predict(noisy, sigma).float()
    return (output - (noise - latent)).square().mean()


def train_dit(folder: Path) -> None:
    """The transformer on rendered scenes, with the UNet's text encoder: first scenes of one object, then all."""
    latent, text_ids = latents("rendered", RENDERED, folder), captions("rendered", RENDERED)
    single = np.flatnonzero([len(data.scene("rendered", i).objects) == 1 for i in range(RENDERED)])
    pick_single, pick = batches("dit", len(single)), batches("dit", RENDERED)
    text_encoder = models.text_encoder().eval().requires_grad_(False)
    text_encoder.load_state_dict(files.load("text_encoder"))
    with torch.no_grad():
        encoded = [text_encoder(ids) for ids in text_ids.split(500)]
    text, pooled = (torch.cat([part[i] for part in encoded]) for i in range(2))
    transformer, timesteps = models.dit(), models.flow_scheduler().config.num_train_timesteps

    def loss(step: int) -> Tensor:
        chosen = torch.from_numpy(single[pick_single(step)] if step < STEPS["dit"][0] else pick(step))
        shown = torch.where(torch.rand(len(chosen)) < CAPTION_DROPOUT, RENDERED, chosen)

        def predict(noisy: Tensor, sigma: Tensor) -> Tensor:
            return transformer(noisy, text[shown], pooled[shown], timesteps * sigma).sample

        return flow_matching_loss(predict, latent[chosen])

    matrices = [p for p in transformer.transformer_blocks.parameters() if p.ndim == 2]
    train_loop("dit", transformer, loss, folder, matrices)
    files.save("dit", transformer.state_dict())


def train_dit_layout_lora(folder: Path) -> None:
    """A LoRA of the frozen transformer under regional attention, on flat scenes: it learns places, and a flat look."""
    latent, text_ids = latents("flat", FLAT, folder), captions("flat", FLAT)
    pick = batches("dit_layout_lora", FLAT)
    text_encoder = models.text_encoder().eval().requires_grad_(False)
    text_encoder.load_state_dict(files.load("text_encoder"))
    transformer, timesteps = models.dit(), models.flow_scheduler().config.num_train_timesteps
    transformer.load_state_dict(files.load("dit"))
    add_lora(transformer, LORA_RANK, DIT_LORA_LAYERS)
    layouts = [data.scene("flat", i).layout for i in range(FLAT)]
    grid = (LATENT_SIDE // DIT_PATCH,) * 2
    cells = torch.zeros(FLAT, 1 + MOST_OBJECTS, grid[0] * grid[1], dtype=torch.bool)
    phrases = sorted({item.phrase for layout in layouts for item in layout.objects})
    spoken = torch.zeros(FLAT, MOST_OBJECTS, dtype=torch.long)  # which phrase an object has
    for i, layout in enumerate(layouts):
        owned = RegionalTexts(layout, (1,) * (1 + len(layout.objects))).cells(grid)
        cells[i, : len(owned)] = owned
        for n, item in enumerate(layout.objects):
            spoken[i, n] = phrases.index(item.phrase)
    with torch.no_grad():
        encoded = [text_encoder(ids) for ids in text_ids.split(500)]
        phrase_text = text_encoder(tokenize(phrases)).last_hidden_state
    text, pooled = (torch.cat([part[i] for part in encoded]) for i in range(2))

    def loss(step: int) -> Tensor:
        chosen = torch.from_numpy(pick(step))
        shown = torch.where(torch.rand(len(chosen)) < CAPTION_DROPOUT, FLAT, chosen)
        of_texts = cells[chosen]
        of_texts[:, 1:] &= (shown < FLAT)[:, None, None]
        texts = torch.cat([text[shown], phrase_text[spoken[chosen]].flatten(1, 2)], 1)
        mask = attention_mask(of_texts, (TEXT_TOKENS,) * (1 + MOST_OBJECTS))

        def predict(noisy: Tensor, sigma: Tensor) -> Tensor:
            return transformer(noisy, texts, pooled[shown], timesteps * sigma).sample

        with masked_attention(mask, texts.shape[1]):
            return flow_matching_loss(predict, latent[chosen])

    train_loop("dit_layout_lora", transformer, loss, folder)
    files.save("dit_layout_lora", lora_state(transformer, "transformer"))


ALPHAS = models.scheduler().alphas_cumprod
STAGES: dict[str, Callable[[Path], None]] = {
    "vae": train_vae,
    "judge": train_judge,
    "text_to_image": train_text_to_image,
    "layout_branch": train_layout_branch,
    "segmentation_controlnet": train_segmentation_controlnet,
    "tokencompose_lora": train_tokencompose_lora,
    "dit": train_dit,
    "dit_layout_lora": train_dit_layout_lora,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: all")
    parser.add_argument("--folder", type=Path, default=Path("shapescenes_training"), help="training sets and states")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for stage in arguments.stages or STAGES:
        torch.manual_seed(0)
        STAGES[stage](arguments.folder)


if __name__ == "__main__":
    main()
