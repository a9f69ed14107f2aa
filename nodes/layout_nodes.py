"""Nodes that make and show layouts."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from realcompo_core.errors import Cancelled, LayoutError, ProviderError
from realcompo_core.layout import MIN_CONFIDENCE, Layout
from realcompo_core.layout.drawing import draw_layout, readable_size
from realcompo_core.layout.formats import (
    from_boxes_or_elements,
    from_masks,
    split_phrases,
    to_bounding_boxes,
    to_elements,
)
from realcompo_core.layout.keypoints import from_pose_keypoints, parse_people
from realcompo_core.layout.openpose_picture import draw_pose
from realcompo_core.layout.segmentation import (
    ADE20K,
    TOLERANCE,
    draw_segmentation,
    from_colour_map,
    from_index_mask,
    parse_classes,
    parse_indices,
    parse_phrases,
)
from realcompo_core.providers import LayoutProvider, TextProvider, get_provider, provider_names
from realcompo_core.providers.conversation import proposed, revised
from realcompo_core.providers.prompting import Chat, single_message
from realcompo_core.providers.text import FORMATS
from shapescenes.palette import PALETTE as SHAPESCENES

from .host.messages import show_on_node, show_outside, warn_on_node
from .schema import ADVANCED, MAX_SIDE, schema, size_inputs
from .types import ArrayType, BoundingBoxType, LayoutType, PoseKeypointType

POLL = 0.2  # seconds between two looks at a provider that is still thinking
ABSENT = object()
PALETTES = {"ADE20K": ADE20K, "ShapeScenes": SHAPESCENES}
OPENPOSE = "openpose"
SEGMENTATION = {f"segmentation ({name})": palette for name, palette in PALETTES.items()}

PHRASES_TIP = "What the objects are: one phrase a line, or separated by commas. A single phrase names them all."
PROMPT_TIP = "The sentence that the layout belongs to. If given, every phrase must occur in it."
IMAGE_TIP = "Which image of a batch the objects are taken from, counted from 0."


def phrases_input(**settings) -> io.Input:
    return io.String.Input("phrases", multiline=True, default="", tooltip=PHRASES_TIP, **settings)


def prompt_input() -> io.Input:
    return io.String.Input("prompt", multiline=True, default="", optional=True, tooltip=PROMPT_TIP)


def image_input() -> io.Input:
    return io.Int.Input("image", default=0, min=0, max=4096, optional=True, tooltip=IMAGE_TIP, extra_dict=ADVANCED)


def picture_of(layout: Layout, width: int, height: int, background: torch.Tensor | None = None) -> torch.Tensor:
    """The drawn layout as IMAGE, of the readable size; one image, or one for each of `background`."""
    pictures = [None]
    if background is not None:
        pictures = [Image.fromarray(image[..., :3].mul(255).byte().cpu().numpy()) for image in background.clamp(0, 1)]
    return image_of([draw_layout(layout, readable_size((width, height)), picture) for picture in pictures])


def image_of(pictures: list[Image.Image]) -> torch.Tensor:
    """Pictures of one size as IMAGE: (images, height, width, 3) in 0..1."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float() / 255


