"""RealCompo over diffusers: `RealCompoPipeline` balances pipelines, `record` records attention."""

from .controlnet import with_controlnets
from .pipeline import Guided, Output, RealCompoPipeline
from .recording import record
from .request import Control

__all__ = ["Control", "Guided", "Output", "RealCompoPipeline", "record", "with_controlnets"]
