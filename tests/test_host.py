"""The node pack in a real ComfyUI, through its HTTP interface. Without a host these tests are skipped."""

import copy
import json
import time
from pathlib import Path

import host_server
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from realcompo_core.diffusers.pipeline import Guided, Request, build_branch
from realcompo_core.diffusers.schedule import NoiseSchedule
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.layout.regions import covered_by_objects
from realcompo_core.providers import get_provider
from realcompo_core.sampling.samplers import euler
from shapescenes import DEFAULTS
from shapescenes.sizes import LATENT_SCALE

SNAPSHOT = Path(__file__).parent / "node_interfaces.json"
QUICKSTART = host_server.PACK / "workflows" / "api" / "quickstart.json"
SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "ipndm", "uni_pc", "heun", "dpm_2", "ddim"]


@pytest.fixture(scope="module")
def bundled():
    from shapescenes.models import pipelines

    return pipelines()


@pytest.fixture
def quickstart() -> dict:
    return json.loads(QUICKSTART.read_text())


def sampler(workflow: dict) -> dict:
    (found,) = (n["inputs"] for n in workflow.values() if n["class_type"] == "RealCompoDualUNetBalancerSampler")
    return found


def settings(workflow: dict) -> dict:
    """The inputs of Balance Settings, which takes the preset's place."""
    if workflow["settings"]["class_type"] == "RealCompoBalancePreset":
        workflow["settings"] = host_server.balance_settings()
    return workflow["settings"]["inputs"]


def latent_of(host, workflow: dict, source: list) -> torch.Tensor:
    """Runs only what the latent `source` needs, and reads it."""
    workflow = {key: node for key, node in workflow.items() if node["class_type"] not in OUTPUTS}
    workflow["save"] = {"class_type": "SaveLatent", "inputs": {"samples": source, "filename_prefix": "latent"}}
    (saved,) = host.run(workflow)["save"]["latents"]
    return load_file(host.file(saved))["latent_tensor"]


OUTPUTS = ("SaveImage", "PreviewImage", "RealCompoLayoutPreview", "RealCompoBalanceReport")


def interface(info: dict) -> dict:
    """Names and types of a node's inputs and outputs: what shared workflows depend on."""

    def kind(spec):
        return "COMBO" if isinstance(spec[0], list) else spec[0]

    inputs = {part: {name: kind(spec) for name, spec in found.items()} for part, found in info["input"].items()}
    return {"inputs": inputs, "outputs": list(zip(info["output"], info["output_name"], strict=True))}


def test_pack_loads_without_a_warning_and_with_its_interface(host):
    assert "IMPORT FAILED" not in host.start_log and host.folder in host.start_log
    assert not host.complaints_about_pack()
    nodes = {name: interface(info) for name, info in host.get("/object_info").items() if name.startswith("RealCompo")}
    assert json.loads(json.dumps(nodes)) == json.loads(SNAPSHOT.read_text())


def test_every_input_has_a_tooltip_and_every_node_a_help_page(host):
    for name, info in host.get("/object_info").items():
        if name.startswith("RealCompo"):
            visible = info["input"].get("required", {}) | info["input"].get("optional", {})
            bare = [i for i, spec in visible.items() if not spec[1].get("tooltip")]
            assert not bare, f"{name}: {bare}"
            assert (host_server.PACK / "web" / "docs" / f"{name}.md").exists(), name


def test_quickstart_gives_a_picture_and_a_report(host, quickstart):
    outputs = host.run(quickstart)
    pictures = {key: Image.open(host.file(out["images"][0])) for key, out in outputs.items() if out.get("images")}
    sizes = {quickstart[key]["class_type"]: picture.size for key, picture in pictures.items()}
    assert sizes["SaveImage"] == sizes["RealCompoLayoutPreview"] == (512, 512)
    assert sizes["RealCompoBalanceReport"][0] > 1000
    (saved,) = (p for key, p in pictures.items() if quickstart[key]["class_type"] == "SaveImage")
    red, _, blue = np.asarray(saved.convert("RGB"), dtype=int).transpose(2, 0, 1)
    assert (red - blue)[:, :256].max() > 100 and (blue - red)[:, 256:].max() > 60


