"""What the training nodes do with the host's models, run by the host's own Python: see `test_training_run.py`."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

REFERENCE, *ONLY = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())
sys.modules["diffusers"] = None  # the host has none: importing it fails here as it does there

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401, I001  # first, as in main.py: `nodes` puts another `utils` on the path

import comfy.model_base  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from PIL import Image  # noqa: E402

import nodes as host_nodes  # noqa: E402

from pack import load_nodes  # noqa: E402

torch.set_num_threads(1)
NODES = asyncio.run(load_nodes())
train_model = importlib.import_module("realcompo_pack.nodes.host.trainable_model")
training_run = importlib.import_module("realcompo_pack.nodes.host.training_run")
prompt_tokens = importlib.import_module("realcompo_pack.nodes.host.prompt_tokens")

from realcompo_core.errors import RealCompoError  # noqa: E402
from tokencompose_core.dataset import load_example  # noqa: E402
from tokencompose_core.nouns import noun_tokens  # noqa: E402
from tokencompose_core.training import TrainSettings, supervised_layers, train  # noqa: E402

BASE = Path(tempfile.mkdtemp())
for kind in ("input", "output", "loras"):
    (BASE / kind).mkdir()
folder_paths.set_input_directory(str(BASE / "input"))
folder_paths.set_output_directory(str(BASE / "output"))
folder_paths.add_model_folder_path("loras", str(BASE / "loras"), is_default=True)
folder_paths.get_folder_paths("loras")[:] = [str(BASE / "loras")]

PROMPT = "a red circle to the left of a blue square"


def run(node: str, **inputs):
    with torch.inference_mode():  # as the host runs nodes
        return NODES[node].execute(**inputs).args


MODEL, _, CLIP, VAE, LATENT, _ = run("RealCompoShapeScenesLoader", width=128, height=128, batch_size=1)
UNET = MODEL.model.diffusion_model
DATASET, REPORT = run("RealCompoShapeScenesDataset", scenes=4, style="flat", seed=0, clip=CLIP, on_problem="refuse")
DEFAULTS = {
    "model": MODEL,
    "clip": CLIP,
    "vae": VAE,
    "dataset": DATASET,
    "resume": True,
    "train": "lora",
    "rank": 4,
    "width": 128,
    "height": 128,
    "steps": 3,
    "learning_rate": 1e-3,
    "batch_size": 1,
    "token_weight": 0.1,
    "pixel_weight": 0.05,
    "seed": 0,
    "validation_prompt": PROMPT,
    "validate_every": 0,
    "checkpoint_every": 100,
    "keep_checkpoints": 2,
    "accumulation": 1,
    "schedule": "constant",
    "warmup": 0,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "convention": "official",
    "layers": 0,
    "caption_dropout": 0.0,
    "ema": 0.0,
    "precision": "auto",
    "gradient_checkpointing": False,
}


def trained(name: str, **changes):
    """The trainer's MODEL, LORA_MODEL and LOSS_MAP."""
    return run("RealCompoTokenComposeTrainer", **{**DEFAULTS, "name": name, **changes})


def refused(call, *words: str) -> None:
    """`call` must fail with a message that holds all `words`."""
    try:
        call()
    except RealCompoError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"not refused: {words}")


def output_of(model: ModelPatcher) -> torch.Tensor:
    """What the sampler gets from a model at one sigma, its patches applied."""
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        text = CLIP.encode_from_tokens(CLIP.tokenize(PROMPT))
        noise = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(5))
        return model.model.apply_model(noise * 3, torch.tensor([3.0]), c_crossattn=text)


def state_of_host() -> tuple:
    """All that training might leave behind: weights as objects and values, hooks, modes, the list of loaded models."""
    modules = dict(UNET.named_modules())
    weights = [
        (name, id(p), p.requires_grad, p.double().sum().item()) for name, p in UNET.state_dict(keep_vars=True).items()
    ]
    hooks = [name for name, m in modules.items() if m._forward_hooks or m._forward_pre_hooks]
    own = [
        (name, sorted(vars(m).keys() & {"forward", "comfy_cast_weights", "lora_hook"})) for name, m in modules.items()
    ]
    modes = {name for name, m in modules.items() if m.training}
    loaded = sum(entry.model is MODEL for entry in comfy.model_management.current_loaded_models)
    return (
        weights,
        hooks,
        own,
        modes,
        loaded,
        comfy.ops.run_every_op,
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )


class Tokens:
    """A CLIP that is its tokenizer."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def tokenize(self, text, **options):
        return self.tokenizer.tokenize_with_weights(text, **options)


def check_tokens_are_those_of_the_hosts_conditioning():
    """Also where the host would read brackets as weights, and for words of several tokens."""
    clip = Tokens(comfy.sd1_clip.SD1Tokenizer())
    tokenizer, length = train_model.caption_tokenizer(clip)
    assert length == 77 and train_model.caption_tokenizer(CLIP)[1] == 32
    caption = "two (very small) armadillos, an astronaut's (glove) and a teddy bear"
    pieces, _ = prompt_tokens.prompt_pieces(clip, train_model.without_emphasis(caption))
    expected = {piece.strip(): tokens for piece, tokens in pieces}
    found = noun_tokens(tokenizer, caption, ["armadillo", "glove", "teddy bear"], chunk=length)
    wanted = [expected["armadillos"], expected["glove"], [*expected["teddy"], *expected["bear"]]]
    assert [tokens for (tokens,) in found] == wanted, (found, wanted)
    assert len(expected["armadillos"]) > 1


def check_losses_are_those_of_the_library():
    """All weights trained for three steps, here and in a diffusers pipeline of the same weights."""
    wanted = torch.load(REFERENCE, weights_only=True)
    settings = TrainSettings(**wanted["settings"])
    with torch.inference_mode():
        host = train_model.HostModel(MODEL, CLIP, VAE)
        found = sorted(layer.downsampling for layer in supervised_layers(host.attention))
        assert found == sorted(wanted["downsampling"]) == [1, 1, 2, 2, 2]
        for example in wanted["examples"]:
            host.cache_latent(example["key"], example["image"])
            host.cache_text(example["caption"], (128, 128))
        reports = []
        with host.training(0, False, 0):
            batches = [wanted["examples"][i : i + 2] for i in (0, 2, 0)]
            train(host, lambda first: iter(batches[first:]), settings, report=reports.append)
    for found, expected in zip(reports, wanted["losses"], strict=True):
        for term, value in expected.items():
            assert abs(found.losses[term] - value) <= 1e-3 * abs(value), (found, expected)


def check_twenty_steps_change_the_model_as_the_adapters_did():
    """The returned MODEL is the network as it was trained, for adapters and for all weights."""
    plain, seen = output_of(MODEL), []
    learnt = train_model.HostModel.learnt

    def watched(self):
        noise = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            sigma = torch.tensor([3.0])
            self.cache_text(PROMPT, (128, 128))
            output = self.predict(
                self.network,
                noise * 3 / (3.0**2 + 1) ** 0.5,
                MODEL.model.model_sampling.timestep(sigma),
                self.embed([PROMPT], (128, 128)),
            )
            seen.append(noise * 3 - 3 * output)
        return learnt(self)

    train_model.HostModel.learnt = watched
    try:
        for kind, steps in (("lora", 20), ("full", 2)):
            model, lora, losses = trained(f"as/{kind}", train=kind, steps=steps)
            assert len(losses["loss"]) == steps and losses["loss"] == losses["total"]
            found = output_of(model)
            torch.testing.assert_close(found, seen[-1], rtol=1e-3, atol=1e-3)
            assert (found - plain).abs().max() > 1e-2
            torch.testing.assert_close(output_of(MODEL), plain, rtol=0, atol=1e-5)
            assert all(not tensor.is_inference() and not tensor.requires_grad for tensor in lora.values())
    finally:
        train_model.HostModel.learnt = learnt
    assert sum(losses["share"]) > 0 and losses["token"][0] > 0


def check_nothing_of_the_model_changes():
    output_of(MODEL)
    before = state_of_host()
    assert before[4] == 1 and all(p.is_inference() for p in UNET.parameters())
    for settings in ({}, {"train": "full"}, {"gradient_checkpointing": True, "validate_every": 1}):
        trained(f"same/{len(settings)}", steps=1, **settings)
        assert state_of_host() == before, settings


def check_an_error_leaves_nothing_behind():
    output_of(MODEL)
    before = state_of_host()
    predict = train_model.HostModel.predict

    def fail(self, network, *args):
        predict(self, network, *args)
        raise ZeroDivisionError

    train_model.HostModel.predict = fail
    try:
        for settings in ({"gradient_checkpointing": True}, {"train": "full"}):
            try:
                trained("error", **settings)
                raise AssertionError("no error")
            except ZeroDivisionError:
                pass
            assert state_of_host() == before
    finally:
        train_model.HostModel.predict = predict
    assert len(trained("error", steps=1)[2]["total"]) == 1


def interrupted(name: str, after: int, **changes) -> None:
    """A run that the user interrupts in the step after `after`."""
    predict, calls = train_model.HostModel.predict, []

    def interrupt(self, *args):
        calls.append(0)
        if len(calls) == after:
            comfy.model_management.interrupt_current_processing()
        return predict(self, *args)

    train_model.HostModel.predict = interrupt
    try:
        trained(name, **changes)
        raise AssertionError("not interrupted")
    except comfy.model_management.InterruptProcessingException:
        assert not comfy.model_management.processing_interrupted()
    finally:
        train_model.HostModel.predict = predict


def check_interrupted_run_goes_on_as_if_nothing_had_been():
    """Losses and result, for adapters with all that has a memory, and for all weights."""
    memory = {"ema": 0.9, "schedule": "cosine", "warmup": 2, "caption_dropout": 0.3, "accumulation": 2}
    for kind, settings in (("lora", memory), ("full", {})):
        _, whole, losses = trained(f"whole/{kind}", steps=5, train=kind, **settings)
        interrupted(f"cut/{kind}", after=2, steps=5, train=kind, **settings)
        (saved,) = (BASE / "output" / "cut" / kind).glob("checkpoint-*.pt")
        assert 1 <= int(saved.stem[-6:]) < 5
        _, lora, again = trained(f"cut/{kind}", steps=5, train=kind, **settings)
        assert repr(again) == repr(losses), (again, losses)  # NaN where no noun was shown
        assert lora.keys() == whole.keys() and all(torch.equal(lora[key], whole[key]) for key in lora)
        _, finished, third = trained(f"cut/{kind}", steps=5, train=kind, **settings)
        assert repr(third) == repr(losses) and all(torch.equal(finished[key], whole[key]) for key in whole)


def check_resume_is_refused_for_another_run_and_may_be_turned_off():
    trained("mine", steps=2)
    refused(lambda: trained("mine", steps=2, rank=8), "rank 4 there, 8 now", "`resume`")
    refused(lambda: trained("mine", steps=2, train="full"), "rank 4 there, 0 now")
    refused(lambda: trained("mine", steps=2, width=64), "size")
    other, _, _ = trained("other", steps=1)
    refused(lambda: trained("mine", steps=2, model=other), "model")
    few = DATASET[:3]
    refused(lambda: trained("mine", steps=2, dataset=few), "training data")
    _, _, losses = trained("mine", steps=1, rank=8, resume=False)
    assert len(losses["total"]) == 1
    assert [path.name for path in (BASE / "output" / "mine").iterdir()] == ["checkpoint-000001.pt"]


def check_checkpointing_and_half_weights():
    """Recomputation changes no loss; a model in fp16 trains in fp32 and in bf16, and stays as it is."""
    _, _, plain = trained("plain", steps=2)
    _, _, again = trained("recomputed", steps=2, gradient_checkpointing=True)
    for one, two in zip(plain["total"], again["total"], strict=True):
        assert abs(one - two) <= 1e-5 * one
    half = run("RealCompoShapeScenesLoader", width=128, height=128, batch_size=1)[0]
    with torch.inference_mode():
        half.model.diffusion_model.half()
    flags = [vars(m).get("comfy_cast_weights") for m in half.model.modules()]
    for precision, tolerance in (("fp32", 1e-3), ("bf16", 0.1)):
        _, _, found = trained(precision, steps=2, model=half, precision=precision, gradient_checkpointing=True)
        for one, two in zip(plain["total"], found["total"], strict=True):
            assert abs(one - two) <= tolerance * one, (precision, one, two)
    assert all(p.dtype == torch.float16 for p in half.model.diffusion_model.parameters())
    assert [vars(m).get("comfy_cast_weights") for m in half.model.modules()] == flags


def check_sdxl_gets_its_pooled_text_and_size():
    """A small SDXL that predicts v: what is trained is what the sampler runs."""
    config = comfy.supported_models.SDXL(
        {
            "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
            "channel_mult": (1, 2), "transformer_depth": [0, 1], "transformer_depth_middle": 1,
            "transformer_depth_output": [0, 0, 1, 1], "context_dim": 64, "adm_in_channels": 2816,
            "num_classes": "sequential", "num_head_channels": 16, "use_linear_in_transformer": True,
            "use_spatial_transformer": True, "legacy": False, "dtype": torch.float32,
        }
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.inference_mode():
        base = comfy.model_base.SDXL(config, comfy.model_base.ModelType.V_PREDICTION)
        for weight in base.diffusion_model.parameters():
            torch.nn.init.normal_(weight, std=0.1)
        model = ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))
        pooled, text = torch.randn(1, 1280), torch.randn(1, 154, 64)

        class Clip(Tokens):
            def encode_from_tokens_scheduled(self, tokens):
                return [[text, {"pooled_output": pooled}]]

        host = train_model.HostModel(model, Clip(comfy.sd1_clip.SD1Tokenizer()), None)
        host.cache_text(PROMPT, (96, 64))
        assert host.parametrisation.name == "v_prediction"
        assert {layer.downsampling for layer in supervised_layers(host.attention)} == {2}
        noisy, sigma = torch.randn(2, 4, 12, 8), torch.tensor([2.0, 0.5])
        sampling = base.model_sampling
        timesteps = sampling.timestep(sigma)
        exact = sampling.sigma(timesteps)
        scaled = sampling.calculate_input(exact, noisy)
        found = host.predict(host.network, scaled, timesteps, host.embed([PROMPT] * 2, (96, 64)))
        size = base.encode_adm(pooled_output=pooled, width=64, height=96)
        wanted = base.apply_model(noisy, exact, c_crossattn=text[:, :77].expand(2, -1, -1), y=size.expand(2, -1))
        torch.testing.assert_close(sampling.calculate_denoised(exact, found, noisy), wanted, rtol=1e-4, atol=1e-4)


def check_preview_is_what_the_hosts_sampler_draws():
    """Progress reaches the node step by step, with a picture that KSampler makes of the returned model too."""
    heard = []
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: heard.append((value, total, preview))
    )
    try:
        model, _, _ = trained("shown", steps=4, validate_every=2, seed=3, batch_size=2)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    shown = [(value, total, picture) for value, total, picture in heard if picture]
    assert [(value, total) for value, total, _ in shown] == [(2, 4), (4, 4)]
    assert shown[0][2][1].size == (128, 128) and shown[0][2][1].tobytes() != shown[1][2][1].tobytes()
    saved = Image.open(BASE / "output" / "shown" / "validation-000004.png")
    with torch.inference_mode():
        positive, negative = (host_nodes.CLIPTextEncode().encode(CLIP, text)[0] for text in (PROMPT, ""))
        steps, cfg = training_run.VALIDATION_STEPS, training_run.VALIDATION_CFG
        latent = host_nodes.common_ksampler(model, 3, steps, cfg, "euler", "normal", positive, negative, LATENT)[0]
        expected = VAE.decode(latent["samples"])[0]
    for picture in (saved, shown[1][2][1]):
        pixels = torch.tensor(list(picture.getdata())).view(128, 128, 3) / 255
        assert (pixels - expected).abs().max() < 0.02


def check_saved_lora_loads_with_the_hosts_loader_and_ours():
    for kind in ("lora", "full"):
        model, lora, _ = trained(f"saved/{kind}", steps=2, train=kind)
        (file,) = run("RealCompoTokenComposeSave", lora=lora, name=f"tokencompose/{kind}")
        assert file in folder_paths.get_filename_list("loras")
        wanted = output_of(model)
        with torch.inference_mode():
            by_host = host_nodes.LoraLoaderModelOnly().load_lora_model_only(MODEL, file, 1.0)[0]
        ours, again = run("RealCompoTokenComposeLoad", model=MODEL, file=file, strength=1.0)
        for found in (by_host, ours):
            torch.testing.assert_close(output_of(found), wanted, rtol=0, atol=1e-5)
        assert again.keys() == lora.keys()
        plain = output_of(run("RealCompoTokenComposeLoad", model=MODEL, file=file, strength=0.0)[0])
        assert (plain - wanted).abs().max() > 1e-3
    (second,) = run("RealCompoTokenComposeSave", lora=lora, name="tokencompose/lora.safetensors")
    assert second.endswith("lora_00002_.safetensors")
    strange = {key.replace("middle_block", "muddle_block"): tensor for key, tensor in lora.items()}
    (file,) = run("RealCompoTokenComposeSave", lora=strange, name="strange")
    refused(
        lambda: run("RealCompoTokenComposeLoad", model=MODEL, file=file, strength=1.0), "muddle_block", "does not fit"
    )


def check_names_that_lead_out_of_the_hosts_folders_are_refused():
    lora = {"diffusion_model.x.diff": torch.zeros(1)}
    for name in ("../x", "/etc/x", "C:\\x", "a/../../x", "..\\x", "", ".", "a\0b"):
        refused(
            lambda name=name: run("RealCompoTokenComposeDataset", folder=name, clip=CLIP, on_problem="skip"),
            "folder",
            "input",
        )
        refused(lambda name=name: trained(name), "name", "output")
        refused(lambda name=name: run("RealCompoTokenComposeSave", lora=lora, name=name), "name", "loras")
        refused(
            lambda name=name: run("RealCompoTokenComposeLoad", model=MODEL, file=name, strength=1.0), "file", "loras"
        )
    assert sorted(path.name for path in BASE.iterdir()) == ["input", "loras", "output"]


def check_other_models_are_refused_by_name():
    class Other(torch.nn.Module):
        concat_keys = ()
        model_config = comfy.supported_models.Flux({})

        def __init__(self):
            super().__init__()
            self.diffusion_model, self.model_sampling = torch.nn.Linear(1, 1), MODEL.model.model_sampling

    patcher = ModelPatcher(Other(), torch.device("cpu"), torch.device("cpu"))
    refused(lambda: train_model.HostModel(patcher, CLIP, VAE), "Flux", "Linear", "UNet")

    class Unknown:
        tokenizer = object()

    refused(lambda: train_model.HostModel(MODEL, Unknown, VAE), "clip", "CLIP of an SD1.x")


def check_dataset_from_images():
    """Masks go to nouns in their order, image by image."""
    images = [torch.rand(2, 64, 64, 3), torch.rand(1, 48, 96, 4)]
    masks = [torch.zeros(3, 64, 64), torch.zeros(48, 96)]
    masks[0][0, :8] = masks[0][1, 8:16] = masks[0][2, 16:24] = masks[1][40:] = 1
    given = {
        "images": images,
        "captions": ["a red circle and a blue square\na green star\nthree hearts"],
        "nouns": ["circle, blue square\nstar\nhearts"],
        "masks": masks,
        "clip": [CLIP],
        "on_problem": ["refuse"],
    }

    def make(**changes):
        return run("RealCompoTokenComposeDatasetFromImages", **{**given, **changes})

    records, report = make()
    assert report == "3 of 3 images, 4 nouns with masks"
    host = train_model.HostModel(MODEL, CLIP, VAE)
    examples = [load_example(r, (64, 64), host.tokenizer, chunk=32)[0] for r in records]
    assert [e["nouns"] for e in examples] == [["circle", "blue square"], ["star"], ["hearts"]]
    assert examples[0]["masks"].flatten(1).nonzero()[:, 1].unique().numel() == 2 * 8 * 64
    assert examples[0]["masks"][1, 8:16].all() and examples[1]["masks"][0, 16:24].all()
    expected = images[0][0].movedim(-1, 0) * 2 - 1
    assert (examples[0]["image"] - expected).abs().max() < 2 / 255
    assert len({record.key for record in records}) == 3

    _, report = make(captions=["a cat", "a dog", "a cat"], nouns=["-"], masks=[])
    assert report == "3 of 3 images, 0 nouns with masks"
    refused(lambda: make(captions=["one"]), "captions: 1 for 3 images")
    refused(lambda: make(nouns=["circle\nstar"]), "2 lines for 3 images")
    refused(lambda: make(masks=masks[:1]), "3 for 4 nouns", "circle, blue square; star; hearts")
    refused(lambda: make(nouns=["circle, cube\nstar\nhearts"]), "'cube' is not in", "image 1", "skip")
    records, report = make(nouns=["circle, cube\nstar\nhearts"], on_problem=["skip"])
    assert "3 nouns with masks" in report and "'cube' is not in" in report and len(records) == 3
    batch = torch.zeros(3, 8, 64)
    refused(lambda: make(nouns=["star"], masks=[batch, batch]), "6 for 3 nouns")


def check_a_set_without_masks_is_warned_of():
    images = [torch.rand(1, 64, 64, 3)]
    given = {"images": images, "captions": ["a red circle"], "clip": [CLIP], "on_problem": ["refuse"]}
    bare, report = run("RealCompoTokenComposeDatasetFromImages", **given, nouns=["-"])
    assert report == "1 of 1 images, 0 nouns with masks"
    with mock.patch.object(training_run, "warn_on_node") as warn:
        trained("with masks", steps=1)
        trained("without masks", steps=1, dataset=bare)
        trained("without losses", steps=1, dataset=bare, token_weight=0.0, pixel_weight=0.0)
    assert [len(call.args[0]) for call in warn.call_args_list] == [0, 1, 0], warn.call_args_list


def check_dataset_of_a_folder():
    folder = BASE / "input" / "set"
    (folder / "masks" / "a").mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    Image.new("L", (64, 64), 255).save(folder / "masks" / "a" / "red_circle.png")
    (folder / "a.txt").write_text("a red circle")
    (folder / "b.png").write_bytes(b"broken")
    (folder / "b.txt").write_text("a blue square")

    def make(on_problem, name="set"):
        return run("RealCompoTokenComposeDataset", folder=name, clip=CLIP, on_problem=on_problem)

    first = NODES["RealCompoTokenComposeDataset"].fingerprint_inputs(folder="set")
    refused(lambda: make("refuse"), "1 of 2 records", "b.png", "on_problem")
    records, report = make("skip")
    assert len(records) == 1 and report.startswith("1 of 2 images, 1 nouns") and "b.png" in report
    refused(lambda: make("skip", "nowhere"), "nowhere")
    (folder / "a.txt").write_text("a red circle and a star")
    assert NODES["RealCompoTokenComposeDataset"].fingerprint_inputs(folder="set") != first
    assert len(trained("folder", steps=1, dataset=records)[2]["total"]) == 1


def check_scenes_are_grounded_whole():
    assert REPORT.startswith("4 of 4 images"), REPORT
    host = train_model.HostModel(MODEL, CLIP, VAE)
    for record in DATASET:
        example, errors = load_example(record, (128, 128), host.tokenizer, chunk=32)
        assert not errors and len(example["tokens"]) == len({tuple(t) for t in example["tokens"]}) == len(record.nouns)
        words = record.caption.replace(",", " ,").split()
        for noun, tokens in zip(example["nouns"], example["tokens"], strict=True):
            shown = {
                words[token - 1].rstrip("s").removesuffix("e" if "crosse" in words[token - 1] else "")
                for token in tokens
            }
            assert shown <= {*noun.split(), noun.split()[1].rstrip("s")}, (noun, tokens, record.caption)


def check_a_flat_curve_can_be_drawn():
    for losses in ([0.5], [0.0], [2.0, 2.0]):
        found = training_run.loss_map({"total": losses, "ldm": losses})
        assert max(found["loss"]) > min(found["loss"]) and found["loss"][: len(losses)] == losses
    assert training_run.loss_map({"total": [1.0, 2.0]})["loss"] == [1.0, 2.0]


for check in [value for name, value in list(globals().items()) if name.startswith("check_")]:
    if not ONLY or check.__name__ in ONLY:
        check()
        print(check.__name__)