class LLMLayout(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoLLMLayout",
            display_name="LLM Layout",
            description="Turns a sentence into a layout: which objects the picture shows, and where.",
            search_aliases=["text to layout", "layout from prompt", "bounding boxes from text", "gpt layout"],
            is_output_node=True,  # the host shows a cached result on output nodes alone
            inputs=[
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="a red circle to the left of a blue square",
                    tooltip="The sentence that describes the picture. Give the same one to the text encoders.",
                ),
                *size_inputs("the picture"),
                io.Combo.Input(
                    "provider",
                    options=known_providers(),
                    default="rules",
                    tooltip="Who makes the layout. rules: grammar and geometry, no model. text: the connected reply. "
                    "Others: language models described on this machine; the workflow keeps their names.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    control_after_generate=True,
                    tooltip="Another seed asks a language model for another layout. The rules ignore it.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="A language model that a CLIP loader of the host loaded (Qwen3, Gemma, …). It writes the "
                    "layout in place of the provider; nothing leaves this machine.",
                ),
                io.String.Input(
                    "reply",
                    optional=True,
                    force_input=True,
                    tooltip="What any language model node answered; then neither clip nor provider is asked.",
                ),
                io.Float.Input(
                    "timeout",
                    default=120.0,
                    min=1.0,
                    max=3600.0,
                    step=1.0,
                    optional=True,
                    tooltip="Seconds after which a provider that has not answered is an error.",
                    extra_dict=ADVANCED,
                ),
                io.Int.Input(
                    "max_length",
                    default=2048,
                    min=64,
                    max=32768,
                    optional=True,
                    tooltip="The most tokens that clip writes. Raise it if the reply breaks off.",
                    extra_dict=ADVANCED,
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="auto",
                    optional=True,
                    tooltip="The order of a box's numbers in a reply. xyxy: left, top, right, bottom. xywh: left, top, "
                    "width, height. yxyx: top, left, bottom, right. lmd: xywh in pixels of 512 x 512. auto: found out. "
                    "The rules have no reply.",
                    extra_dict=ADVANCED,
                ),
                LayoutType.Input(
                    "layout",
                    optional=True,
                    tooltip="A layout to change as instruction says. Its own prompt counts then, if it has one.",
                ),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What to change in the connected layout: move the cat to the left, make it bigger, add a "
                    "red ball. Empty: the layout is passed on as it is.",
                ),
            ],
            outputs=[
                LayoutType.Output(display_name="layout", tooltip="The objects and their places."),
                BoundingBoxType.Output(
                    display_name="bboxes", tooltip="The boxes in pixels, for Create Bounding Boxes."
                ),
                io.String.Output(display_name="elements", tooltip="The boxes as JSON, in thousandths."),
                io.Image.Output(display_name="preview", tooltip="The layout drawn."),
                io.String.Output(
                    display_name="prompt",
                    tooltip="The sentence for the text encoders: it also names what an instruction added.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, provider, clip=ABSENT, reply=ABSENT):
        # A linked input is here as None, whatever it will be.
        if provider is None or clip is not ABSENT or reply is not ABSENT:
            return True
        try:
            get_provider(provider)
        except ProviderError as error:
            return str(error)
        return True

    @classmethod
    async def execute(
        cls,
        prompt,
        width,
        height,
        provider,
        seed,
        clip=None,
        reply=None,
        timeout=120.0,
        max_length=2048,
        format="auto",
        layout=None,
        instruction="",
    ) -> io.NodeOutput:
        if layout is None and instruction.strip():
            raise LayoutError(f"instruction {instruction!r}: connect the layout that it changes, or leave it empty")
        size, replies, notes = (width, height), [], []

        def on_reply(text: str) -> None:
            replies.append(text)
            show_on_node(text)  # before it is parsed, so that it can be seen if that fails

        def made_by(source: LayoutProvider) -> Layout:
            return source.revise(layout, instruction, size) if layout else source.propose(prompt, size)

        if layout:
            layout = replace(layout, prompt=layout.prompt or prompt)
            layout.validate(layout.prompt or None)
        if reply is not None:
            on_reply(reply)
            found = made_by(TextProvider(reply, format))
        elif layout and not instruction.strip():
            notes.append("no instruction: the layout is passed on as it is")
            found = layout
        elif clip is not None:
            found = made_by(ClipProvider(clip, seed, max_length, format, on_reply))
        else:
            found = await asked(provider, made_by, on_reply, seed=seed, timeout=timeout, format=format)
        if format != "auto" and not replies:
            notes.append(f"format {format} is not used: there is no reply to read")
        if len(replies) > 1:
            notes.append("the first reply could not be used, this is the corrected one")
        notes += found.warnings
        for note in notes:
            logging.warning("RealCompo: LLM Layout: %s", note)
        show_outside(notes)
        text = "\n".join([*(f"Note: {note}" for note in notes), replies[-1] if replies else found.to_json()])
        picture = picture_of(found, width, height)
        return io.NodeOutput(
            found,
            to_bounding_boxes(found, width, height),
            json.dumps(to_elements(found), ensure_ascii=False),
            picture,
            found.prompt or prompt,
            ui={**ui.PreviewImage(picture).as_dict(), **ui.PreviewText(text).as_dict()},
        )


def known_providers() -> list[str]:
    try:
        return provider_names()
    except ProviderError as error:  # a damaged profile file must not take the whole pack with it
        logging.warning("RealCompo: %s", error)
        return ["rules", "text"]


class ClipProvider:
    """Layouts by the language model in `clip`."""

    name = "clip"

    def __init__(self, clip, seed: int, max_length: int, format: str, on_reply: Callable[[str], None]):
        self.clip = clip
        self.seed = seed
        self.max_length = max_length
        self.format = format
        self.on_reply = on_reply

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        return proposed(self._ask, prompt, size, self.format)

    def revise(self, layout: Layout, instruction: str, size: tuple[int, int]) -> Layout:
        return revised(self._ask, layout, instruction, size, self.format)

    def _ask(self, chat: Chat) -> str:
        options = {"do_sample": True, "temperature": 0.7, "max_length": self.max_length, "seed": self.seed}
        try:
            tokens = self.clip.tokenize(single_message(chat), min_length=1, thinking=False)
            # Reports progress and looks for interrupts at every token.
            reply = self.clip.decode(self.clip.generate(tokens, **options))
        except AttributeError as error:
            if "'generate'" not in str(error):
                raise
            raise ProviderError(
                f"clip: a {type(self.clip.cond_stage_model).__name__} encodes text and cannot write any. Load a "
                "language model (Qwen3, Gemma, …) with a CLIP loader of a recent ComfyUI, or disconnect clip and "
                "choose a provider"
            ) from error
        self.on_reply(reply)
        return reply


async def asked(
    name: str,
    made_by: Callable[[LayoutProvider], Layout],
    on_reply: Callable[[str], None],
    seed: int,
    timeout: float,
    format: str,
) -> Layout:
    """What `made_by` makes with the provider `name`. In a thread, so that the host's other nodes go on."""
    stopped = threading.Event()

    def cancelled() -> bool:
        return stopped.is_set() or comfy.model_management.processing_interrupted()

    provider = get_provider(name, seed=seed, timeout=timeout, format=format, cancelled=cancelled, on_reply=on_reply)
    progress = comfy.utils.ProgressBar(timeout)
    start = time.monotonic()
    task = asyncio.create_task(asyncio.to_thread(made_by, provider))
    try:
        while not (await asyncio.wait([task], timeout=POLL))[0]:
            progress.update_absolute(time.monotonic() - start)
        progress.update_absolute(timeout)
        return task.result()
    except Cancelled:
        raise comfy.model_management.InterruptProcessingException() from None
    finally:
        stopped.set()  # the host drops this node when another one fails


class LayoutFromBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoLayoutFromBoxes",
            display_name="Layout from Boxes",
            description="A layout from bounding boxes, from elements, or from the JSON text of either.",
            search_aliases=["bounding box to layout", "elements to layout"],
            inputs=[
                io.MultiType.Input(
                    "boxes",
                    [BoundingBoxType, ArrayType, io.String],
                    tooltip="Boxes in pixels of a detector, bboxes or elements of Create Bounding Boxes, or JSON.",
                ),
                *size_inputs("the picture that the boxes are measured in"),
                phrases_input(optional=True),
                prompt_input(),
                image_input(),
            ],
            outputs=[LayoutType.Output(display_name="layout", tooltip="The objects and their places.")],
        )

    @classmethod
    def execute(cls, boxes, width, height, phrases="", prompt="", image=0) -> io.NodeOutput:
        layout = from_boxes_or_elements(
            boxes, split_phrases(phrases) or None, width=width, height=height, image=image, prompt=prompt
        )
        warn_on_node(layout.warnings)
        return io.NodeOutput(layout.validate(prompt or None))


class LayoutFromMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoLayoutFromMasks",
            display_name="Layout from Masks",
            description="A layout from a batch of masks, one object each; its box is drawn around the mask.",
            search_aliases=["segmentation to layout", "SAM to layout", "regions from masks"],
            inputs=[
                io.Mask.Input("masks", tooltip="One mask per object, in the order of the phrases."),
                phrases_input(),
                prompt_input(),
            ],
            outputs=[LayoutType.Output(display_name="layout", tooltip="The objects and their regions.")],
        )

    @classmethod
    def execute(cls, masks, phrases, prompt="") -> io.NodeOutput:
        masks = masks.cpu().float().numpy()
        return io.NodeOutput(from_masks(masks, split_phrases(phrases), prompt=prompt).validate(prompt or None))


class LayoutFromKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoLayoutFromKeypoints",
            display_name="Layout from Keypoints",
            description="A layout from poses, one object per person; its region has the shape of the pose.",
            search_aliases=["pose to layout", "openpose to layout"],
            inputs=[
                io.MultiType.Input(
                    "keypoints",
                    [PoseKeypointType, io.String],
                    tooltip="Poses of OpenPose, DWPose or SDPose nodes, or the JSON text that OpenPose writes.",
                ),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    tooltip="Who the people are: one phrase a line, or separated by commas. A number word takes as "
                    "many people (two dancers). A single phrase names them all.",
                ),
                prompt_input(),
                image_input(),
                io.Float.Input(
                    "min_confidence",
                    default=MIN_CONFIDENCE,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Keypoints with this confidence or less count as not seen.",
                    extra_dict=ADVANCED,
                ),
                io.String.Input(
                    "people",
                    default="",
                    optional=True,
                    tooltip="Which people the phrases name, counted from 0, one entry a phrase: 2, 0 or 0+1, 2. Others "
                    "are left out. Empty: all, in their order.",
                ),
                io.Combo.Input(
                    "region",
                    options=["pose", "box"],
                    default="pose",
                    optional=True,
                    tooltip="Where a person may be: around the seen joints and limbs, or in the box around them.",
                    extra_dict=ADVANCED,
                ),
                *(
                    io.Int.Input(
                        name,
                        default=0,
                        min=0,
                        max=MAX_SIDE,
                        optional=True,
                        tooltip=f"{name.capitalize()} in pixels of the picture that the keypoints are measured in, if "
                        "they do not say it themselves, as OpenPose's files. 0: they say it.",
                        extra_dict=ADVANCED,
                    )
                    for name in ("width", "height")
                ),
            ],
            outputs=[LayoutType.Output(display_name="layout", tooltip="The persons, their regions and boxes.")],
        )

    @classmethod
    def execute(cls, keypoints, phrases, prompt="", people="", **settings) -> io.NodeOutput:
        layout = from_pose_keypoints(
            keypoints, split_phrases(phrases), people=parse_people(people), prompt=prompt, **settings
        )
        return io.NodeOutput(layout.validate(prompt or None))