def test_layout_is_shown_again_where_it_is_cached(host, quickstart):
    """In a run with another seed, and when the workflow is opened and run again: on each node that showed it."""

    def shown() -> dict:
        """What an editor is told: a prompt without a client has nothing of what is cached in 0.8.0."""
        return host.wait(host.post("/prompt", {"prompt": quickstart, "client_id": "editor"})["prompt_id"])["outputs"]

    first = shown()
    sampler(quickstart).update(seed=8)
    for _ in range(2):
        again = shown()
        assert again["layout"] == first["layout"] and first["layout"]["images"] and first["layout"]["text"]
        assert again["layout_shown"]["images"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_weight_1_gives_what_the_hosts_own_sampler_gives(host, quickstart, name):
    """Bit for bit, for each branch."""
    sampler(quickstart).update(sampler_name=name, steps=4)
    for spatial in (0.0, 1.0):
        settings(quickstart).update(mode="fixed", spatial_weight=spatial)
        given = sampler(quickstart)
        prefix = "spatial_" if spatial else ""
        own = {
            key: given[key] for key in ("latent_image", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
        }
        own |= {key: given[prefix + key] for key in ("model", "positive", "negative")}
        workflow = copy.deepcopy(quickstart)
        workflow["own"] = {"class_type": "KSampler", "inputs": own}
        key = next(k for k, n in workflow.items() if n["inputs"] == given)
        assert torch.equal(latent_of(host, workflow, [key, 0]), latent_of(host, workflow, ["own", 0]))


@pytest.mark.parametrize("mode", ["one_pass", "lookahead"])
def test_host_balances_as_the_core_does(host, quickstart, bundled, mode):
    """The same models, layout, noise levels and noise, through the host and through the core's own sampler."""
    steps = 8
    sampler(quickstart).update(steps=steps, scheduler="simple")
    settings(quickstart).update(mode=mode)
    key = next(k for k, n in quickstart.items() if n["inputs"] is sampler(quickstart))
    found = latent_of(host, quickstart, [key, 0]) * LATENT_SCALE

    prompt = quickstart["prompt"]["inputs"]["value"]
    layout = get_provider("rules").propose(prompt, (128, 128))
    schedule = NoiseSchedule(bundled[0].scheduler)
    log_sigmas = np.log((1 - schedule.alphas) / schedule.alphas) / 2
    timesteps = [999 - i * 1000 // steps for i in range(steps)]  # the host's "simple" scheduler
    sigmas = [*np.exp(log_sigmas[timesteps]).tolist(), 0.0]
    request = Request([prompt], [""], [layout], (128, 128), sigmas, 1.0, DEFAULTS["layers"], include_adjectives=True)
    branches = [
        build_branch(name, Guided(pipeline), schedule, request, guidance_scale=3.0)
        for pipeline, name in zip(bundled, ("fidelity", "spatial"), strict=True)
    ]
    seed = sampler(quickstart)["seed"]
    noise = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(seed))
    balance = DEFAULTS["balance"].__class__(mode=mode)
    balancer = Balancer(branches, sigmas, [seed], covered_by_objects(layout, 16, 16)[None], balance)
    with torch.no_grad():
        expected = euler(balancer, noise * (1 + sigmas[0] ** 2) ** 0.5, sigmas)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_failing_prompt_says_why_and_the_next_one_runs(host, quickstart):
    bad = copy.deepcopy(quickstart)
    settings(bad)["layers"] = 7
    entry = host.wait(host.queue(bad))
    assert entry["status"]["status_str"] == "error"
    assert "attention layers at 1/7" in host_server.error_of(entry) and "1/2" in host_server.error_of(entry)
    host.run(quickstart)


def test_interrupt_stops_and_leaves_the_host_well(host, quickstart):
    sampler(quickstart).update(steps=400, seed=11)
    prompt_id = host.queue(quickstart)
    time.sleep(4)
    host.post("/interrupt", {})
    entry = host.wait(prompt_id)
    assert host_server.error_of(entry) == "interrupted"
    sampler(quickstart).update(steps=4, seed=12)
    host.run(quickstart)


def test_batch_other_size_and_partial_denoise(host, quickstart):
    loader = next(n["inputs"] for n in quickstart.values() if n["class_type"] == "RealCompoShapeScenesLoader")
    loader.update(width=160, height=96, batch_size=2)
    sampler(quickstart).update(steps=4, denoise=0.6)
    outputs = host.run(quickstart)
    key = next(k for k, n in quickstart.items() if n["class_type"] == "SaveImage")
    assert [Image.open(host.file(image)).size for image in outputs[key]["images"]] == [(640, 384)] * 2


def test_clones_with_different_weight_patches_keep_their_own_weights(host, quickstart):
    """One checkpoint, once as it is and once patched: each branch samples as it does alone."""
    given = sampler(quickstart)
    given.update(steps=3)
    scaled = {"model1": given["model"], "model2": given["model"], "multiplier": 0.1}
    quickstart["patched"] = {"class_type": "ModelMergeSubtract", "inputs": scaled}
    given["spatial_model"] = ["patched", 0]
    key = next(k for k, n in quickstart.items() if n["inputs"] is given)
    found = []
    for spatial in (0.0, 1.0):
        settings(quickstart).update(mode="fixed", spatial_weight=spatial)
        found.append(latent_of(host, quickstart, [key, 0]))
    prefixes = ("", "spatial_")
    for latent, prefix in zip(found, prefixes, strict=True):
        own = {k: given[k] for k in ("latent_image", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")}
        own |= {k: given[prefix + k] for k in ("model", "positive", "negative")}
        quickstart["own"] = {"class_type": "KSampler", "inputs": own}
        torch.testing.assert_close(latent, latent_of(host, quickstart, ["own", 0]), rtol=0, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 0.1


@pytest.mark.parametrize("mode", ["one_pass", "lookahead"])
def test_noise_mask_keeps_what_it_covers(host, quickstart, mode):
    given = sampler(quickstart)
    settings(quickstart).update(mode=mode)
    given.update(steps=4)
    quickstart["picture"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 128, "height": 128, "batch_size": 1, "color": 0x808080},
    }
    loader = next(k for k, n in quickstart.items() if n["class_type"] == "RealCompoShapeScenesLoader")
    quickstart["encoded"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["picture", 0], "vae": [loader, 3]}}
    quickstart["left"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 128}}
    quickstart["none"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 128, "height": 128}}
    composite = {"destination": ["none", 0], "source": ["left", 0], "x": 0, "y": 0, "operation": "add"}
    quickstart["mask"] = {"class_type": "MaskComposite", "inputs": composite}
    masked = {"samples": ["encoded", 0], "mask": ["mask", 0]}
    quickstart["masked"] = {"class_type": "SetLatentNoiseMask", "inputs": masked}
    given["latent_image"] = ["masked", 0]
    key = next(k for k, n in quickstart.items() if n["inputs"] is given)
    before, after = latent_of(host, quickstart, ["encoded", 0]), latent_of(host, quickstart, [key, 0])
    torch.testing.assert_close(after[..., 8:], before[..., 8:], rtol=0, atol=1e-4)
    assert (after[..., :8] - before[..., :8]).abs().max() > 0.1


def test_regions_and_a_grounding_that_ends_early_are_balanced(host, quickstart):
    given = sampler(quickstart)
    given.update(steps=5)
    apply = next(n["inputs"] for n in quickstart.values() if n["class_type"] == "RealCompoApplyLayoutGLIGEN")
    apply["strength"] = 0.3
    host.run(quickstart)
    regions = {"conditioning": given["positive"], "layout": given["layout"], "clip": given["clip"], "strength": 1.0}
    quickstart["regions"] = {"class_type": "RealCompoApplyLayoutRegions", "inputs": regions}
    given.update(spatial_positive=["regions", 0], spatial_negative=given["negative"])
    host.run(quickstart)


def test_guider_with_three_branches(host, quickstart):
    given = sampler(quickstart)
    branch = {"model": given["model"], "positive": given["positive"], "negative": given["negative"], "cfg": 3.0}
    grounded = branch | {"positive": given["spatial_positive"], "negative": given["spatial_negative"]}
    for name, inputs, before in (("f", branch, None), ("s", grounded, "f"), ("t", grounded, "s")):
        chain = {"branches": [before, 0]} if before else {}
        quickstart[name] = {"class_type": "RealCompoBranch", "inputs": inputs | chain}
    guider = {"branches": ["t", 0], "layout": given["layout"], "clip": given["clip"], "settings": given["settings"]}
    quickstart["guider"] = {"class_type": "RealCompoBalancedGuider", "inputs": guider}
    quickstart["noise"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 3}}
    quickstart["sampler"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}}
    scheduler = {"model": given["model"], "scheduler": "karras", "steps": 4, "denoise": 1.0}
    quickstart["sigmas"] = {"class_type": "BasicScheduler", "inputs": scheduler}
    custom = {name: [name, 0] for name in ("noise", "guider", "sampler", "sigmas")}
    custom["latent_image"] = given["latent_image"]
    quickstart["custom"] = {"class_type": "SamplerCustomAdvanced", "inputs": custom}
    assert latent_of(host, quickstart, ["custom", 0]).isfinite().all()

    vae = next(n["inputs"]["vae"] for n in quickstart.values() if n["class_type"] == "VAEDecode")
    quickstart = {key: node for key, node in quickstart.items() if node["class_type"] not in OUTPUTS}
    decoded = {"samples": ["custom", 0], "vae": vae}
    quickstart["decode"] = {"class_type": "VAEDecode", "inputs": decoded}
    report = {"trace": ["guider", 1], "image": ["decode", 0]}
    quickstart["report"] = {"class_type": "RealCompoBalanceReport", "inputs": report}
    metrics = {"attention_maps": ["guider", 2], "image": ["decode", 0], "words": "", "layers": False, "steps": True}
    quickstart["metrics"] = {"class_type": "RealCompoGroundingMetrics", "inputs": metrics}
    outputs = host.run(quickstart)
    sheets = Image.open(host.file(outputs["report"]["images"][0]))
    assert sheets.size[0] > 1000
    rows = outputs["metrics"]["text"][0].splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"fidelity", "spatial 1", "spatial 2"}

    del report["image"]  # nothing makes the report wait for the sampler
    entry = host.wait(host.queue({key: node for key, node in quickstart.items() if key not in ("metrics", "decode")}))
    assert "Connect the sampled picture to the input image" in host_server.error_of(entry)


