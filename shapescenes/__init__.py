"""ShapeScenes: a world of coloured shapes small enough to ship and honest enough to test the method on."""

from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.guidance.settings import BalanceSettings

DEFAULTS = {
    "steps": 12,
    "sampler": "euler",
    "guidance_scale": 3.0,
    "layers": 2,
    "include_adjectives": True,
    "balance": BalanceSettings(),
}
"""Arguments of RealCompoPipeline that suit the bundled models."""

DIT_DEFAULTS = {**DEFAULTS, "steps": 20}
"""Those that suit the bundled transformer."""

LAYOUT_GUIDANCE = LayoutGuidance(scale=100.0, until=0.4)
"""Layout Guidance's settings that suit them: with few steps and few layers the latent must move further."""