class LayoutFromSegmentation(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoLayoutFromSegmentation",
            display_name="Layout from Segmentation",
            description="A layout from a segmentation picture in a palette's colours, or from a mask of class numbers.",
            search_aliases=[
                "ADE20K to layout",
                "color map to layout",
                "semantic map to layout",
                "index mask to layout",
            ],
            inputs=[
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    tooltip="What the objects are, one a line or separated by commas. With picture: a red car, or with "
                    "its class a corgi=animal; empty takes every class. With index_mask: 1=a cat.",
                ),
                prompt_input(),
                io.Image.Input("picture", optional=True, tooltip="The segmentation picture, one flat colour a class."),
                io.Combo.Input(
                    "palette",
                    options=list(PALETTES),
                    default="ADE20K",
                    optional=True,
                    tooltip="Whose colours the picture has. ADE20K: the 150 classes of segmenters and ControlNets.",
                ),
                io.Mask.Input(
                    "index_mask",
                    optional=True,
                    tooltip="In place of picture: a mask whose values are class numbers, whole or divided by 255.",
                ),
                image_input(),
                io.Int.Input(
                    "tolerance",
                    default=TOLERANCE,
                    min=0,
                    max=255,
                    optional=True,
                    tooltip="How far a channel of 0 to 255 may be from the palette's colour. Raise it for a map that "
                    "was saved as JPEG.",
                    extra_dict=ADVANCED,
                ),
            ],
            outputs=[LayoutType.Output(display_name="layout", tooltip="The objects, their regions and boxes.")],
        )

    @classmethod
    def execute(
        cls, phrases, prompt="", picture=None, palette="ADE20K", index_mask=None, image=0, tolerance=TOLERANCE
    ) -> io.NodeOutput:
        if (picture is None) == (index_mask is None):
            raise LayoutError("connect either picture or index_mask: one of them, not both")
        if index_mask is not None:
            mask = image_at(index_mask.reshape(-1, *index_mask.shape[-2:]), image, "index_mask")
            layout = from_index_mask(mask.cpu().numpy(), parse_indices(phrases), prompt=prompt)
        else:
            colours = image_at(picture, image, "picture")[..., :3].clamp(0, 1).mul(255).round().byte().cpu().numpy()
            named, classes = parse_phrases(phrases)
            layout = from_colour_map(
                colours, PALETTES[palette], named, classes=classes, tolerance=tolerance, prompt=prompt
            )
        return io.NodeOutput(layout.validate(prompt or None))


