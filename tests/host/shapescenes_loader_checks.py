"""What ShapeScenes Loader gives, against diffusers, run by the host's own Python: see `test_shapescenes_loader.py`."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import traceback

REFERENCE = sys.argv[1]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())
sys.modules["diffusers"] = None  # the host has none: importing it fails here as it does there

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401, I001  # first, as in main.py: `nodes` puts another `utils` on the path

import comfy.lora  # noqa: E402
import torch  # noqa: E402
from node_helpers import conditioning_set_values as set_values  # noqa: E402

import nodes as host  # noqa: E402

from pack import ROOT, load_nodes  # noqa: E402

SIDE = 16  # cells


torch.set_num_threads(1)
NODE = asyncio.run(load_nodes())["RealCompoShapeScenesLoader"]
WANTED = torch.load(REFERENCE, weights_only=True)
family = importlib.import_module("realcompo_pack.nodes.host.shapescenes")
shipped, given = family.load, WANTED["weights"]
family.load = lambda name: dict(given[name]) if name in given else shipped(name)
with torch.inference_mode():  # as the host runs nodes
    MODEL, GLIGEN, CLIP, VAE, LATENT, CONTROL = NODE.execute(width=128, height=128, batch_size=1).args
UNET = MODEL.model.diffusion_model


def same(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    assert (found - wanted).abs().max() <= tolerance, (found - wanted).abs().max()


def pooled(phrase: str) -> torch.Tensor:
    return CLIP.encode_from_tokens(CLIP.tokenize(phrase), return_pooled="unprojected")[1]


def positions() -> list[tuple]:
    """The reference's objects as the host writes them, in cells that are not whole."""
    return [
        (pooled(phrase), (y1 - y0) * SIDE, (x1 - x0) * SIDE, y0 * SIDE, x0 * SIDE)
        for phrase, (x0, y0, x1, y1) in zip(WANTED["phrases"], WANTED["boxes"], strict=True)
    ]


def grounded(patch) -> torch.Tensor:
    options = {"patches": {"middle_patch": [patch]}}
    return UNET(WANTED["x"], WANTED["t"], WANTED["text"], transformer_options=options)


def sample(model, positive, negative, steps, latent=LATENT, cfg=3.0):
    return host.common_ksampler(model, 0, steps, cfg, "euler", "normal", positive, negative, latent)[0]["samples"]


def check_schema():
    schema = NODE.GET_SCHEMA()
    assert schema.category == "RealCompo" and schema.display_name == "ShapeScenes Loader" and schema.description
    assert all(item.tooltip for item in [*schema.inputs, *schema.outputs])
    assert (ROOT / "web" / "docs" / f"{schema.node_id}.md").is_file()
    NODE.GET_NODE_INFO_V1()


def check_tokens_and_text():
    tokens = [CLIP.tokenize(text) for text in WANTED["texts"]]
    assert [[token for token, _ in item["l"][0]] for item in tokens] == WANTED["ids"]
    same(torch.cat([CLIP.encode_from_tokens(item) for item in tokens]), WANTED["text"])
    same(torch.cat([pooled(phrase) for phrase in WANTED["phrases"]]), WANTED["pooled"])


def check_words_that_the_models_have_never_seen_are_named():
    """On the node that encodes them; not those of the world, weights and embeddings."""
    told, family.warn_on_node = [], lambda warnings: told.append(warnings)
    try:
        CLIP.tokenize("(a red:1.2) circle to the left of two Blue squares, embedding:mine")
        CLIP.tokenize("a red dragon, photo of a (dragon:0.7)")
    finally:
        family.warn_on_node = importlib.import_module("realcompo_pack.nodes.host.messages").warn_on_node
    known, (unknown,) = told
    assert known == [] and "never seen dragon, photo:" in unknown and "circle" in unknown
    guiders = importlib.import_module("realcompo_pack.nodes.host.guider")
    layouts = importlib.import_module("realcompo_core.layout")
    encoded = [[CLIP.encode_from_tokens(CLIP.tokenize("a dragon")), {}]]
    branch = guiders.BranchInput(MODEL, encoded, encoded, 3.0)
    layout = layouts.Layout((layouts.LayoutObject("a dragon", (0.1, 0.1, 0.5, 0.5)),), prompt="a dragon")
    (warning,) = guiders.BalancedGuider([branch, branch], layout, CLIP).warnings  # which the report shows
    assert "never seen dragon:" in warning


