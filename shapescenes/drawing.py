"""Pictures of scenes, in two styles.

`flat` is a diagram: plain colours on a plain ground. `rendered` is the realistic one: bevelled bodies lit from one
side, highlights, soft shadows, a textured ground.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from shapescenes.world import COLOURS, SIZE, Scene, distance

STYLES = ("rendered", "flat")


def draw(scene: Scene, style: str, seed: int) -> np.ndarray:
    """The scene as a (128, 128, 3) uint8 picture. `seed` chooses light, ground and colour shades."""
    rng = np.random.default_rng([seed, 5])
    fields = [distance(item) for item in scene.objects]
    colours = [np.array(COLOURS[item.kind.colour], float) / 255 + rng.normal(0, 0.02, 3) for item in scene.objects]
    paint = _draw_rendered if style == "rendered" else _draw_flat
    picture = paint(rng, scene.objects, fields, colours)
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _draw_flat(rng, objects, fields, colours) -> np.ndarray:
    picture = np.ones((SIZE, SIZE, 3)) * rng.uniform(0.9, 0.98)
    for field, colour in zip(fields, colours, strict=True):
        cover = (0.5 - field).clip(0, 1)[..., None]
        picture = picture * (1 - cover) + colour * cover
    return picture


def _draw_rendered(rng, objects, fields, colours) -> np.ndarray:
    azimuth = rng.uniform(np.pi * 0.6, np.pi * 0.9)  # from above, left of the middle
    light = np.array([np.cos(azimuth), -np.sin(azimuth), 1.0])
    light /= np.linalg.norm(light)
    picture = _ground(rng, light)
    for item, field in zip(objects, fields, strict=True):
        reach = item.radius * 0.3
        shadow = np.roll((0.5 - field).clip(0, 1), (round(-light[1] * reach), round(-light[0] * reach)), (0, 1))
        picture = picture * (1 - 0.6 * gaussian_filter(shadow, reach * 0.4))[..., None]
    for item, field, colour in zip(objects, fields, colours, strict=True):
        bevel = 0.55 * item.radius
        depth = gaussian_filter((1 + field / bevel).clip(0, 1), 1.0)  # 1 at the rim, 0 on the plateau
        height = bevel * np.sqrt((1 - depth**2).clip(0.0, 1))
        slope_y, slope_x = np.gradient(height)
        normal = np.stack([-slope_x, -slope_y, np.ones_like(height)], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        diffuse = (normal @ light).clip(0)
        mirrored = 2 * diffuse[..., None] * normal - light
        gloss = 0.7 * mirrored[..., 2].clip(0) ** 18
        body = colour * (0.3 + 0.85 * diffuse)[..., None] + gloss[..., None]
        cover = (0.5 - field).clip(0, 1)[..., None]
        picture = picture * (1 - cover) + body * cover
    return picture


def _ground(rng, light) -> np.ndarray:
    """A textured ground: wood, plaster or cloth in a muted colour, brighter towards the light."""
    base = np.array([0.62, 0.6, 0.57]) + rng.normal(0, 0.035) + rng.normal(0, 0.025, 3)
    kind = rng.choice(["wood", "plaster", "cloth"])
    ys, xs = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    if kind == "wood":
        grain = gaussian_filter(rng.normal(size=(SIZE, SIZE)), (1.2, 16), mode="wrap") * 9
        base = base * np.array([1.08, 0.95, 0.8])
    elif kind == "cloth":
        thread = 2 * np.pi * SIZE / 8
        grain = 0.6 * (np.sin(thread * xs) * np.sin(thread * ys)) + 2 * _noise(rng, 6)
    else:
        grain = 3 * _noise(rng, 2.5) + 6 * _noise(rng, 9)
    glow = 0.12 * (light[0] * (xs - 0.5) + light[1] * (ys - 0.5))
    return base * (1 + 0.06 * grain + glow)[..., None]


def _noise(rng, sigma: float) -> np.ndarray:
    return gaussian_filter(rng.normal(size=(SIZE, SIZE)), sigma, mode="wrap") * sigma
