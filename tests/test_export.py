"""Checkpoint files and UNet folders: read back by diffusers, and by a real ComfyUI where there is one."""

import json
import shutil
import warnings
from copy import copy, deepcopy
from types import SimpleNamespace

import diffusers
import host_server
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders import single_file_utils
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from realcompo_core.errors import RealCompoError
from shapescenes.tokenizer import tokenizer
from tokencompose_core import export, lora

HOSTS = host_server.find_hosts()
PROMPT = "a red circle to the left of a blue square"
RUN = {"batch_size": 4, "factors": (1, 2)}
METADATA = export.metadata(RUN, 500, "c0ffee")
UNETS = {
    "sd14": {"cross_attention_dim": 768},
    "sd21": {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "sdxl": {
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
CLIP_L = CLIPTextConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
)
CLIP_H = CLIPTextConfig(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu"
)
CLIP_G = CLIPTextConfig(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    projection_dim=1280,
    hidden_act="gelu",
)
TINY_CLIP = {"intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 99, "hidden_act": "gelu"}
TINY = {"block_out_channels": (8,) * 4, "norm_num_groups": 4}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def pipeline(unet, vae, encoder, encoder_2=None, **schedule):
    common = {"unet": unet, "vae": vae, "text_encoder": encoder, "tokenizer": tokenizer()}
    common["scheduler"] = DDIMScheduler(**BETAS, steps_offset=1, clip_sample=False, **schedule)
    if encoder_2:
        common |= {"text_encoder_2": encoder_2, "tokenizer_2": tokenizer()}
        return StableDiffusionXLPipeline(**common, add_watermarker=False)
    return StableDiffusionPipeline(**common, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def randomise(*modules):
    """Values by which no two tensors can be taken for each other, in fp16's precision."""
    for module in modules:
        module.eval()
        for parameter in module.parameters():
            spread = 0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            centre = float(parameter.ndim == 1 and parameter.min() == 1)
            parameter.data = (centre + spread * torch.randn_like(parameter)).half().float()


def without_memory(kind):
    """A pipeline of real sizes, of which only names and shapes exist."""
    with torch.device("meta"):
        if kind == "sdxl":
            encoders = CLIPTextModel(CLIP_L), CLIPTextModelWithProjection(CLIP_G)
        else:
            encoders = (CLIPTextModel(CLIP_H if kind == "sd21" else CLIP_L),)
        return pipeline(UNet2DConditionModel(**UNETS[kind]), AutoencoderKL(**VAE), *encoders)


@pytest.fixture(scope="module", params=UNETS)
def real(request):
    return without_memory(request.param)


@pytest.fixture(scope="session")
def small(tiny_pipelines):
    """Random pipelines of a few layers: `sd`, `sdxl`, and `sd2`, whose text is as wide as SD2.x's."""
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE | TINY)
    narrow = CLIPTextModelWithProjection(
        CLIPTextConfig(**TINY_CLIP, hidden_size=32, num_hidden_layers=2, projection_dim=24)
    )
    wide = CLIPTextModel(CLIPTextConfig(**TINY_CLIP, hidden_size=1024, num_hidden_layers=1, projection_dim=1024))
    sd2 = UNet2DConditionModel(**UNETS["sd21"] | TINY | {"attention_head_dim": 1})
    sd, sdxl, encoder = (
        deepcopy(module)
        for module in (tiny_pipelines.fidelity.unet, tiny_pipelines.sdxl.unet, tiny_pipelines.fidelity.text_encoder)
    )
    randomise(vae, narrow, wide, sd, sd2, sdxl, encoder)
    sd2.up_blocks[3].attentions[2].transformer_blocks[0].norm1.bias.data.zero_()  # to ComfyUI: predicts epsilon
    return SimpleNamespace(
        sd=pipeline(sd, vae, encoder), sd2=pipeline(sd2, vae, wide), sdxl=pipeline(sdxl, vae, encoder, narrow)
    )


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def header(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_diffusers_finds_every_unet_weight_under_its_name(real):
    names = list(real.unet.state_dict())
    renamed = {f"model.diffusion_model.{export.ldm_unet_name(name, real.unet.config)}": name for name in names}
    assert single_file_utils.convert_ldm_unet_checkpoint(renamed, real.unet.config) == {name: name for name in names}


def test_diffusers_finds_every_autoencoder_weight_under_its_name(real):
    weights = real.vae.state_dict()
    renamed = {f"first_stage_model.{export.ldm_vae_name(n, real.vae.config)}": t for n, t in weights.items()}
    found = single_file_utils.convert_ldm_vae_checkpoint(renamed, real.vae.config)
    assert found.keys() == weights.keys() and all(found[name] is weights[name] for name in weights)


@pytest.mark.parametrize(
    "kind, places",
    [("sd14", ["2.1", "5.2", "8.2"]), ("sd21", ["2.1", "5.2", "8.2"]), ("sdxl", ["2.2", "5.2"])],
)
def test_what_diffusers_takes_either_way_is_as_in_the_original(kind, places):
    """Upsamplers come after an attention, and the autoencoder's attention is made of convolutions."""
    state = shapes(export.ldm_state(without_memory(kind)))
    upsamplers = {f"model.diffusion_model.output_blocks.{place}.conv.weight" for place in places}
    assert {name for name in state if "output_blocks" in name and name.endswith(".conv.weight")} == upsamplers
    assert state["first_stage_model.decoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)


def test_diffusers_finds_the_text_encoders(real):
    state = export.ldm_state(real)
    found = {
        "clip": single_file_utils.convert_ldm_clip_checkpoint(state),
        "sd2": single_file_utils.convert_open_clip_checkpoint(real.text_encoder, state, "cond_stage_model.model."),
    }
    wanted = {"sd2" if "cond_stage_model.model.ln_final.bias" in state else "clip": real.text_encoder}
    if hasattr(real, "text_encoder_2"):
        wanted["sdxl"] = real.text_encoder_2
        found["sdxl"] = single_file_utils.convert_open_clip_checkpoint(
            real.text_encoder_2, state, "conditioner.embedders.1.model."
        )
    for kind, weights in found.items():
        encoder = wanted.get(kind, torch.nn.Module())
        prefix = "" if hasattr(encoder, "text_model") else "text_model."
        assert shapes(weights) == {prefix + name: shape for name, shape in shapes(encoder.state_dict()).items()}


def test_only_q_k_and_v_share_a_name_in_open_clip(real):
    encoder = getattr(real, "text_encoder_2", real.text_encoder)
    groups = {}
    for name in encoder.state_dict():
        groups.setdefault(export.open_clip_name(name), []).append(name)
    for name, group in groups.items():
        assert len(group) == (3 if ".in_proj_" in name else 1), (name, group)


@pytest.mark.parametrize("kind, loader", [("sd", StableDiffusionPipeline), ("sdxl", StableDiffusionXLPipeline)])
def test_single_file_gives_all_weights_back(small, tmp_path, kind, loader):
    saved = getattr(small, kind)
    saved.save_pretrained(tmp_path / "config")
    export.save_checkpoint(saved, tmp_path / "model.safetensors", METADATA)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    loaded = loader.from_single_file(
        tmp_path / "model.safetensors", config=str(tmp_path / "config"), local_files_only=True
    )
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if hasattr(saved, part):
            found, wanted = (getattr(pipe, part).state_dict() for pipe in (loaded, saved))
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name].float(), wanted[name]) for name in wanted), part


def test_layers_that_sd2_leaves_out_change_nothing(small):
    """With the layer and the projection that ComfyUI adds, the text encoder gives what it gives without."""
    encoder, prefix = small.sd2.text_encoder, "cond_stage_model.model."
    state = export.ldm_state(small.sd2)
    config = CLIPTextConfig.from_dict({**encoder.config.to_dict(), "num_hidden_layers": 2})
    longer = CLIPTextModelWithProjection(config).eval()
    longer.load_state_dict(single_file_utils.convert_open_clip_checkpoint(longer, state, prefix), strict=False)
    longer.text_projection.weight.data = state[f"{prefix}text_projection"].T
    ids = torch.tensor([[97, 5, 6, 98]])
    with torch.no_grad():
        found, wanted = longer(ids), encoder(ids)
    torch.testing.assert_close(found.last_hidden_state, wanted.last_hidden_state)
    torch.testing.assert_close(found.text_embeds, wanted.pooler_output)


def test_unet_folder_loads_with_its_own_precision(small, tmp_path):
    unet = deepcopy(small.sd.unet).to(torch.bfloat16)
    export.save_unet(unet, tmp_path / "unet", METADATA)
    assert sorted(path.name for path in (tmp_path / "unet").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "unet", torch_dtype=torch.bfloat16)
    configs = [json.loads(model.to_json_string()) | {"_name_or_path": ""} for model in (loaded, unet)]
    assert configs[0] == configs[1]
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in unet.state_dict().items())


def test_headers_tell_of_the_run(small, tmp_path):
    export.save_unet(small.sd.unet, tmp_path, METADATA)
    export.save_checkpoint(small.sd, tmp_path / "model.safetensors", METADATA)
    for path in tmp_path.glob("*.safetensors"):
        found = header(path)
        assert json.loads(found["realcompo.settings"]) == RUN | {"factors": [1, 2]}
        assert json.loads(found["realcompo.step"]) == 500
        assert json.loads(found["realcompo.fingerprint"]) == "c0ffee"
        versions = json.loads(found["realcompo.versions"])
        assert versions["diffusers"] == diffusers.__version__
        assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]  # builds differ in what follows


