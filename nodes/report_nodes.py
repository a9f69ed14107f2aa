"""Balance Report: what the balancer did, as a picture."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui

from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.drawing import draw_reports

from .schema import schema
from .types import BalanceTraceType


class BalanceReport(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoBalanceReport",
            display_name="Balance Report",
            description="Attention, weights, losses and gradients of the branches over the steps: a sheet a picture.",
            is_output_node=True,
            inputs=[
                BalanceTraceType.Input("trace", tooltip="From the Dual-UNet Balancer Sampler or the Balanced Guider."),
                io.Image.Input(
                    "image", optional=True, tooltip="The picture that was sampled, so that this runs after the sampler."
                ),
            ],
            outputs=[io.Image.Output(tooltip="One sheet for each picture of the batch.")],
        )

    @classmethod
    def execute(cls, trace, image=None) -> io.NodeOutput:
        if trace is None or not (trace.steps or trace.note):
            raise RealCompoError(
                "trace is empty: nothing has been sampled yet with the guider that it comes from. Connect the sampled "
                "picture to the input image, so that this node runs after the sampler; if the sampler's result was "
                "cached, change its seed"
            )
        sheets = draw_reports(trace)
        batch = torch.from_numpy(np.stack([np.asarray(sheet, dtype=np.float32) / 255 for sheet in sheets]))
        return io.NodeOutput(batch, ui=ui.PreviewImage(batch, cls=cls))


NODES = [BalanceReport]