def check_weighted_words():
    plain, weighted = (CLIP.tokenize(text) for text in ("a red circle", "a (red:1.3) circle"))
    assert [weight for _, weight in weighted["l"][0][:4]] == [1.0, 1.0, 1.3, 1.0]
    encoded = [CLIP.encode_from_tokens(tokens) for tokens in (plain, weighted)]
    changed = (encoded[0] - encoded[1]).abs().amax((0, 2)) > 1e-3
    assert changed.nonzero().flatten().tolist() == [2]
    assert CLIP.encode_from_tokens(CLIP.tokenize("a red circle and " * 12)).shape == (1, 64, 128)


def check_unet():
    same(UNET(WANTED["x"], WANTED["t"], WANTED["text"]), WANTED["plain"])


def check_layout_branch():
    shape = WANTED["x"].shape
    same(grounded(GLIGEN.model.set_position(shape, positions(), "cpu")), WANTED["grounded"])
    same(grounded(GLIGEN.model.set_empty(shape, "cpu")), WANTED["empty"])
    assert GLIGEN.model.max_objs == 30 and GLIGEN.model.position_net.in_dim == WANTED["pooled"].shape[-1]


def check_noise_levels():
    alphas = WANTED["alphas"]
    same(MODEL.get_model_object("model_sampling").sigmas, ((1 - alphas) / alphas).sqrt())


def check_vae():
    latent = VAE.encode(WANTED["pictures"].movedim(1, -1))
    same(latent, WANTED["latent"])
    same(VAE.decode(latent.clone()), WANTED["decoded"].movedim(1, -1))
    assert VAE.decode_tiled(latent, tile_x=8, tile_y=8, overlap=2).shape == (2, 128, 96, 3)
    assert VAE.encode_tiled(WANTED["pictures"].movedim(1, -1), tile_x=64, tile_y=64, overlap=16).shape == latent.shape


def check_control_net():
    """What the host's Apply ControlNet makes of it, at two noise levels and a size that is not square."""
    pictures = WANTED["pictures"].movedim(1, -1)
    empty = [[WANTED["text"][:1], {}]]
    positive, _ = host.ControlNetApplyAdvanced().apply_controlnet(empty, empty, CONTROL, pictures, 0.8, 0.0, 1.0)
    control, sampling = positive[0][1]["control"], MODEL.get_model_object("model_sampling")
    control.pre_run(MODEL.model, sampling.percent_to_sigma)
    sigma = sampling.sigmas[WANTED["t"]]
    level = sigma[:, None, None, None]
    x, text = WANTED["narrow"] * (level**2 + 1) ** 0.5, {"c_crossattn": WANTED["text"]}
    for residuals, wanted in ((control.get_control(x, sigma, text, 1, {}), "controlled"), (None, "uncontrolled")):
        denoised = MODEL.model.apply_model(x, sigma, control=residuals, **text)
        same((x - denoised) / level, WANTED[wanted])
    assert (WANTED["controlled"] - WANTED["uncontrolled"]).abs().max() > 0.1


def check_tokencompose():
    model = NODE.execute(width=128, height=128, batch_size=1, variant="TokenCompose").args[0]
    same(model.model.diffusion_model(WANTED["x"], WANTED["t"], WANTED["text"]), WANTED["composed"])
    assert (WANTED["composed"] - WANTED["plain"]).abs().max() > 0.1


