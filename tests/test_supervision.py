"""Attention columns recorded during training, against attention written out."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from realcompo_core.diffusers.unet_attention import UNetAttention
from tokencompose_core.supervision import SupervisedAttention

COLUMNS = torch.tensor([[1, 2, 5], [3, 0, 0]])


def plain_columns(q, k, columns):
    p = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
    return torch.stack([item[..., chosen].transpose(-1, -2) for item, chosen in zip(p, columns, strict=True)])


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=8,
    )


@pytest.fixture
def layers(unet):
    return {name: module for name, module in unet.named_modules() if name.endswith("attn2") and "down" not in name}


def supervised(unet, layers):
    """The supervised attention of these layers of the network."""
    source = UNetAttention(unet)
    return SupervisedAttention(source, [layer for layer in source.layers if layer.name in layers])


def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 4, 8, 8), torch.tensor([100, 700]), torch.randn(2, 7, 16)


def written_out(unet, layers, x, t, text):
    """The network's output, and the maps of `supervised` from the layers' inputs by plain softmax attention."""
    maps = {}

    def read(name):
        def hook(module, args, kwargs):
            q, k = module.to_q(args[0]), module.to_k(kwargs["encoder_hidden_states"])
            q, k = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k))
            found = plain_columns(q, k, COLUMNS)
            maps[name] = found.unflatten(-1, [round(found.shape[-1] ** 0.5)] * 2)

        return hook

    hooks = [layer.register_forward_pre_hook(read(name), with_kwargs=True) for name, layer in layers.items()]
    output = unet(x, t, text).sample
    for hook in hooks:
        hook.remove()
    return output, maps


def score(output, maps):
    torch.manual_seed(2)
    return output.square().mean() + sum((maps[name] * torch.randn_like(maps[name])).sum() for name in sorted(maps))


def gradients(unet):
    found = {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}
    unet.zero_grad()
    return found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-5 * expected[name].abs().max().item())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_maps_and_gradients_are_those_of_plain_softmax(unet, layers, checkpointing):
    """Under gradient checkpointing too: a map that was recorded twice would count twice in the gradients."""
    x, t, text = inputs()
    output, expected = written_out(unet, layers, x, t, text)
    score(output, expected).backward()
    plain = gradients(unet)
    unet.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    try:
        with supervised(unet, layers).recording(COLUMNS, (8, 8)) as maps:
            found = unet(x, t, text).sample
            score(found, maps).backward()
    finally:
        unet.disable_gradient_checkpointing()
    assert maps.keys() == layers.keys()
    for name, m in maps.items():
        torch.testing.assert_close(m, expected[name])
    assert_same(gradients(unet), plain)


def test_other_layers_keep_nothing_of_their_attention(unet, layers):
    """Self-attention and encoder layers stay fused: with maps, autograd keeps two small tensors more for each layer."""

    def kept(recorder):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            x, t, text = inputs()
            with recorder.recording(COLUMNS, (8, 8)):
                unet(x, t, text)
        return sorted(sizes)

    without, with_maps = kept(supervised(unet, {})), kept(supervised(unet, layers))
    assert len(with_maps) - len(without) <= 4 * len(layers)  # q, k, columns, and a view's


def test_compiled_network_gives_the_same(unet, layers):
    x, t, text = inputs()
    with torch.no_grad(), supervised(unet, layers).recording(COLUMNS, (8, 8)) as eager:
        unet(x, t, text)
    torch._dynamo.reset()
    recorder = supervised(unet, layers)
    compiled = torch.compile(unet, backend="aot_eager")
    with recorder.recording(COLUMNS, (8, 8)) as maps:
        score(compiled(x, t, text).sample, maps).backward()
    found = gradients(unet)
    for name, m in maps.items():
        torch.testing.assert_close(m, eager[name])
    with recorder.recording(COLUMNS, (8, 8)) as maps:
        score(unet(x, t, text).sample, maps).backward()
    assert_same(gradients(unet), found)


def test_hooks_are_gone_afterwards_even_after_an_error(unet, layers):
    def count():
        return sum(len(module._forward_hooks) for module in unet.modules())

    with pytest.raises(ZeroDivisionError), supervised(unet, layers).recording(COLUMNS, (8, 8)):
        assert count() == 2 * len(layers)
        raise ZeroDivisionError
    assert count() == 0


def test_lora_layers_are_recorded_with_their_part(unet, layers):
    """to_q with something added beside it, as LoRA libraries do: its output is what the attention sees."""

    class Added(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.more = base, nn.Linear(base.in_features, base.out_features)

        def forward(self, x):
            return self.base(x) + self.more(x)

    (name, layer), *_ = layers.items()
    x, t, text = inputs()
    own = layer.to_q
    layer.to_q = Added(own)
    try:
        with torch.no_grad(), supervised(unet, {name: layer}).recording(COLUMNS, (8, 8)) as maps:
            unet(x, t, text)
        _, expected = written_out(unet, {name: layer}, x, t, text)
    finally:
        layer.to_q = own
    torch.testing.assert_close(maps[name], expected[name])
