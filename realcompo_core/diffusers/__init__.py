"""RealCompo over diffusers: `RealCompoPipeline` balances, `record` records attention."""

from .pipeline import Guided, Output, RealCompoPipeline
from .recording import record
from .request import Control

__all__ = ["Control", "Guided", "Output", "RealCompoPipeline", "record"]