def image_at(batch: torch.Tensor, image: int, name: str) -> torch.Tensor:
    if image >= len(batch):
        raise LayoutError(f"{name}: no image {image} among {len(batch)}")
    return batch[image]


class LayoutFromJSON(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoLayoutFromJSON",
            display_name="Layout from JSON",
            description="The layout that Layout Preview or the command line wrote as JSON.",
            search_aliases=["load layout", "layout from text"],
            inputs=[
                io.String.Input(
                    "layout_json",
                    multiline=True,
                    default='{"version": 1, "objects": [{"phrase": "a cat", "box": [0.1, 0.2, 0.6, 0.9]}]}',
                    tooltip="The layout as JSON; a box is left, top, right, bottom as shares of the picture.",
                ),
                prompt_input(),
            ],
            outputs=[LayoutType.Output(display_name="layout", tooltip="The objects and their places.")],
        )

    @classmethod
    def execute(cls, layout_json, prompt="") -> io.NodeOutput:
        layout = Layout.from_json(layout_json)
        return io.NodeOutput(replace(layout, prompt=prompt or layout.prompt).validate(prompt or None))


class LayoutPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoLayoutPreview",
            display_name="Layout Preview",
            description="Draws a layout: boxes, masks, keypoints and phrases, alone or over pictures.",
            search_aliases=["draw layout", "show boxes", "layout to JSON"],
            is_output_node=True,
            inputs=[
                LayoutType.Input("layout", tooltip="The layout to draw."),
                *size_inputs("the drawing, if no background is connected,"),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="Pictures to draw over. Small ones are enlarged: labels would hide their boxes.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="preview", tooltip="The layout drawn."),
                io.String.Output(display_name="json", tooltip="The layout as JSON, for Layout from JSON."),
            ],
        )

    @classmethod
    def execute(cls, layout, width, height, background=None) -> io.NodeOutput:
        if background is not None:
            height, width = background.shape[1:3]
        picture = picture_of(layout, width, height, background)
        return io.NodeOutput(picture, layout.to_json(), ui=ui.PreviewImage(picture))


class ControlPicture(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoControlPicture",
            display_name="Control Picture",
            description="A layout as the picture that a ControlNet reads: a segmentation map or stick figures.",
            search_aliases=["layout to ControlNet", "layout to segmentation", "draw openpose", "ADE20K map"],
            inputs=[
                LayoutType.Input("layout", tooltip="The layout to draw. OpenPose pictures need keypoints."),
                io.Combo.Input(
                    "kind",
                    options=[*SEGMENTATION, OPENPOSE],
                    default=next(iter(SEGMENTATION)),
                    tooltip="What the ControlNet was trained with: a map in a palette's colours, or stick figures.",
                ),
                *size_inputs("the picture to sample"),
                io.String.Input(
                    "classes",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="For segmentation: classes of phrases whose noun the palette does not know, one a line or "
                    "separated by commas: corgi=dog.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture, for Apply ControlNet.")],
        )

    @classmethod
    def execute(cls, layout, kind, width, height, classes="") -> io.NodeOutput:
        size = (width, height)
        if kind == OPENPOSE and classes.strip():
            raise LayoutError(f"classes: {classes!r} is for segmentation pictures, leave it empty for {OPENPOSE}")
        if kind == OPENPOSE:
            return io.NodeOutput(image_of([draw_pose(layout, size)]))
        picture = draw_segmentation(layout, SEGMENTATION[kind], size, parse_classes(classes))
        return io.NodeOutput(image_of([picture]))


NODES = [
    LLMLayout,
    LayoutFromBoxes,
    LayoutFromMasks,
    LayoutFromKeypoints,
    LayoutFromSegmentation,
    LayoutFromJSON,
    LayoutPreview,
    ControlPicture,
]