def check_dit():
    """Alone and with its LoRA, at two noise levels and a size that is not square; larger sizes are refused."""
    sigma = WANTED["sigma"]
    given = {"c_crossattn": WANTED["text"], "y": WANTED["pooled_text"]}
    for variant, name in (("DiT", "dit"), ("DiT with layout LoRA", "dit_layout_lora")):
        model = NODE.execute(width=128, height=128, batch_size=1, variant=variant).args[0].model
        x = WANTED["narrow"]
        same((x - model.apply_model(x, sigma, **given)) / sigma[:, None, None, None], WANTED[name])
        try:
            model.apply_model(torch.zeros(2, 8, 16, 17), sigma, **given)
        except importlib.import_module("realcompo_core.errors").RealCompoError as error:
            assert "at most 128x128" in str(error) and "136x128" in str(error)
        else:
            raise AssertionError("a larger size was not refused")
    assert (WANTED["dit"] - WANTED["dit_layout_lora"]).abs().max() > 0.1


def check_weights_are_read_only_when_they_are_asked_for():
    node = sys.modules[NODE.__module__]
    asked, used = [], node.output_is_used
    family.load, reading = lambda name: asked.append(name) or reading(name), family.load
    try:
        for connected, variant, wanted in (
            (False, "text to image", set()),
            (True, "text to image", {"segmentation_controlnet"}),
            (False, "TokenCompose", {"tokencompose_lora"}),
        ):
            asked.clear()
            node.output_is_used = lambda slot, connected=connected: connected
            args = NODE.execute(width=128, height=128, batch_size=1, variant=variant).args
            assert (args[-1] is not None) == connected and set(asked) & given.keys() == wanted, asked
    finally:
        family.load, node.output_is_used = reading, used


def check_latent():
    assert LATENT["samples"].shape == (1, 8, 16, 16)
    wide = NODE.execute(width=192, height=136, batch_size=2).args[4]
    assert wide["samples"].shape == (2, 8, 17, 24)


def conditionings():
    """The grounded prompt and the empty negative, without boxes."""
    positive, negative = (host.CLIPTextEncode().encode(CLIP, text)[0] for text in WANTED["texts"])
    ground = {"gligen": ("position", GLIGEN, positions())}
    empty = {"gligen": ("empty", GLIGEN, [])}
    return set_values(positive, ground), set_values(negative, empty)


def check_picture():
    """KSampler draws the red circle and the blue square in their boxes."""
    picture = VAE.decode(sample(MODEL, *conditionings(), steps=12))[0]
    colours = []
    for x0, y0, x1, y1 in WANTED["boxes"]:
        y, x = int(64 * (y0 + y1)), int(64 * (x0 + x1))
        colours.append(picture[y - 3 : y + 3, x - 3 : x + 3].mean((0, 1)).tolist())
    (red, *others), (*cold, blue) = colours
    assert red > max(others) + 0.3 and blue > max(cold) + 0.3, colours


def check_a_latent_that_is_not_square():
    latent = host.EmptyLatentImage().generate(192, 136, 1)[0]  # four channels: the host makes them eight
    assert sample(MODEL, *conditionings(), steps=1, latent=latent).shape == (1, 8, 17, 24)


def check_patches_and_loras_find_the_model():
    model, seen = MODEL.clone(), []

    def replace(q, k, v, options):
        seen.append((options["block"], tuple(q.shape), tuple(k.shape)))
        return torch.zeros_like(q)

    for part, number in (("input", 3), ("middle", 0), ("output", 1)):
        model.set_model_attn2_replace(replace, part, number)
    sample(model, *conditionings(), steps=1, cfg=1.0)
    blocks = ("input", 3), ("middle", 0), ("output", 1)
    assert seen == [(block, (1, 64, 96), (1, 32, 96)) for block in blocks], seen
    names = comfy.lora.model_lora_keys_unet(MODEL.model, {})
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k" in names


failed = 0
for name, check in list(globals().items()):
    if name.startswith("check_"):
        try:
            with torch.inference_mode():
                check()
        except Exception:
            failed += 1
            print(f"{name}:\n{traceback.format_exc()}")
sys.exit(failed)