def test_layout_guidance_alone_and_as_the_spatial_branch(host, quickstart):
    """Alone, it gives what the one-node sampler gives with all the weight on a spatial branch that has it."""
    given = sampler(quickstart)
    given.update(steps=4, sampler_name="euler", scheduler="normal")
    guidance = {"scale": 3.0, "threshold": 0.1, "iterations": 2, "until": 0.5, "reset": True, "strength": 2.0}
    quickstart["guidance"] = {"class_type": "RealCompoLayoutGuidance", "inputs": guidance}
    plain = {key: given[key] for key in ("model", "positive", "negative")}
    own = plain | {"cfg": given["cfg"], "layout_guidance": ["guidance", 0]}
    quickstart["branch"] = {"class_type": "RealCompoBranch", "inputs": own}
    guider = {"branches": ["branch", 0], "layout": given["layout"], "clip": given["clip"]}
    guider |= {"settings": given["settings"]}
    quickstart["guider"] = {"class_type": "RealCompoBalancedGuider", "inputs": guider}
    quickstart["noise"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": given["seed"]}}
    quickstart["sampler"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}}
    scheduler = {"model": given["model"], "scheduler": "normal", "steps": 4, "denoise": 1.0}
    quickstart["sigmas"] = {"class_type": "BasicScheduler", "inputs": scheduler}
    custom = {name: [name, 0] for name in ("noise", "guider", "sampler", "sigmas")}
    custom["latent_image"] = given["latent_image"]
    quickstart["custom"] = {"class_type": "SamplerCustomAdvanced", "inputs": custom}
    alone, denoised = (latent_of(host, quickstart, ["custom", output]) for output in (0, 1))
    torch.testing.assert_close(denoised, alone, rtol=0, atol=1e-5)

    key = next(k for k, n in quickstart.items() if n["inputs"] is given)
    settings(quickstart).update(mode="fixed", spatial_weight=1.0)
    given.update({f"spatial_{name}": wire for name, wire in plain.items()}, spatial_guidance=["guidance", 0])
    torch.testing.assert_close(latent_of(host, quickstart, [key, 0]), alone, rtol=0, atol=1e-4)
    del given["spatial_guidance"]
    assert (latent_of(host, quickstart, [key, 0]) - alone).abs().max() > 0.1


