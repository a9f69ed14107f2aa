"""Layout Guidance and ControlNets in the host, run by the host's own Python: see `test_host_branch.py`."""

from __future__ import annotations

# isort: off
from bundled import (
    CLIP,
    LAYERS,
    LAYOUT,
    MODEL,
    NEGATIVE,
    POSITIVE,
    UNET,
    branch,
    control_net,
    guiders,
    memory,
    noise_levels,
)
from bundled import run_checks, shapes, sources

import comfy.model_management
import comfy.sample
import comfy.samplers
import numpy as np
import torch
from comfy.ldm.modules.attention import optimized_attention
from realcompo_core.errors import PhraseNotInPromptError, RealCompoError
from realcompo_core.guidance.attend_and_excite import AttendAndExcite, BoxDiff
from realcompo_core.guidance.branch import GuidedBranch
from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout
# isort: on

CFG = 3.0
SETTINGS = LayoutGuidance(scale=2.0, threshold=0.3, iterations=2, until=0.7)
TOKENS = (3, 10)  # of circle and square
BALANCED = tuple(layer.name.removesuffix(".transformer_blocks.0.attn2") for layer in LAYERS)
READ = ("middle_block.1", "output_blocks.0.1", "output_blocks.1.1")  # the middle, and the decoder at half the side
SAMPLERS = ["euler", "euler_ancestral", "heun", "dpm_2", "lms", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc", "ddim"]
SAMPLERS += ["euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2m_cfg_pp"]


def guided(sampler="euler", guidance=SETTINGS, other=None, mask=None, steps=5, size=(16, 16), batch=2, **given):
    """Latents of one branch with guidance, or of `other` first and then that one, before they are scaled."""
    model, cfg, layout = given.pop("model", MODEL), given.pop("cfg", CFG), given.pop("layout", LAYOUT)
    positive, watch = given.pop("positive", POSITIVE), given.pop("watch", None)
    image, denoise = given.pop("image", torch.zeros(batch, 8, *size)), given.pop("denoise", 1.0)
    shown, detach = given.pop("shown", None), given.pop("detach", False)
    with torch.inference_mode():
        branches = [guiders.BranchInput(model, positive, NEGATIVE, cfg, guidance)]
        if other is not None:
            branches.insert(0, guiders.BranchInput(other, POSITIVE, NEGATIVE, cfg))
        guider = guiders.BalancedGuider(branches, layout, CLIP, BalanceSettings(**given), detach_control=detach)
        if watch:
            begin = guider.begin
            guider.begin = lambda *args: (begin(*args), watch(guider))
        sigmas = noise_levels(round(steps / denoise))[-steps - 1 :]
        found = guider.sample(
            comfy.sample.prepare_noise(image, 1),
            image,
            comfy.samplers.sampler_object(sampler),
            sigmas,
            denoise_mask=mask,
            callback=shown,
            seed=1,
        )
    return found * shapes.LATENT_SCALE, guider.trace


class Plain:
    """The model with ordinary copies of its weights and attention written out; one picture at a time."""

    def __init__(self, model=MODEL):
        self.weights = {name: p.clone() for name, p in model.model.diffusion_model.state_dict().items()}
        self.texts = POSITIVE[0][0].clone(), NEGATIVE[0][0].clone()
        self.sampling = MODEL.model.model_sampling

    def noise(self, x, sigma, text):
        t = self.sampling.timestep(torch.tensor([sigma])).float().clone()
        scaled = x / (sigma**2 + 1) ** 0.5
        return torch.func.functional_call(UNET, self.weights, (scaled, t), {"context": text})

    def estimates(self, x, sigma):
        """The guided and the unconditional one."""
        with torch.no_grad():
            positive, negative = (self.noise(x, sigma, text) for text in self.texts)
        return x - sigma * (negative + CFG * (positive - negative)), x - sigma * negative

    def loss(self, x, sigma):
        maps = []

        def read(module, args, kwargs):
            q, k = module.to_q(args[0]), module.to_k(kwargs["context"])
            q, k = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k))
            maps.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)[0].mT.unflatten(-1, half(x)))

        layers = [UNET.get_submodule(f"{name}.transformer_blocks.0.attn2") for name in READ]
        hooks = [layer.register_forward_pre_hook(read, with_kwargs=True) for layer in layers]
        self.noise(x, sigma, self.texts[0])
        for hook in hooks:
            hook.remove()
        total = 0.0
        for item, token in zip(LAYOUT.objects, TOKENS, strict=True):
            region = covered(item.box, *half(x))
            for found in maps:
                total += sum((1 - (m[token] * region).sum() / m[token].sum()) ** 2 for m in found) / len(found)
        return total / (len(TOKENS) * len(READ))

    def excitation(self, x, sigma):
        """Attend-and-Excite's loss on the maps at half the side, and BoxDiff's, whose sums are over both objects."""
        maps = []

        def read(module, args, kwargs):
            q, k = module.to_q(args[0]), module.to_k(kwargs["context"])
            q, k = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k))
            maps.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)[0].mT.unflatten(-1, half(x)).mean(0))

        layers = [UNET.get_submodule(f"{name}.transformer_blocks.0.attn2") for name in BALANCED]
        hooks = [layer.register_forward_pre_hook(read, with_kwargs=True) for layer in layers]
        self.noise(x, sigma, self.texts[0])
        for hook in hooks:
            hook.remove()
        words = (100 * sum(maps) / len(maps))[1:-1].softmax(0)[[token - 1 for token in TOKENS]]
        near = torch.exp(-torch.tensor([1.0, 0.0, 1.0]))
        kernel = (near[:, None] * near / near.sum() ** 2)[None, None]
        padded = torch.nn.functional.pad(words[None], (1, 1, 1, 1), mode="reflect")[0]
        words = torch.nn.functional.conv2d(padded[:, None], kernel)[:, 0]
        total = 0.0
        for item, found in zip(LAYOUT.objects, words, strict=True):
            inside = covered(item.box, *half(x)) >= 0.5
            inner, outer = (
                found[cells].topk(max(int(0.2 * cells.sum()), 1)).values.mean() for cells in (inside, ~inside)
            )
            total = total + 1 - inner + outer
            for side in (0, 1):
                wanted = inside.any(side)
                first, last = int(wanted.nonzero()[0]), int(wanted.nonzero()[-1]) + 1
                near = {i for edge in (first, last) for i in (edge - 1, edge, edge + 1) if 0 <= i < len(wanted)}
                projected = found.max(side).values
                total = total + sum((projected[i] - float(wanted[i])).abs() for i in near) / len(wanted)
        return max(1 - found.max() for found in words), total

    def moved(self, x, sigma, progress, settings=SETTINGS, movable=1.0):
        loss, times = 1.0, 0
        while loss > settings.threshold and times < settings.iterations and progress < settings.until:
            at = x.clone().requires_grad_(True)
            with torch.enable_grad():
                loss = self.loss(at, sigma)
                (g,) = torch.autograd.grad(settings.scale * loss, at)
            x = x - sigma**2 * g * movable
            times += 1
        return x


