"""Invert Picture: the noise of a picture that a model did not draw, and where the model looks in it."""

from __future__ import annotations

import comfy.samplers
import comfy.utils
from comfy_api.latest import io

from realcompo_core.attention.maps import AttentionMaps, Keep
from realcompo_core.attention.recorder import Recorder
from realcompo_core.errors import RealCompoError
from realcompo_core.sampling.inversion import psnr

from .host.connections import output_is_used
from .host.inverted import drawn_again, inverted, steps_of
from .host.messages import show_on_node
from .host.prompt_tokens import prompt_words
from .host.recording import recorded
from .schema import ADVANCED, schema
from .types import AttentionMapsType

MAPS_SLOT = 5


class InvertPicture(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoInvertPicture",
            display_name="Invert Picture",
            description="A picture becomes the noise that a model draws it from, with what each word attends to in it.",
            search_aliases=["DDIM inversion", "null-text inversion", "unsampler", "attention of a photo"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.x, SD2.x or SDXL model."),
                io.Clip.Input("clip", tooltip="The CLIP that encodes the prompts."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
                io.Image.Input("image", tooltip="One picture, in a size that the model draws well."),
                io.String.Input("prompt", multiline=True, default="", tooltip="What the picture shows."),
                io.String.Input(
                    "negative_prompt", multiline=True, default="", tooltip="Where null-text inversion begins."
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="Steps of the inversion, and of sampling from it.",
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=1.0,
                    max=100.0,
                    step=0.1,
                    tooltip="With which it will be sampled. At 1 no null-text inversion is needed: much faster.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default="normal",
                    extra_dict=ADVANCED,
                    tooltip="Noise levels of the steps.",
                ),
                io.Int.Input(
                    "iterations",
                    default=10,
                    min=0,
                    max=1000,
                    extra_dict=ADVANCED,
                    tooltip="Null-text inversion: moves of each step's unconditional text, at most; 0 for none.",
                ),
                io.Int.Input(
                    "refinements",
                    default=2,
                    min=0,
                    max=100,
                    extra_dict=ADVANCED,
                    tooltip="How often the noise of each step is looked for again: 0 is plain DDIM inversion.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "latent",
                    tooltip="For SamplerCustom with add_noise off, sampler euler or ddim, and these outputs.",
                ),
                io.Conditioning.Output("positive", tooltip="The prompt."),
                io.Conditioning.Output("negative", tooltip="An unconditional text for each step."),
                io.Sigmas.Output("sigmas", tooltip="The noise levels."),
                io.Image.Output("reconstruction", tooltip="The picture as the model draws it again."),
                AttentionMapsType.Output("attention_maps", tooltip="Of the reconstruction, for Attention Map Viewer."),
                io.Float.Output("psnr", tooltip="Decibels between picture and reconstruction; higher is closer."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> bool:
        return output_is_used(MAPS_SLOT)

    @classmethod
    def execute(
        cls, model, clip, vae, image, prompt, negative_prompt, steps, cfg, scheduler, iterations, refinements
    ) -> io.NodeOutput:
        if len(image) != 1:
            raise RealCompoError(f"image: {len(image)} pictures were given: invert them one at a time")
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (prompt, negative_prompt))
        latent = vae.encode(image[..., :3])
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
        bar = comfy.utils.ProgressBar(steps_of(sigmas, cfg))
        found = inverted(
            model,
            latent,
            positive,
            negative,
            sigmas,
            cfg,
            iterations,
            refinements,
            bar.update_absolute,
        )
        maps = AttentionMaps()
        if output_is_used(MAPS_SLOT):
            words = {"positive": prompt_words(clip, prompt), "negative": prompt_words(clip, negative_prompt)}
            recorder = Recorder("model", Keep(), words)
            model = recorded(model, recorder)
            maps.branches.append(recorder.branch)
        picture = vae.decode(drawn_again(model, positive, found, cfg))
        best = vae.decode(latent)
        height, width = picture.shape[1:3]
        top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2  # the VAE's own cut
        shown = image[:, top : top + height, left : left + width, :3].to(picture)
        own, limit = (psnr(shown, other.clamp(0, 1)) for other in (picture, best))
        show_on_node(f"Drawn again with a PSNR of {own:.1f} dB; by the VAE alone {limit:.1f} dB")
        latents = {"samples": found.latent}
        return io.NodeOutput(latents, positive, found.negative, sigmas, picture, maps, own)


NODES = [InvertPicture]