def test_nothing_sampled_is_reported_as_that(host, quickstart):
    """denoise 0: the latent stays as it is, and the report says why it is empty."""
    sampler(quickstart).update(denoise=0.0)
    outputs = host.run(quickstart)
    key = next(k for k, n in quickstart.items() if n["class_type"] == "RealCompoBalanceReport")
    assert Image.open(host.file(outputs[key]["images"][0])).size[0] > 300


def test_lookahead_with_its_default_end_can_be_viewed(host, quickstart):
    """The spatial branch ends early; its look-ahead passes are no steps of its own."""
    settings(quickstart).update(mode="lookahead")
    sampler(quickstart).update(steps=5)
    key = next(k for k, n in quickstart.items() if n["inputs"] is sampler(quickstart))
    picture = next(k for k, n in quickstart.items() if n["class_type"] == "VAEDecode")
    metrics = {"attention_maps": [key, 2], "image": [picture, 0], "words": "", "layers": False, "steps": True}
    quickstart["metrics"] = {"class_type": "RealCompoGroundingMetrics", "inputs": metrics}
    view = {"words": "", "axis": "steps", "form": "sheet", "conditioning": "positive", "branch": "spatial"}
    view |= {"layer": "", "step": -1, "head": -1, "palette": "viridis", "opacity": 0.6, "normalise": "each"}
    view |= {"threshold": 0.4, "export": "none", "filename_prefix": "maps", "attention_maps": [key, 2]}
    quickstart["view"] = {"class_type": "RealCompoAttentionMapViewer", "inputs": view | {"image": [picture, 0]}}
    outputs = host.run(quickstart)
    rows = [row.split(",") for row in outputs["metrics"]["text"][0].splitlines()[1:]]
    for branch, steps in (("fidelity", 5), ("spatial", 3)):
        assert {row[4] for row in rows if row[0] == branch} == {"all", *map(str, range(steps))}
    assert outputs["view"]["images"]


