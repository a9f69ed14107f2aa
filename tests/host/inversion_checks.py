"""Pictures inverted by the host's models, run by the host's own Python: see `test_host_branch.py`."""

from __future__ import annotations

# isort: off
from bundled import CLIP, MODEL, NODES, run_checks, shapes

import importlib

import comfy.model_management
import comfy.sample
import comfy.samplers
import nodes as core_nodes
import torch
from realcompo_core.errors import RealCompoError
from shapescenes.drawing import draw
from shapescenes.world import held_out_scenes
# isort: on

inverted = importlib.import_module("realcompo_pack.nodes.host.inverted")
inversion_nodes = importlib.import_module("realcompo_pack.nodes.inversion_nodes")
inversion_nodes.output_is_used = lambda slot: True
with torch.inference_mode():
    VAE = shapes.load_vae()
STEPS = 6
(SCENE,) = [scene for scene in held_out_scenes(40) if len(scene.objects) == 2][:1]
PROMPT, LAYOUT = SCENE.prompt.caption, SCENE.layout
PICTURE = torch.from_numpy(draw(SCENE, "rendered", 1)).float()[None] / 255


def invert(image=PICTURE, cfg=3.0, iterations=10, refinements=2, steps=STEPS, model=MODEL, scheduler="normal"):
    with torch.inference_mode():
        node = NODES["RealCompoInvertPicture"]
        found = node.execute(model, CLIP, VAE, image, PROMPT, "", steps, cfg, scheduler, iterations, refinements)
    names = ("latent", "positive", "negative", "sigmas", "picture", "maps", "psnr")
    return dict(zip(names, found.args, strict=True))


def sampled_again(found, cfg=3.0, sampler="euler"):
    """As a workflow does it: the host's own sampling without added noise."""
    with torch.inference_mode():
        latent = found["latent"]["samples"]
        sampler = comfy.samplers.sampler_object(sampler)
        noise = torch.zeros_like(latent)
        return comfy.sample.sample_custom(
            MODEL, noise, cfg, sampler, found["sigmas"], found["positive"], found["negative"], latent, seed=7
        )


def check_a_picture_is_drawn_again():
    plain, kept = invert(iterations=0), invert()
    unguided = invert(cfg=1.0)
    assert unguided["psnr"] > kept["psnr"] > plain["psnr"], (unguided["psnr"], kept["psnr"], plain["psnr"])
    assert unguided["psnr"] > 25, unguided["psnr"]
    assert len(unguided["negative"]) == 1 and len(kept["negative"]) == STEPS
    noise = MODEL.model.process_latent_in(kept["latent"]["samples"]) / kept["sigmas"][0]
    assert 0.8 < float(noise.std()) < 1.2


def check_samplers_of_the_host_draw_it():
    found = invert()
    for sampler in ("euler", "ddim"):
        again = sampled_again(found, sampler=sampler)
        torch.testing.assert_close(VAE.decode(again), found["picture"], rtol=0, atol=1e-3)
    with torch.inference_mode():
        node = core_nodes.KSamplerAdvanced()
        options = (MODEL, "disable", 1, STEPS, 3.0, "euler", "normal", found["positive"], found["negative"])
        (again,) = node.sample(*options, found["latent"], 0, 10000, "disable")
    torch.testing.assert_close(VAE.decode(again["samples"]), found["picture"], rtol=0, atol=1e-3)


def check_an_inverted_picture_is_edited():
    """The first picture of the pair is the reconstruction, the second another."""
    found = invert()
    colour = next(word for word in ("red", "green", "blue", "yellow") if word not in PROMPT)
    edited = PROMPT.replace(SCENE.objects[0].kind.colour, colour, 1)
    with torch.inference_mode():
        node = NODES["RealCompoPromptToPrompt"]
        model, positive, pairs = node.execute(MODEL, CLIP, found["latent"], PROMPT, edited, 0.8, 0.4, "", "", 0.3).args
        sampler, latent = comfy.samplers.sampler_object("euler"), pairs["samples"]
        options = (found["sigmas"], positive, found["negative"], latent)
        again = comfy.sample.sample_custom(model, torch.zeros_like(latent), 3.0, sampler, *options, seed=7)
        source, edit = VAE.decode(again)
    torch.testing.assert_close(source, found["picture"][0], rtol=0, atol=2e-3)
    assert (edit - source).abs().max() > 0.2, edited


