"""Gradients within the memory that there is: gradient checkpointing of the host's networks, then item by item."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import partial
from typing import Any

import comfy.conds
import comfy.model_management
import torch
from comfy.ldm.flux.layers import DoubleStreamBlock, SingleStreamBlock
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.mmdit import JointBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.ldm.qwen_image.model import QwenImageTransformerBlock
from comfy.ldm.wan.model import WanAttentionBlock
from torch import Tensor, nn

from realcompo_core.attention.checkpointing import checkpointed, swapped_forwards
from realcompo_core.attention.input_gradients import InputGradientsOnly
from realcompo_core.attention.reading import Gradient
from realcompo_core.errors import RealCompoError

from .inference_tensors import UsableTensors

FLUX_BLOCKS = (DoubleStreamBlock, SingleStreamBlock)
JOINT_BLOCKS = (JointBlock, *FLUX_BLOCKS, QwenImageTransformerBlock, WanAttentionBlock)
STREAMS = ("img", "txt", "x")  # Flux's blocks' inputs into which they write
NORMS = ("img_norm1", "img_norm2", "txt_norm1", "txt_norm2", "pre_norm")  # of Flux's blocks


def feed_forward(network: nn.Module) -> list[nn.Module]:
    return [block.ff for block in _transformers(network)]


def residual_and_self_attention(network: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = [layer for layer in network.modules() if isinstance(layer, ResBlock)]
    return found + [block.attn1 for block in _transformers(network)]


def joint_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of transformers, which most of the network is."""
    return [block for block in network.modules() if isinstance(block, JOINT_BLOCKS)]


def gradient_checkpointing(
    modules: Sequence[nn.Module], modes: Callable[[], AbstractContextManager]
) -> AbstractContextManager:
    """Inside, `modules` keep only their input and run again in the backward pass, in `modes()`."""
    return swapped_forwards({module: checkpointed(_own_forward(module), modes) for module in modules})


def _own_forward(module: nn.Module) -> Callable:
    """The module's forward, which may run twice.

    That of SD3's blocks without the gradient checkpointing that the host has in them; that of Flux's, which write into
    their inputs, on copies of these.
    """
    if isinstance(module, JointBlock):
        return partial(module.forward, use_checkpoint=False)
    return partial(_on_copies, module.forward) if isinstance(module, FLUX_BLOCKS) else module.forward


def _on_copies(forward: Callable, *args: Any, **given: Any) -> Any:
    first = [args[0].clone(), *args[1:]] if args else []
    return forward(*first, **{name: value.clone() if name in STREAMS else value for name, value in given.items()})


def _unwritten_norms(network: nn.Module) -> dict[nn.Module, Callable]:
    """Forwards of the norms in Flux's blocks. What they keep for the backward pass would be written into later on."""

    def on_copy(forward: Callable, x: Tensor) -> Tensor:
        return forward(x.clone() if torch.is_grad_enabled() else x)

    blocks = [block for block in network.modules() if isinstance(block, FLUX_BLOCKS)]
    norms = [getattr(block, name) for block in blocks for name in NORMS if hasattr(block, name)]
    return {norm: partial(on_copy, norm.forward) for norm in norms}


def every_layer_checkpointed(networks: Sequence[nn.Module]) -> AbstractContextManager:
    """Inside, gradients of whole passes through these networks keep little more than the inputs of their layers."""
    return _checkpointed(networks, everything=True)


