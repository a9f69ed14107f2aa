"""`record` around a diffusers UNet."""

import pytest
import torch
from diffusers import DiffusionPipeline

from realcompo_core.attention.maps import Keep
from realcompo_core.diffusers import record
from realcompo_core.diffusers.unet_attention import UNetAttention
from realcompo_core.errors import RealCompoError
from shapescenes.models import pipelines

PROMPT = "a red circle to the left of a blue square"


@pytest.fixture(scope="module")
def pipeline():
    return pipelines()[0]


def passed(pipeline, steps: int = 1) -> tuple:
    """What goes through the UNet: noise and text of a guided pair."""
    generator = torch.Generator().manual_seed(0)
    ids = pipeline.tokenizer(["", PROMPT], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        text = pipeline.text_encoder(ids).last_hidden_state
        for step in range(steps):
            pipeline.unet(torch.randn(2, 8, 16, 24, generator=generator), 900 - step, text)
    return text


def test_maps_are_those_of_the_softmax(pipeline):
    """Of each layer's own input, the negative half of the batch and the positive one."""
    inputs = {}
    hooks = [
        pipeline.unet.get_submodule(layer.name).register_forward_pre_hook(
            lambda module, args, kwargs, name=layer.name: inputs.update({name: args[0]}), with_kwargs=True
        )
        for layer in UNetAttention(pipeline.unet).layers
    ]
    with record(pipeline.unet, keep=Keep("all", "layers", "apart")) as maps:
        text = passed(pipeline)
    for hook in hooks:
        hook.remove()
    branch = maps.branch()
    assert branch.noise_levels == {0: 900.0} and len(branch.layers) == len(inputs) == 7
    for layer in UNetAttention(pipeline.unet).layers:
        module = pipeline.unet.get_submodule(layer.name)
        q, k = (
            t.unflatten(-1, (module.heads, -1)).transpose(1, 2)
            for t in (module.to_q(inputs[layer.name]), module.to_k(text))
        )
        whole = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1).mT
        for kind, wanted in zip(("negative", "positive"), whole.split(1), strict=True):
            found = branch.maps[kind, f"{layer.block}.{layer.depth}", 0].float()
            assert found.shape[-2:] == (16 // layer.downsampling, 24 // layer.downsampling)
            torch.testing.assert_close(found.flatten(-2), wanted, atol=1e-3, rtol=1e-3)


def test_the_limit_holds_for_all_steps_that_are_told(pipeline):
    keep = Keep("all", "layers", "apart", limit=2)  # a step takes 0.8 MB
    for steps, kept in ((0, [0, 1, 2, 3]), (4, [0, 2])):
        with record(pipeline.unet, keep=keep, steps=steps) as maps:
            passed(pipeline, steps=4)
        assert maps.branch().steps == kept, maps.nbytes
    assert maps.nbytes <= 2e6


def test_hooks_are_gone_after_an_error(pipeline):
    with pytest.raises(KeyError), record(pipeline.unet) as maps:
        passed(pipeline)
        raise KeyError
    before = maps.nbytes
    passed(pipeline)
    assert maps.nbytes == before and maps.branch().steps == [0]


def test_a_batch_that_is_no_pair_is_refused(pipeline):
    with pytest.raises(RealCompoError, match='a batch of 1 is not negative and positive.*"positive"'):
        with record(pipeline.unet), torch.no_grad():
            pipeline.unet(torch.zeros(1, 8, 16, 16), 1, torch.zeros(1, 32, 128))


def test_another_network_is_refused():
    with pytest.raises(RealCompoError, match="Linear has no cross-attention"), record(torch.nn.Linear(2, 2)):
        pass


def drawn(pipeline, prompt=PROMPT, **given):
    told = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}
    return pipeline(prompt, generator=torch.Generator().manual_seed(0), **told | given).images


@pytest.mark.parametrize("kind", ["fidelity", "sdxl"])
def test_a_pipeline_tells_its_prompt_itself(tiny_pipelines, kind):
    """The maps are those of its UNet with the prompt given, and the picture is as without; the newest run counts."""
    pipeline = getattr(tiny_pipelines, kind)
    with record(pipeline) as maps:
        drawn(pipeline, "a green star")
        found = drawn(pipeline)
    with record(pipeline.unet, PROMPT, pipeline.tokenizer, steps=2) as wanted:
        assert torch.equal(drawn(pipeline), found)
    assert maps.branch().words == wanted.branch().words and maps.branch().steps == [0, 1]
    assert maps.branch().maps.keys() == wanted.branch().maps.keys()
    assert all(torch.equal(maps.branch().maps[key], own) for key, own in wanted.branch().maps.items())
    square = maps.word("blue square")
    assert square.shape == (1, *maps.branch().size)
    torch.testing.assert_close(square[0], wanted.branch().word_maps([wanted.branch().find("blue square")])[0, 0])
    assert maps.word("circle", step=1).shape == square.shape and "encode_prompt" not in vars(pipeline)
    with pytest.raises(RealCompoError, match="'star' is not in the positive prompt"):
        maps.word("star")


def test_a_pipeline_without_guidance_and_with_a_batch(tiny_pipelines):
    pipeline = tiny_pipelines.fidelity
    with record(pipeline) as maps:
        drawn(pipeline, [PROMPT] * 2, guidance_scale=1.0)
    assert maps.branch().conditionings == ["positive"] and maps.word("circle").shape[0] == 2
    with record(pipeline) as maps:
        drawn(pipeline, negative_prompt="a heart", num_images_per_prompt=2)
    assert maps.word("heart", "negative").shape[0] == 2
    with pytest.raises(RealCompoError, match="2 different prompts"), record(pipeline):
        drawn(pipeline, [PROMPT, "a green star"])
    with pytest.raises(RealCompoError, match="a pipeline and a prompt"), record(pipeline, PROMPT):
        pass
    assert "encode_prompt" not in vars(pipeline)


def test_a_pipeline_whose_prompt_or_network_is_not_known(tiny_pipelines):
    with pytest.raises(RealCompoError, match="before the pipeline encoded a prompt"):
        with record(tiny_pipelines.fidelity):
            tiny_pipelines.fidelity.unet(torch.zeros(2, 4, 16, 16), 1, torch.zeros(2, 32, 128))
    with pytest.raises(RealCompoError, match="DiffusionPipeline has no UNet"), record(DiffusionPipeline()):
        pass