def test_files_can_be_read_by_whom_others_can(small, tmp_path):
    """safetensors 0.8 itself makes files for their owner alone."""
    (tmp_path / "other").touch()
    export.save_checkpoint(small.sd, tmp_path / "model.safetensors", METADATA)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_tied_weights_are_saved_twice(small, tmp_path):
    tied = copy(small.sd)
    tied.text_encoder = deepcopy(small.sd.text_encoder)
    attention = tied.text_encoder.encoder.layers[0].self_attn
    attention.k_proj.weight = attention.q_proj.weight
    export.save_checkpoint(tied, tmp_path / "model.safetensors", METADATA, torch.float32)
    found = load_file(tmp_path / "model.safetensors")
    name = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.{}_proj.weight"
    assert torch.equal(found[name.format("q")], attention.q_proj.weight)
    assert torch.equal(found[name.format("k")], attention.q_proj.weight)


def test_v_prediction_of_sdxl_is_a_key(small):
    flags = {"v_pred", "ztsnr"}
    for schedule, wanted in (
        ({}, set()),
        ({"prediction_type": "v_prediction"}, {"v_pred"}),
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, flags),
    ):
        pipe = pipeline(small.sdxl.unet, small.sdxl.vae, small.sd.text_encoder, small.sdxl.text_encoder_2, **schedule)
        assert flags & export.ldm_state(pipe).keys() == wanted


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spread, taken", [(0.08, "epsilon"), (0.1, "v_prediction")])
def test_prediction_of_sd2_that_the_host_will_mistake_is_told(small, tmp_path, prediction, spread, taken):
    unet = deepcopy(small.sd2.unet)
    unet.up_blocks[3].attentions[2].transformer_blocks[0].norm1.bias.data = torch.tensor([spread, -spread] * 4)
    pipe = pipeline(unet, small.sd2.vae, small.sd2.text_encoder, prediction_type=prediction)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        export.save_checkpoint(pipe, tmp_path / "model.safetensors", METADATA)
    told = [str(warning.message) for warning in told if "ComfyUI" in str(warning.message)]
    assert len(told) == (prediction != taken)
    assert all(f"predicts {prediction}" in text and f"for {taken}" in text for text in told)