def test_weights_fixed_by_region(host, quickstart):
    """A weight on the objects and another elsewhere: neither branch's own picture, nor that of one weight."""
    sampler(quickstart).update(steps=4)
    key = next(k for k, n in quickstart.items() if n["inputs"] is sampler(quickstart))
    found = []
    for inside, outside in ((1.0, -1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)):
        settings(quickstart).update(mode="fixed", spatial_weight=inside, spatial_weight_outside=outside)
        found.append(latent_of(host, quickstart, [key, 0]))
    same, everywhere, by_region, nowhere = found
    assert torch.equal(same, everywhere)
    settings(quickstart).update(spatial_weight=1.0)
    del settings(quickstart)["spatial_weight_outside"]  # as in a workflow of before
    assert torch.equal(latent_of(host, quickstart, [key, 0]), same)
    assert (by_region - everywhere).abs().max() > 0.1 and (by_region - nowhere).abs().max() > 0.1


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc: Linux only")
def test_ten_prompts_in_a_row_do_not_grow(host, quickstart):
    sampler(quickstart).update(steps=3)
    sizes = []
    for seed in range(10):
        sampler(quickstart)["seed"] = seed
        host.run(quickstart)
        sizes.append(host.resident_bytes())
    assert sizes[-1] - sizes[3] < 50e6
