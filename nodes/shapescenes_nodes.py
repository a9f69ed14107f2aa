"""Node that loads the bundled models: ShapeScenes Loader."""

from __future__ import annotations

from comfy_api.latest import io

from .host import shapescenes as shapescenes_host
from .host.connections import output_is_used
from .schema import MAX_SIDE, schema

CONTROL_NET_SLOT = 5  # of the outputs


class RealCompoShapeScenesLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        sides = {"default": 128, "min": 16, "max": MAX_SIDE, "step": 8}
        return schema(
            node_id="RealCompoShapeScenesLoader",
            display_name="ShapeScenes Loader",
            description="The bundled models of coloured shapes: all a balanced picture needs, without a download.",
            search_aliases=["demo", "quickstart", "shapes", "bundled models"],
            inputs=[
                io.Int.Input("width", tooltip="Width in pixels. The models were trained at 128.", **sides),
                io.Int.Input("height", tooltip="Height in pixels. The models were trained at 128.", **sides),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Number of pictures."),
                io.Combo.Input(
                    "variant",
                    options=list(shapescenes_host.VARIANTS),
                    default="text to image",
                    optional=True,
                    tooltip="A UNet as it was trained first, or with what TokenCompose's losses taught it; or a "
                    "transformer like SD3's, and the same with a LoRA for Apply Layout (Regional Attention).",
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="Text to image: realistic, often wrong about what is where."),
                io.Gligen.Output("gligen", tooltip="Makes a UNet the layout branch, through Apply Layout (GLIGEN)."),
                io.Clip.Output("clip", tooltip="Knows the words of the world: colours, shapes, places, numbers."),
                io.Vae.Output("vae", tooltip="The autoencoder: 8 channels, an eighth of the size."),
                io.Latent.Output("latent", tooltip="Empty, of the size above."),
                io.ControlNet.Output(
                    "control_net", tooltip="Makes a UNet follow a segmentation picture, through Apply ControlNet."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> bool:
        return output_is_used(CONTROL_NET_SLOT)

    @classmethod
    def execute(cls, width, height, batch_size, variant="text to image") -> io.NodeOutput:
        return io.NodeOutput(
            shapescenes_host.load_model(variant),
            shapescenes_host.load_layout_branch(),
            shapescenes_host.load_clip(),
            shapescenes_host.load_vae(),
            shapescenes_host.empty_latent(width, height, batch_size),
            shapescenes_host.load_control_net() if output_is_used(CONTROL_NET_SLOT) else None,
        )


NODES = [RealCompoShapeScenesLoader]