def test_v_prediction_of_sd1_is_told(small, tmp_path):
    pipe = pipeline(small.sd.unet, small.sd.vae, small.sd.text_encoder, prediction_type="v_prediction")
    with pytest.warns(UserWarning, match="ModelSamplingDiscrete"):
        export.save_checkpoint(pipe, tmp_path / "model.safetensors", METADATA)


def test_failed_write_names_the_path_and_keeps_the_older_file(small, tmp_path, monkeypatch):
    def full(weights, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(export, "save_file", full)
    (tmp_path / "config.json").write_text("{}")
    for name in ("model.safetensors", "diffusion_pytorch_model.safetensors"):
        (tmp_path / name).write_text("older")
    with pytest.raises(RealCompoError, match="model.safetensors: No space left"):
        export.save_checkpoint(small.sd, tmp_path / "model.safetensors", METADATA)
    with pytest.raises(RealCompoError, match="diffusion_pytorch_model.safetensors: No space left"):
        export.save_unet(small.sd.unet, tmp_path, METADATA)
    assert {path.read_text() for path in tmp_path.glob("*.safetensors")} == {"older"}
    assert not list(tmp_path.glob("*.part"))


def test_places_that_cannot_be_written_are_named(small, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    for path in (tmp_path / "no" / "such" / "a.safetensors", tmp_path / "file" / "a", tmp_path / "folder.safetensors"):
        with pytest.raises(RealCompoError) as error:
            export.save_checkpoint(small.sd, path, METADATA)
        assert f"cannot write {path}: " in str(error.value)
    for folder in (tmp_path / "no" / "such", tmp_path / "file"):
        with pytest.raises(RealCompoError) as error:
            export.save_unet(small.sd.unet, folder, METADATA)
        assert str(folder) in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_adapters_and_other_models_are_refused(small, tiny_pipelines, tmp_path):
    adapted = copy(small.sd)
    adapted.unet = deepcopy(small.sd.unet)
    lora.add_lora(adapted.unet, rank=2)
    for pipe, culprit in (
        (adapted, r"attn1\.to_q\.lora\.down\.weight"),
        (tiny_pipelines.gligen, r"fuser|position_net"),
        (tiny_pipelines.fidelity, r"encoder\.layers\.0"),
    ):
        with pytest.raises(RealCompoError, match=culprit):
            export.save_checkpoint(pipe, tmp_path / "model.safetensors", METADATA)
    with pytest.raises(RealCompoError, match="lora"):
        export.save_unet(adapted.unet, tmp_path / "unet", METADATA)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="session")
def hosts_folder(small, tmp_path_factory):
    """A checkpoint that ComfyUI takes for SD1.5, with outputs; texts of SD2.x and SDXL; names of all real models."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("host")
    unet = UNet2DConditionModel(
        **UNETS["sd14"],
        block_out_channels=(320, 640),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    pipe = pipeline(unet, AutoencoderKL(**VAE), CLIPTextModel(CLIP_L))
    randomise(pipe.unet, pipe.vae, pipe.text_encoder)
    export.save_checkpoint(pipe, folder / "sd1.safetensors", METADATA)
    for name in ("sd2", "sdxl"):
        export.save_checkpoint(getattr(small, name), folder / f"{name}.safetensors", METADATA)
    texts = {"sd2": small.sd2.text_encoder.state_dict(), "sdxl": small.sdxl.text_encoder_2.state_dict()}
    words = CLIPTokenizer.from_pretrained(HOSTS[0] / "comfy" / "sd1_tokenizer")
    ids = words(PROMPT, padding="max_length", max_length=77).input_ids
    torch.save({"prompt": PROMPT, "ids": ids, "texts": texts, **outputs(pipe, ids)}, folder / "reference.pt")
    names = {kind: shapes(export.ldm_state(without_memory(kind))) for kind in UNETS}
    (folder / "names.json").write_text(json.dumps(names))
    yield folder
    shutil.rmtree(folder)  # half a gigabyte


@torch.no_grad()
def outputs(pipe, ids):
    x, t = torch.randn(2, 4, 16, 8), torch.tensor([900, 100])
    latent, picture = torch.randn(1, 4, 8, 6), torch.rand(1, 3, 64, 48)
    text = pipe.text_encoder(torch.tensor([ids])).last_hidden_state
    return {
        "text": text,
        "x": x,
        "t": t,
        "eps": pipe.unet(x, t, text.repeat(2, 1, 1)).sample,
        "alphas": pipe.scheduler.alphas_cumprod,
        "latent": latent,
        "decoded": (pipe.vae.decode(latent).sample / 2 + 0.5).clamp(0, 1),
        "picture": picture,
        "encoded": pipe.vae.encode(picture * 2 - 1).latent_dist.mean,
    }


def test_host_loads_what_diffusers_computes(host_folder, hosts_folder):
    host_server.run_checks(host_folder, "export_checks.py", hosts_folder)