def half(x):
    return x.shape[-2] // 2, x.shape[-1] // 2


def covered(box, height, width):
    """Each cell's share inside the box, 1 at most."""
    x0, y0, x1, y1 = box

    def along(start, end, cells):
        return torch.tensor([max(0.0, min(end * cells, i + 1) - max(start * cells, i)) for i in range(cells)])

    share = along(y0, y1, height)[:, None] * along(x0, x1, width)
    return share / share.max()


def euler(plain, x, sigmas):
    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        x = plain.moved(x, sigma, i / (len(sigmas) - 1))
        x = x + (following - sigma) * (x - plain.estimates(x, sigma)[0]) / sigma
    return x


def euler_cfg_pp(plain, x, sigmas):
    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        x = plain.moved(x, sigma, i / (len(sigmas) - 1))
        denoised, unconditional = plain.estimates(x, sigma)
        x = denoised + following * (x - unconditional) / sigma
    return x


def heun(plain, x, sigmas):
    """The second evaluation of a step moves the latent at the next level; the next step then finds it moved."""
    steps, arrived = len(sigmas) - 1, False
    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        x = x if arrived else plain.moved(x, sigma, i / steps)
        slope = (x - plain.estimates(x, sigma)[0]) / sigma
        if following == 0:
            return x - sigma * slope
        ahead = x + (following - sigma) * slope
        there = plain.moved(ahead, following, (i + 1) / steps)
        second = (there - plain.estimates(there, following)[0]) / following
        x, arrived = x + there - ahead + (following - sigma) * (slope + second) / 2, True
    return x