def within_memory(
    run: Callable[[Tensor, Callable[[Sequence[dict]], list[dict]]], Any],
    x: Tensor,
    networks: Sequence[nn.Module],
    read: Collection[nn.Module] = (),
) -> Any:
    """`run(x, of_items)`; when memory is short, with more layers checkpointed, and then item by item.

    read: modules in which the gradient is taken while they run; they are never checkpointed.

    `run` gives tensors or Gradients of the batch x, or a tuple of them, and passes its conditionings through
    `of_items`, which leaves those of the items that x holds. Raises RealCompoError where even one item is too much.
    """
    out_of_memory = comfy.model_management.OOM_EXCEPTION
    for everything, then in ((False, "recomputing more layers"), (True, "taking one picture at a time")):
        try:
            with _checkpointed(networks, everything, read):
                return run(x, list)
        except out_of_memory:
            comfy.model_management.soft_empty_cache()
            logging.warning("RealCompo: memory is short for the gradient, %s", then)
    if len(x) == 1:
        raise RealCompoError(
            f"not enough memory for the gradient of one picture of {x.shape[-1]}x{x.shape[-2]} latent pixels: choose a "
            "smaller size, `fixed` weights, or start the host with --lowvram"
        )

    def alone(item: int) -> Any:
        return run(x[item : item + 1], lambda conditioning: [of_item(entry, item) for entry in conditioning])

    with _checkpointed(networks, everything=True, read=read):
        return _joined([alone(item) for item in range(len(x))])


def of_item(entry: Mapping[str, Any], item: int) -> dict[str, Any]:
    """A conditioning of the host for one item of the batch alone.

    The host repeats a conditioning of fewer rows than the batch, row by row, so item i has row i modulo their number.
    """
    own = dict(entry)
    own["model_conds"] = {name: _cond_of_item(cond, item) for name, cond in entry.get("model_conds", {}).items()}
    if isinstance(entry.get("mask"), Tensor):
        own["mask"] = _row(entry["mask"], item)
    if entry.get("control") is not None:
        own["control"] = _control_of_item(entry["control"], item)
    return own


def _cond_of_item(cond: Any, item: int) -> Any:
    if isinstance(cond, comfy.conds.CONDConstant):
        return cond
    value = getattr(cond, "cond", None)
    if isinstance(value, Tensor):
        return cond._copy_with(_row(value, item))
    if isinstance(value, list) and all(isinstance(part, Tensor) for part in value):
        return cond._copy_with([_row(part, item) for part in value])
    return cond


def _control_of_item(control: Any, item: int) -> Any:
    """A ControlNet, and those before it, with the item's hint; the host keeps a hint at the batch's size on each."""
    own = copy(control)
    own.cond_hint = None
    if isinstance(own.cond_hint_original, Tensor):
        own.cond_hint_original = _row(own.cond_hint_original, item)
    if own.previous_controlnet is not None:
        own.previous_controlnet = _control_of_item(own.previous_controlnet, item)
    return own


def _row(tensor: Tensor, item: int) -> Tensor:
    row = item % len(tensor)
    return tensor[row : row + 1]


def _joined(parts: list) -> Any:
    """Batches of one as a batch: tensors, Gradients, or tuples of them; None where one of them is None."""
    first = parts[0]
    if any(part is None for part in parts):
        return None
    if isinstance(first, Tensor):
        return torch.cat(parts)
    joined = [_joined(list(part)) for part in zip(*parts, strict=True)]
    return Gradient(*joined) if isinstance(first, Gradient) else tuple(joined)


@contextmanager
def _checkpointed(networks: Sequence[nn.Module], everything: bool, read: Collection[nn.Module] = ()) -> Iterator[None]:
    """Inside, feed-forward layers and whole joint blocks but those in `read` are checkpointed.

    With `everything` also self-attention and residual blocks.
    """
    modules = [layer for network in networks for layer in feed_forward(network) + joint_blocks(network)]
    if everything:
        modules += [layer for network in networks for layer in residual_and_self_attention(network)]
    plain = {module: _own_forward(module) for module in read if isinstance(module, JointBlock)}
    plain |= {norm: forward for network in networks for norm, forward in _unwritten_norms(network).items()}
    kept = [module for module in modules if module not in set(read)]
    with swapped_forwards(plain), gradient_checkpointing(kept, _modes):
        yield


@contextmanager
def _modes() -> Iterator[None]:
    with UsableTensors(), InputGradientsOnly():
        yield


def _transformers(network: nn.Module) -> list[nn.Module]:
    layers = [layer for layer in network.modules() if isinstance(layer, SpatialTransformer)]
    return [block for layer in layers for block in layer.transformer_blocks]
