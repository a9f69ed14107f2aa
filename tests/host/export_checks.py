"""What the host loads of checkpoints by `tokencompose_core/export.py`, run by its own Python: see `test_export.py`."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from pathlib import Path

FOLDER = Path(sys.argv[1])
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())
sys.path.append(str(Path(__file__).parents[2]))

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_base  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models as supported  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.model_detection import model_config_from_unet  # noqa: E402
from comfy.utils import load_torch_file  # noqa: E402

from tokencompose_core.export import V_BIAS, V_SPREAD, prediction_in_host  # noqa: E402

UNET, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
AUTOENCODER = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
NOT_IN_FILES = ("logit_scale", "clip_l.transformer.text_projection.weight")  # the host does without

torch.set_num_threads(1)
told: list[str] = []
handler = logging.Handler()
handler.emit = lambda record: told.append(record.getMessage())
logging.getLogger().addHandler(handler)
with torch.inference_mode():  # as the host runs nodes
    MODEL, CLIP, VAE, _ = comfy.sd.load_checkpoint_guess_config(str(FOLDER / "sd1.safetensors"))
WANTED = torch.load(FOLDER / "reference.pt", weights_only=True)
NAMES = json.loads((FOLDER / "names.json").read_text())


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    print(f"relative error {error:.1e}")
    assert error <= 1e-3, error


def shapes(state: dict) -> dict[str, tuple]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def below(prefix: str, state: dict) -> dict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def check_everything_is_found():
    assert isinstance(MODEL.model.model_config, supported.SD15)
    assert not [text for text in told if "missing" in text.lower() or "unexpected" in text], told


def check_unet():
    """D of x at the noise levels of t: the weights, the prediction type and the schedule."""
    x, t, text, eps = (WANTED[name] for name in ("x", "t", "text", "eps"))
    alphas = WANTED["alphas"][t]
    sigmas = ((1 - alphas) / alphas).sqrt()
    scaled = x * (sigmas**2 + 1).sqrt().view(-1, 1, 1, 1)
    denoised = MODEL.model.apply_model(scaled, sigmas, c_crossattn=text.repeat(2, 1, 1))
    same((scaled - denoised) / sigmas.view(-1, 1, 1, 1), eps)


def check_text():
    tokens = CLIP.tokenize(WANTED["prompt"])
    assert [token for token, _ in tokens["l"][0]] == WANTED["ids"]
    same(CLIP.encode_from_tokens(tokens), WANTED["text"])


def check_autoencoder():
    same(VAE.decode(WANTED["latent"].clone()).movedim(-1, 1), WANTED["decoded"])
    same(VAE.encode(WANTED["picture"].movedim(1, -1)), WANTED["encoded"])


def check_names_of_real_models():
    """The host's own classes have these weights, of these shapes, and no others."""
    for kind, config_class in (("sd14", supported.SD15), ("sd21", supported.SD20), ("sdxl", supported.SDXL)):
        state = {name: torch.empty(shape, device="meta") for name, shape in NAMES[kind].items()}
        config = model_config_from_unet(state, UNET)
        assert type(config) is config_class, (kind, config)
        with torch.device("meta"):
            unet = UNetModel(**config.unet_config, operations=comfy.ops.disable_weight_init)
            vae, text = AutoencoderKL(ddconfig=AUTOENCODER, embed_dim=4), config.clip_target().clip()
        assert shapes(below(UNET, state)) == shapes(unet.state_dict()), kind
        assert shapes(below(VAE_PREFIX, state)) == shapes(vae.state_dict()), kind
        found = config.process_clip_state_dict(dict(state))
        wanted = {name: s for name, s in shapes(text.state_dict()).items() if not name.endswith(NOT_IN_FILES)}
        assert shapes(found) == wanted, (kind, wanted.keys() ^ found.keys())
        assert all(name.startswith((UNET, VAE_PREFIX, "cond_stage_model.", "conditioner.")) for name in state)


def check_texts_of_open_clip():
    """The host's names for its OpenCLIP models hold what transformers' names held."""
    for kind, config, prefix in (("sd2", supported.SD20({}), "clip_h."), ("sdxl", supported.SDXL({}), "clip_g.")):
        found = below(f"{prefix}transformer.", config.process_clip_state_dict(load(kind)))
        for name, tensor in WANTED["texts"][kind].items():
            name = name if name.startswith("text_") else f"text_model.{name}"
            assert torch.equal(found[name].float(), tensor), (kind, name)


def load(kind: str) -> dict:
    return load_torch_file(str(FOLDER / f"{kind}.safetensors"))


def check_prediction_is_guessed_as_the_host_does():
    for spread in (0.9 * V_SPREAD, 1.1 * V_SPREAD):
        state = {V_BIAS: torch.tensor([spread, -spread]), "cond_stage_model.model.ln_final.weight": torch.ones(1)}
        taken = supported.SD20({"in_channels": 4}).model_type(state, UNET)
        assert taken == kind_of(prediction_in_host(state)), (spread, taken)
    for flags in ({}, {"v_pred": torch.empty(0)}):
        state = load("sdxl") | flags
        assert supported.SDXL({}).model_type(state, UNET) == kind_of(prediction_in_host(state)), flags


def kind_of(prediction: str) -> comfy.model_base.ModelType:
    types = comfy.model_base.ModelType
    return {"epsilon": types.EPS, "v_prediction": types.V_PREDICTION}[prediction]


failed = 0
for name, check in list(globals().items()):
    if name.startswith("check_"):
        try:
            with torch.inference_mode():
                check()
        except Exception:
            failed += 1
            print(f"{name}:\n{traceback.format_exc()}")
sys.exit(failed)