def lms(plain, x, sigmas):
    """Adams-Bashforth on the noise levels as they are, of order four at most."""
    slopes = []
    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        x = plain.moved(x, sigma, i / (len(sigmas) - 1))
        slopes.insert(0, (x - plain.estimates(x, sigma)[0]) / sigma)
        levels = [sigmas[i - j] for j in range(min(i + 1, 4))]
        for j, slope in enumerate(slopes[: len(levels)]):
            others = np.array([level for k, level in enumerate(levels) if k != j])
            basis = np.poly1d(others, r=True) / np.prod(levels[j] - others)
            integral = basis.integ()
            x = x + (integral(following) - integral(sigma)) * slope
    return x


def expected(loop, steps=5, size=(16, 16), batch=2):
    with torch.inference_mode(False), torch.no_grad():
        plain, sigmas = Plain(), noise_levels(steps).tolist()
        noise = comfy.sample.prepare_noise(torch.zeros(batch, 8, *size), 1).clone() * (1 + sigmas[0] ** 2) ** 0.5
        return torch.cat([loop(plain, item, sigmas) for item in noise.split(1)])


def near(found, wanted, tolerance=2e-3):
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error < tolerance, error


def check_with_all_the_weight_it_is_layout_guidance_alone():
    """Alone, and balanced with weight 1, against the method written out for each sampler."""
    for loop in (euler, heun, lms, euler_cfg_pp):
        wanted = expected(loop)
        found, trace = guided(loop.__name__)
        near(found, wanted)
        assert trace.branches == ("guided",) and trace.steps[0].moves.min() > 0 and trace.steps[-1].moves is None
        balanced, _ = guided(loop.__name__, other=MODEL, fixed=torch.tensor([0.0, 1.0]))
        near(balanced, wanted)
        unguided, _ = guided(loop.__name__, guidance=LayoutGuidance(scale=0.0))
        assert (unguided - wanted).abs().max() > 0.1 * wanted.abs().max()


def check_settings_guide_a_spatial_branch_that_has_no_guidance_of_its_own():
    of_settings = LayoutGuidance(scale=SETTINGS.scale / 2, threshold=0.3, iterations=2, until=0.7, scale_steps=10)
    expected, _ = guided(other=MODEL)
    found, trace = guided(guidance=None, other=MODEL, layout_guidance=of_settings)
    near(found, expected)
    assert (trace.steps[0].moves[:, 0] == 0).all() and (trace.steps[0].moves[:, 1] > 0).all()
    own, _ = guided(other=MODEL, layout_guidance=LayoutGuidance(scale=100.0))
    near(own, expected)


def check_attend_and_excite_and_boxdiff_move_as_their_equations_say():
    """One move at each of the first two of four steps, then the sampler of the host alone."""
    for which, kind in enumerate((AttendAndExcite, BoxDiff)):
        settings = kind(scale=2.0, most=0)

        def loop(plain, x, sigmas, which=which):
            for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
                if i < 2:
                    at = x.clone().requires_grad_(True)
                    with torch.enable_grad():
                        (g,) = torch.autograd.grad(plain.excitation(at, sigma)[which], at)
                    x = x - 2.0 * (1 - 0.5 * i / 3) ** 0.5 * (1 + sigma**2) * g
                x = x + (following - sigma) * (x - plain.estimates(x, sigma)[0]) / sigma
            return x

        wanted = expected(loop, steps=4)
        found, trace = guided(guidance=settings, steps=4)
        near(found, wanted)
        assert trace.guides == {"guided": settings.name}
        balanced, _ = guided(guidance=settings, steps=4, other=MODEL, fixed=torch.tensor([0.0, 1.0]))
        near(balanced, wanted)
        unmoved, _ = guided(guidance=kind(scale=0.0), steps=4)
        assert torch.equal(unmoved, guided(guidance=LayoutGuidance(scale=0.0), steps=4)[0])
        assert (unmoved - wanted).abs().max() > 0.05 * wanted.abs().max()


def check_attend_and_excite_looks_at_words_or_at_the_layouts_objects():
    """And at nothing else: an empty layout has its words too, and a phrase that the prompt does not have is refused."""
    phrases = tuple(item.phrase for item in LAYOUT.objects)
    found, trace = guided(guidance=AttendAndExcite(), steps=3)
    assert trace.steps[0].moves.min() > 0
    named = AttendAndExcite(words=phrases)
    assert torch.equal(guided(guidance=named, steps=3)[0], found)
    empty = Layout((), prompt=LAYOUT.prompt)
    assert torch.equal(guided(guidance=named, layout=empty, steps=3)[0], found)
    assert not torch.equal(guided(guidance=AttendAndExcite(words=phrases[:1]), steps=3)[0], found)
    try:
        guided(guidance=AttendAndExcite(words=("a green star",)), steps=3)
        raise AssertionError("was not refused")
    except PhraseNotInPromptError as error:
        assert "a green star" in str(error)


