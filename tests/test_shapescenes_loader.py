"""ShapeScenes Loader in a real ComfyUI computes what the same weights compute in diffusers."""

import copy

import host_server
import torch

from realcompo_core.diffusers.conditioners import gligen_tokens
from realcompo_core.diffusers.text_conditioning import text_conditioning
from realcompo_core.layout import Layout, LayoutObject
from shapescenes import models
from shapescenes.files import load
from shapescenes.tiny_vae import TinyVAE
from shapescenes.tokenizer import tokenizer
from shapescenes.train import DIT_LORA_LAYERS
from tokencompose_core.lora import add_lora, lora_state, merge_lora, remove_lora

TEXTS = ["a red circle to the left of a blue square", ""]
LAYOUT = Layout(
    (LayoutObject("a red circle", (0.07, 0.3, 0.44, 0.68)), LayoutObject("a blue square", (0.55, 0.32, 0.93, 0.7)))
)


@torch.no_grad()
def random_weights(unet: torch.nn.Module) -> dict[str, dict]:
    """Of the segmentation ControlNet and of the TokenCompose LoRA, far from 0 everywhere."""
    control = models.segmentation_controlnet().state_dict()
    weights = {name: w + 0.1 * torch.randn(w.shape) / max(1, w[0].numel()) ** 0.5 for name, w in control.items()}
    add_lora(unet, rank=2)
    for name, parameter in unet.named_parameters():
        if name.endswith(".up.weight"):
            parameter.normal_(std=0.3)
    lora = lora_state(unet)
    remove_lora(unet)
    return {"segmentation_controlnet": weights, "tokencompose_lora": lora} | random_dit()


def random_dit() -> dict[str, dict]:
    """The transformer's weights, and those of a LoRA on it, far from 0 everywhere."""
    model = models.dit()
    state = {
        name: w + 0.3 * torch.randn(w.shape) / max(1, w[0].numel()) ** 0.5 for name, w in model.state_dict().items()
    }
    state["pos_embed.pos_embed"] = model.state_dict()["pos_embed.pos_embed"]
    add_lora(model, 2, DIT_LORA_LAYERS)
    for name, parameter in model.named_parameters():
        if name.endswith(".up.weight"):
            parameter.normal_(std=0.3)
    return {"dit": state, "dit_layout_lora": lora_state(model, "transformer")}


@torch.no_grad()
def velocities(weights: dict, x, text, pooled, sigma) -> dict[str, torch.Tensor]:
    """Of the transformer alone and with its LoRA, at two noise levels."""
    found = {}
    model = models.dit().eval()
    model.load_state_dict(weights["dit"])
    for name in ("dit", "dit_layout_lora"):
        if name != "dit":
            merge_lora(model, weights[name], "transformer")
        found[name] = model(x, text, pooled, 1000 * sigma).sample
    return found


@torch.no_grad()
def controlled(unet: torch.nn.Module, weights: dict, x, t, text, hint) -> torch.Tensor:
    network = models.segmentation_controlnet()
    network.load_state_dict(weights)
    down, middle = network.eval()(x, t, text, hint, conditioning_scale=0.8, return_dict=False)
    return unet(x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle).sample


@torch.no_grad()
def reference() -> dict:
    """Two latents at two noise levels, with the layout, a ControlNet and without; two pictures there and back."""
    fidelity, spatial = models.pipelines()
    torch.manual_seed(0)
    x, t, pictures = torch.randn(2, 8, 16, 16), torch.tensor([900, 100]), torch.rand(2, 3, 128, 96)
    text = text_conditioning(fidelity, TEXTS, 1, (128, 128))["encoder_hidden_states"]
    objects = gligen_tokens(tokenizer(), fidelity.text_encoder, [LAYOUT] * 2)
    nothing = objects | {"masks": torch.zeros_like(objects["masks"])}
    latent = fidelity.vae.encode(pictures * 2 - 1).latents
    weights = random_weights(fidelity.unet)
    sigma, pooled_text = torch.tensor([0.9, 0.2]), objects["positive_embeddings"][0, :2].clone()
    narrow = x[..., :12].clone()
    composed = copy.deepcopy(fidelity.unet)
    merge_lora(composed, weights["tokencompose_lora"])
    return {
        **velocities(weights, narrow, text, pooled_text, sigma),
        "sigma": sigma,
        "pooled_text": pooled_text,
        "weights": weights,
        "narrow": narrow,
        "controlled": controlled(fidelity.unet, weights["segmentation_controlnet"], narrow, t, text, pictures),
        "uncontrolled": fidelity.unet(narrow, t, text).sample,
        "composed": composed(x, t, text).sample,
        "texts": TEXTS,
        "ids": tokenizer()(TEXTS, padding="max_length").input_ids,
        "text": text,
        "phrases": [item.phrase for item in LAYOUT.objects],
        "boxes": [list(item.box) for item in LAYOUT.objects],
        "pooled": objects["positive_embeddings"][0, : len(LAYOUT.objects)].clone(),
        "x": x,
        "t": t,
        "plain": fidelity.unet(x, t, text).sample,
        "grounded": spatial.unet(x, t, text, cross_attention_kwargs={"gligen": objects}).sample,
        "empty": spatial.unet(x, t, text, cross_attention_kwargs={"gligen": nothing}).sample,
        "alphas": fidelity.scheduler.alphas_cumprod,
        "pictures": pictures,
        "latent": latent,
        "decoded": (fidelity.vae.decode(latent).sample / 2 + 0.5).clamp(0, 1),
    }


def test_loader_in_the_host_equals_diffusers(tmp_path, host_folder):
    file = tmp_path / "reference.pt"
    torch.save(reference(), file)
    host_server.run_checks(host_folder, "shapescenes_loader_checks.py", file)


@torch.no_grad()
def test_plain_autoencoder_equals_diffusers():
    plain, diffusers = TinyVAE(), models.vae()
    plain.load_state_dict(load("vae"))
    diffusers.load_state_dict(load("vae"))
    pictures = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = diffusers.encode(pictures).latents
    torch.testing.assert_close(plain.encode(pictures), latent)
    torch.testing.assert_close(plain.decode(latent), diffusers.decode(latent).sample)
