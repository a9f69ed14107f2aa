"""ShapeScenes Loader in a real ComfyUI computes what the same weights compute in diffusers."""

import host_server
import torch

from realcompo_core.diffusers.conditioners import gligen_tokens
from realcompo_core.diffusers.text_conditioning import text_conditioning
from realcompo_core.layout import Layout, LayoutObject
from shapescenes import models
from shapescenes.files import load
from shapescenes.tiny_vae import TinyVAE
from shapescenes.tokenizer import tokenizer

TEXTS = ["a red circle to the left of a blue square", ""]
LAYOUT = Layout(
    (LayoutObject("a red circle", (0.07, 0.3, 0.44, 0.68)), LayoutObject("a blue square", (0.55, 0.32, 0.93, 0.7)))
)


@torch.no_grad()
def reference() -> dict:
    """Two latents at two noise levels, with and without the layout; two pictures there and back."""
    fidelity, spatial = models.pipelines()
    torch.manual_seed(0)
    x, t, pictures = torch.randn(2, 8, 16, 16), torch.tensor([900, 100]), torch.rand(2, 3, 128, 96)
    text = text_conditioning(fidelity, TEXTS, 1, (128, 128))["encoder_hidden_states"]
    objects = gligen_tokens(tokenizer(), fidelity.text_encoder, [LAYOUT] * 2)
    nothing = objects | {"masks": torch.zeros_like(objects["masks"])}
    latent = fidelity.vae.encode(pictures * 2 - 1).latents
    return {
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