def check_every_sampler_alone_and_balanced():
    """Two pictures that are not square, from a latent that is kept in part."""
    for sampler in SAMPLERS:
        for given in ({}, {"other": MODEL}):
            image = torch.linspace(-1, 1, 2 * 8 * 12 * 20).reshape(2, 8, 12, 20)
            given |= {"image": image, "denoise": 0.7, "steps": 3}
            unmoved, _ = guided(sampler, LayoutGuidance(scale=0.0), **given)
            for guidance in (
                LayoutGuidance(scale=2.0, threshold=0.3, iterations=1, until=0.5),
                AttendAndExcite(scale=2.0, most=1),
                BoxDiff(scale=2.0, most=1),
            ):
                found, _ = guided(sampler, guidance, **given)
                assert found.isfinite().all() and found.abs().max() < 2 * unmoved.abs().max(), (sampler, guidance)
                assert (found - unmoved).abs().max() > 1e-2, (sampler, guidance)


def check_what_is_kept_of_a_latent_neither_moves_nor_changes():
    """A mask that is 0, 1/2 and 1 against Euler's method with the host's blending written out."""
    image = torch.rand(1, 8, 16, 16, generator=torch.Generator().manual_seed(3)) - 0.5
    mask = torch.ones(1, 1, 16, 16)
    mask[..., 12:], mask[..., 9:12] = 0.0, 0.5

    def blended(plain, x, sigmas):
        noise, own = x / (1 + sigmas[0] ** 2) ** 0.5, image.clone() * shapes.LATENT_SCALE
        x = x + own
        for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
            shown = x * mask + (own + sigma * noise) * (1 - mask)
            there = plain.moved(shown, sigma, i / (len(sigmas) - 1), movable=mask)
            denoised = plain.estimates(there, sigma)[0] * mask + own * (1 - mask)
            x = x + there - shown
            x = x + (following - sigma) * (x - denoised) / sigma
        return x

    def kept(found):
        return (found / shapes.LATENT_SCALE - image)[..., 12:].abs().max() < 1e-6

    wanted = expected(blended, batch=1)
    found, _ = guided(mask=mask, image=image, batch=1)
    near(found, wanted)
    assert kept(found)
    found, _ = guided("heun", mask=mask, image=image, batch=1, other=MODEL, mode="lookahead")
    assert kept(found)
    shrinking = MODEL.clone()
    shrinking.set_model_denoise_mask_function(lambda sigma, mask, extra_options: (mask > sigma[0] / 20).to(mask.dtype))
    found, _ = guided(model=shrinking, mask=mask, image=image, batch=1)
    assert kept(found) and found.isfinite().all()


def check_previews_show_the_moved_latent():
    """At the end Euler's estimate is the picture; and the latent that is shown is where the estimate was made."""
    shown = []
    found, _ = guided(shown=lambda step, denoised, x, steps: shown.append((denoised.clone(), x.clone())))
    near(shown[-1][0], found, 1e-6)
    with torch.inference_mode(False), torch.no_grad():
        plain, sigma = Plain(), noise_levels(5).tolist()[0]
        start = shown[0][1].clone()
        for item, denoised in zip(start.split(1), shown[0][0].clone().split(1), strict=True):
            near(plain.estimates(item, sigma)[0], denoised)


def check_short_memory_gives_the_same_picture():
    wanted, checkpointed, calls = guided()[0], memory._checkpointed, []

    def short(networks, everything, read=()):
        calls.append(everything)
        if len(calls) % 3:  # twice in vain, then item by item
            raise comfy.model_management.OOM_EXCEPTION("simulated")
        return checkpointed(networks, everything, read)

    memory._checkpointed = short
    try:
        found = guided()[0]
    finally:
        memory._checkpointed = checkpointed
    assert calls and len(calls) % 3 == 0
    near(found, wanted)


