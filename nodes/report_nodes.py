"""Balance Report: what the balancer did, as a picture."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui

from .report_picture import report_picture
from .schema import schema
from .types import BalanceTraceType


class BalanceReport(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoBalanceReport",
            display_name="Balance Report",
            description="Weights of the branches over time, losses, gradient magnitudes: one sheet a picture.",
            is_output_node=True,
            inputs=[BalanceTraceType.Input("trace", tooltip="From the Dual-UNet Balancer Sampler.")],
            outputs=[io.Image.Output(tooltip="One sheet for each picture of the batch.")],
        )

    @classmethod
    def execute(cls, trace) -> io.NodeOutput:
        sheets = [report_picture(trace, item) for item in range(len(trace.steps[0].weights))]
        image = torch.from_numpy(np.stack([np.asarray(sheet, dtype=np.float32) / 255 for sheet in sheets]))
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


NODES = [BalanceReport]
