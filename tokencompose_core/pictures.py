"""Image files: decoding them, whatever is in them, and cropping images and masks alike."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .records import Record, Source

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # none of them runs another program, as EPS does

VOC_CONTOUR = (224, 224, 192)
ORIENTATION = 0x0112  # of EXIF
TURNS = {  # its values that exchange width and height: what shows stored (height, width) values as they are meant
    5: lambda values: values.T,
    6: lambda values: np.rot90(values, 3),
    7: lambda values: np.rot90(values, 2).T,
    8: np.rot90,
}

Size = tuple[int, int]
"""Width and height in pixels."""

T = TypeVar("T")


def decode(record: Record, source: Source, data: bytes, use: Callable[[Image.Image], T], noun: int | None = None) -> T:
    """What `use` makes of the opened image `data`, the content of `source`. Raises RecordError."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return use(image)
    except UnidentifiedImageError:
        reason = f"none of {', '.join(FORMATS)}"
    except Exception as error:  # decoders raise whatever a damaged file leads to
        reason = str(error) or type(error).__name__
    raise record.error("undecodable image", f"{source.name} ({len(data)} bytes): {reason}", source, noun)


def read_image(record: Record) -> Image.Image:
    """The image in RGB, turned as its EXIF data says. Raises RecordError."""
    return decode(
        record, record.image, record.read(record.image), lambda image: ImageOps.exif_transpose(image).convert("RGB")
    )


def read_mask(record: Record, noun: int, size: Size | None) -> np.ndarray:
    """The (height, width) bool mask of a noun: True where it is brighter than half of its brightest pixel.

    A transparent pixel is outside. In a palette of colours, which stand for labels, all that is not black is inside,
    but for the white-ish colour of PASCAL VOC's contours. A mask is of the image as it is shown; only where it has the
    size of the stored pixels instead, it is turned as the image's EXIF data says. Raises RecordError, also for a mask
    that is empty or not of the image's `size` (None: not known).
    """
    source = record.nouns[noun].mask
    values = decode(record, source, record.read(source, noun), _brightness, noun)
    width, height = values.shape[::-1]
    if size == (height, width) != (width, height):
        values = _turned_like_image(record, values)
        width, height = values.shape[::-1]
    if size not in (None, (width, height)):
        message = f"{source.name} is {width} × {height}, the image is {size[0]} × {size[1]}"
        raise record.error("mask of another size", message, source, noun)
    mask = values > values.max() / 2
    if not mask.any():
        raise record.error("empty mask", f"{source.name} marks no pixel for {record.nouns[noun].noun!r}", source, noun)
    return mask


def crop_image(image: Image.Image, size: Size) -> Tensor:
    """The middle of an RGB image in the aspect of `size`, resized bilinearly: (3, height, width), -1 to 1."""
    pixels = np.array(_crop(image, size), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous() / 127.5 - 1


def crop_mask(mask: np.ndarray, size: Size) -> Tensor:
    """A (height, width) bool mask in `crop_image`'s crop: a pixel is inside where the resized mask is above 0."""
    resized = _crop(Image.fromarray(mask.astype(np.uint8) * 255), size)
    return torch.from_numpy(np.array(resized) > 0)


def crop_box(width: int, height: int, size: Size) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the crop, in pixels of a `width` × `height` image.

    It is that of official code: the image is resized to cover `size`, in whole pixels, then its middle is cut out, in
    whole pixels.
    """
    if width * size[1] >= height * size[0]:
        cover = width * size[1] // height, size[1]
    else:
        cover = size[0], height * size[0] // width
    left, top = (round((cover[i] - size[i]) / 2) for i in (0, 1))
    x, y = width / cover[0], height / cover[1]
    return left * x, top * y, min((left + size[0]) * x, width), min((top + size[1]) * y, height)


def _crop(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, box=crop_box(*image.size, size))


def _brightness(image: Image.Image) -> np.ndarray:
    """(height, width): the largest colour channel, 0 where the image is transparent."""
    if image.mode[0] in "IF":  # 16 and 32 bits
        return np.nan_to_num(np.asarray(image))
    pixels = np.asarray(image.convert("RGBA"))
    *colours, alpha = np.moveaxis(pixels, 2, 0)
    brightness = np.where(alpha > 127, np.max(colours, axis=0), 0)
    if image.mode == "P" and np.ptp(colours, axis=0).any():
        is_contour = (pixels[..., :3] == VOC_CONTOUR).all(-1)
        return ((brightness > 0) & ~is_contour).astype(np.uint8)
    return brightness


def _turned_like_image(record: Record, values: np.ndarray) -> np.ndarray:
    """`values` (height, width) of the image's stored pixels, as the image is shown."""

    def turn(image: Image.Image) -> np.ndarray:
        orientation = image.getexif().get(ORIENTATION)
        return TURNS[orientation](values) if orientation in TURNS else values

    return decode(record, record.image, record.read(record.image), turn)