def check_an_interrupt_stops_between_two_moves():
    read = branch.HostBranch._read_once
    passes = []

    def interrupted(self, *args):
        passes.append(len(passes))
        if len(passes) == 2:
            comfy.model_management.interrupt_current_processing()
        return read(self, *args)

    branch.HostBranch._read_once = interrupted
    try:
        guided()
        raise AssertionError("was not interrupted")
    except comfy.model_management.InterruptProcessingException:
        assert len(passes) == 2
    finally:
        branch.HostBranch._read_once = read
    assert guided()[0].isfinite().all()


def check_patches_and_weights_of_a_guided_branch_stay_in_force():
    called = []

    def other(q, k, v, options):
        called.append(torch.is_grad_enabled())
        return optimized_attention(q, k, v, options["n_heads"])

    model = MODEL.clone()
    model.set_model_attn2_replace(other, *sources.patch_key(layer_of("output_blocks.0"))[:2])
    found, _ = guided(model=model, other=MODEL, fixed=torch.tensor([0.5, 0.5]))
    assert called.count(True) == 2 * 4 and False in called
    near(found, guided(other=MODEL, fixed=torch.tensor([0.5, 0.5]))[0])

    tuned = MODEL.clone()
    key = f"{READ[1]}.transformer_blocks.0.attn2.to_k.weight"
    tuned.add_patches({f"diffusion_model.{key}": (0.3 * torch.ones_like(UNET.get_parameter(key)),)})
    with torch.inference_mode(False), torch.no_grad():
        plain = Plain()
        plain.weights[key] = plain.weights[key] + 0.3
        x = comfy.sample.prepare_noise(torch.zeros(1, 8, 16, 16), 1).clone() * 3
        wanted = plain.loss(x, 3.0)
    losses = []

    def watch(guider):
        g = guider._balancer.branches[0]
        losses.append(g.gradient(x, 3.0, g._objective).losses.sum())

    guided(model=tuned, watch=watch, steps=1)
    near(losses[0], wanted, 1e-4)


def layer_of(block):
    return next(layer for layer in sources.UNetAttention(UNET).layers if layer.name.startswith(block))


def check_the_gradient_flows_through_a_controlnet_unless_it_is_detached():
    """Against finite differences of the loss, in the direction in which the two differ. Detached, less is kept."""
    generator = torch.Generator().manual_seed(5)
    hint, x = torch.rand(1, 3, 128, 128, generator=generator), torch.randn(1, 8, 16, 16, generator=generator)
    sigma, step, gradients, kept, slopes = 2.0, 0.5, {}, {}, []

    def watch(guider):
        own = guider._branches[1]
        assert own._detach_control is detach

        def keep(tensor):
            kept[detach] = kept.get(detach, 0) + tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            gradients[detach] = own.gradient(x, sigma)
        if detach:
            difference = gradients[False].g - gradients[True].g
            direction = difference / difference.norm()
            ends = [own.gradient(x + sign * step * direction, sigma).losses.sum() for sign in (1, -1)]
            slopes.append(((ends[0] - ends[1]) / (2 * step)).item())
            slopes.extend((gradients[through].g * direction).sum().item() for through in (False, True))

    positive = [[POSITIVE[0][0], {"control": control_net(hint), "control_apply_to_uncond": True}]]
    for detach in (False, True):
        guided(other=MODEL, guidance=None, positive=positive, detach=detach, watch=watch, steps=1, batch=1)
    measured, through, detached = slopes
    assert abs(through - measured) < 0.03 * abs(measured), slopes
    assert abs(detached - measured) > 0.2 * abs(measured), slopes
    assert torch.equal(gradients[False].losses, gradients[True].losses) and kept[True] < 0.8 * kept[False], kept


def check_one_branch_needs_guidance_and_guidance_needs_objects():
    entry = guiders.BranchInput(MODEL, POSITIVE, NEGATIVE, CFG)
    try:
        guiders.BalancedGuider([entry], LAYOUT, CLIP)
        raise AssertionError("was not refused")
    except RealCompoError as error:
        assert "1 branch" in str(error) and "layout_guidance" in str(error)
    empty = Layout((), prompt=LAYOUT.prompt)
    found, trace = guided(layout=empty, watch=lambda g: seen.append(g._balancer.branches[0]), steps=2)
    assert not isinstance(seen[-1], GuidedBranch) and "no objects" in trace.note
    assert torch.equal(found, guided(guidance=LayoutGuidance(scale=0.0), steps=2)[0])


seen = []
run_checks(globals())
