"""ShapeScenes: a world of coloured shapes small enough to ship and honest enough to test the method on."""

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