def check_each_unconditional_text_acts_in_its_step_alone():
    sampling = MODEL.get_model_object("model_sampling")
    for scheduler in ("normal", "karras", "exponential", "ddim_uniform", "beta"):
        for steps in (1, 2, 7, 30, 200):
            sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps).tolist()
            texts = [torch.full((1, 1, 1), float(i)) for i in range(len(sigmas) - 1)]
            made = inverted.each_at_its_step([[texts[0], {"kept": 1}]], texts, sigmas, sampling)
            ranges = [(o["start_percent"], o["end_percent"]) for _, o in made]
            for i, sigma in enumerate(sigmas[:-1]):
                acting = [
                    k
                    for k, (start, end) in enumerate(ranges)
                    if sampling.percent_to_sigma(end) <= sigma <= sampling.percent_to_sigma(start)
                ]
                assert acting == [i], (scheduler, steps, i, acting)
            assert all(options["kept"] == 1 for _, options in made)


def check_maps_are_those_of_the_reconstruction():
    maps = invert()["maps"]
    branch = maps.branch()
    assert branch.steps == list(range(STEPS)) and branch.conditionings == ["positive", "negative"], branch.conditionings
    with torch.inference_mode():
        table = NODES["RealCompoGroundingMetrics"].execute(maps, "", False, False, layout=LAYOUT)
    areas = [float(line.split(",")[6]) for line in table.args[0].splitlines()[1:]]
    assert table.args[1] > 1.5 * sum(areas) / len(areas), table.args


def check_two_models_are_compared():
    with torch.inference_mode():
        tuned = shapes.load_model("TokenCompose")
    first, second = invert()["maps"], invert(model=tuned, iterations=0)["maps"]
    with torch.inference_mode():
        node = NODES["RealCompoCompareAttention"]
        both, table, share = node.execute(first, "plain", "tuned", second, layout=LAYOUT).args
        assert [branch.name for branch in both.recorded] == ["plain", "tuned"]
        assert table.count("\n") == 3 and "tuned - plain" in table
        metrics = NODES["RealCompoGroundingMetrics"]
        own = [metrics.execute(maps, "", False, False, layout=LAYOUT).args[1] for maps in (first, second)]
        assert abs(share - (own[1] - own[0])) < 1e-6
        assert node.execute(first, "a", "b", second).args[1:] == ("", 0.0)
        assert node.execute(both, "", "", layout=LAYOUT).args[1:] == (table, share)
        try:
            node.execute(first, "same", " same ", second)
        except RealCompoError as error:
            assert "two names" in str(error)
        else:
            raise AssertionError("one name for both was taken")


def check_bad_input_is_named():
    try:
        invert(image=PICTURE.repeat(2, 1, 1, 1))
    except RealCompoError as error:
        assert "2 pictures" in str(error)
    else:
        raise AssertionError("two pictures were taken")


def check_an_interruption_stops_it_and_leaves_the_model_as_it_was():
    before = {name: value.clone() for name, value in MODEL.model.diffusion_model.state_dict().items()}
    told = inverted._Inverter._told

    def interrupting(self, already):
        def tell(done):
            if already + done == STEPS + 2:  # in the null-text inversion
                comfy.model_management.interrupt_current_processing()
            told(self, already)(done)

        return tell

    inverted._Inverter._told = interrupting
    try:
        invert()
    except comfy.model_management.InterruptProcessingException:
        pass
    else:
        raise AssertionError("it was not interrupted")
    finally:
        inverted._Inverter._told = told
    for name, value in MODEL.model.diffusion_model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert invert(cfg=1.0)["psnr"] > 20


run_checks(globals())
