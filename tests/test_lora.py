"""Adapters on linear layers: what they add, what is trained, what is saved."""

import copy

import pytest
import torch

from realcompo_core.errors import RealCompoError
from tokencompose_core.lora import add_lora, lora_state, remove_lora


@pytest.fixture
def unet(tiny_pipelines):
    return copy.deepcopy(tiny_pipelines.fidelity.unet)


def answer(unet):
    torch.manual_seed(0)
    with torch.no_grad():
        width = unet.config.cross_attention_dim
        return unet(torch.randn(1, 4, 16, 16), torch.tensor([300]), torch.randn(1, 7, width)).sample


def teach(unet):
    torch.manual_seed(1)
    for name, p in unet.named_parameters():
        if ".lora.up" in name:
            torch.nn.init.normal_(p, std=0.1)


def test_adapters_start_as_nothing_and_only_they_are_trained(unet):
    before = answer(unet)
    count = add_lora(unet, 4)
    trained = [name for name, p in unet.named_parameters() if p.requires_grad]
    assert count > 0 and len(trained) == 2 * count and all(".lora." in name for name in trained)
    assert torch.equal(answer(unet), before)
    teach(unet)
    assert not torch.allclose(answer(unet), before)
    remove_lora(unet)
    assert torch.equal(answer(unet), before) and not any("lora" in name for name, _ in unet.named_parameters())


def test_what_is_saved_is_the_difference_of_the_weights(unet):
    """W + up · down in the plain network answers as the network with adapters does."""
    plain = copy.deepcopy(unet)
    add_lora(unet, 4)
    teach(unet)
    state = lora_state(unet)
    weights = dict(plain.named_parameters())
    for name in [n for n in state if n.endswith("lora_A.weight")]:
        layer = name.removesuffix(".lora_A.weight")
        up = state[f"{layer}.lora_B.weight"]
        weights[f"{layer.removeprefix('unet.')}.weight"].data += up @ state[name]
    torch.testing.assert_close(answer(plain), answer(unet), rtol=1e-4, atol=1e-5)


def test_diffusers_loads_what_is_saved(tiny_pipelines, unet, tmp_path):
    pytest.importorskip("peft", reason="diffusers needs peft to load a LoRA")
    from safetensors.torch import save_file

    add_lora(unet, 4)
    teach(unet)
    save_file(lora_state(unet), tmp_path / "lora.safetensors")
    pipeline = copy.deepcopy(tiny_pipelines.fidelity)
    before = answer(pipeline.unet)
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    found = answer(pipeline.unet)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(found, answer(unet), rtol=1e-4, atol=1e-5)


def test_rank_and_layers_that_do_not_exist_are_named(unet):
    with pytest.raises(RealCompoError, match="rank 0"):
        add_lora(unet, 0)
    with pytest.raises(RealCompoError, match="nowhere.*0 layers match"):
        add_lora(unet, 4, layers="nowhere")
