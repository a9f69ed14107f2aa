"""Fixtures of many modules: a ComfyUI, published files, tiny pipelines of every kind that the adapter supports."""

import os
from types import SimpleNamespace

import host_server
import pytest
import torch

from benchmarks.published_data import published_file

pytest_plugins = ["not_run"]
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start; their models are tiny


HOSTS = host_server.find_hosts()
NO_HOST = pytest.param(None, marks=pytest.mark.skip(reason=host_server.NO_HOST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """For `pytest -n`: one process runs all tests of one host, whose server they share, or all others of one file."""
    from xdist.scheduler import LoadScopeScheduling

    class ByHostOrFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            names = [h.name for h in HOSTS if f"{test.rstrip(']')}-".partition("[")[2].startswith(f"{h.name}-")]
            return max(names, key=len, default=file)  # one host's name may begin with another's

    return ByHostOrFile(config, log)


@pytest.fixture(scope="session", params=HOSTS or [NO_HOST], ids=[host.name for host in HOSTS] or ["no host"])
def host_folder(request):
    """The folder of each ComfyUI in turn. Without any, what uses it is skipped."""
    return request.param


@pytest.fixture(scope="session")
def running_host(host_folder, tmp_path_factory):
    server = host_server.HostServer(host_folder, tmp_path_factory.mktemp("host") / "base")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def host(running_host):
    """The one running ComfyUI of the session, which has forgotten what other modules did."""
    running_host.forget()
    return running_host


@pytest.fixture
def published_text():
    """`published_text(name)`: a file of `benchmarks/published_data.py`; without the file, the test is skipped."""

    def read(name: str) -> str:
        try:
            return published_file(name).read_text(encoding="utf-8")
        except FileNotFoundError as absent:
            pytest.skip(str(absent))

    return read


@pytest.fixture(scope="session")
def tiny_pipelines():
    """`fidelity` (SD), `gligen` (SD with opened gates) and `sdxl`; autoencoder and text encoder are shared."""
    from diffusers import AutoencoderTiny, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
    from diffusers.pipelines.deprecated.stable_diffusion_gligen.pipeline_stable_diffusion_gligen import (
        StableDiffusionGLIGENPipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from shapescenes import models

    torch.manual_seed(0)
    text_encoder = models.text_encoder()
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=text_encoder.config.hidden_size,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    gated = UNet2DConditionModel.from_config(unet.config, attention_type="gated")
    for name, parameter in gated.named_parameters():
        if "alpha" in name:
            parameter.data.fill_(0.7)

    sdxl_config = CLIPTextConfig.from_dict({**text_encoder.config.to_dict(), "projection_dim": 64})
    text_encoder_2 = CLIPTextModelWithProjection(sdxl_config)
    sdxl_unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=2 * text_encoder.config.hidden_size,
        attention_head_dim=(2, 4),
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 64,
    )
    for module in (vae, text_encoder, text_encoder_2, unet, gated, sdxl_unet):
        module.eval()

    tokenizer, scheduler = models.tokenizer(), models.scheduler()
    shared = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
    sd = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipelines = SimpleNamespace(
        fidelity=StableDiffusionPipeline(**shared, unet=unet, **sd),
        gligen=StableDiffusionGLIGENPipeline(**shared, unet=gated, **sd),
        sdxl=StableDiffusionXLPipeline(
            **shared, unet=sdxl_unet, text_encoder_2=text_encoder_2, tokenizer_2=tokenizer, add_watermarker=False
        ),
    )
    for pipeline in vars(pipelines).values():
        pipeline.set_progress_bar_config(disable=True)
    return pipelines
