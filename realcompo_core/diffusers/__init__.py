"""RealCompo over diffusers: `RealCompoPipeline` balances, `record` records attention."""

from .pipeline import Output, RealCompoPipeline
from .recording import record

__all__ = ["Output", "RealCompoPipeline", "record"]
