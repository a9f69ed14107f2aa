"""What the Balance Report node gives, run by the host's own Python in the host's folder: see `test_host_report.py`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile

sys.argv = ["main.py", "--cpu", "--temp-directory", tempfile.mkdtemp()]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import folder_paths  # noqa: E402
import torch  # noqa: E402
import utils.extra_config  # noqa: E402, F401  before the host's `nodes` lets comfy/utils.py hide it
from pack import load_nodes  # noqa: E402

folder_paths.set_temp_directory(sys.argv[-1])
REPORT = asyncio.run(load_nodes())["RealCompoBalanceReport"]

from realcompo_core.guidance.trace import Trace, TraceStep  # noqa: E402  importable once the pack is loaded


def refused(trace, **inputs) -> str:
    try:
        REPORT.execute(trace=trace, **inputs)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{trace} was not refused")


def sheets(trace, **inputs) -> torch.Tensor:
    (batch,) = REPORT.execute(trace=trace, **inputs).args
    return batch


def check_a_trace_that_was_never_filled_names_the_input_that_waits_for_the_sampler():
    for trace in (None, Trace(("fidelity", "spatial"))):
        message = refused(trace)
        assert "trace is empty" in message and "the input image" in message, message


def check_nothing_sampled_is_a_picture_with_the_note():
    batch = sheets(Trace(("fidelity", "spatial"), note="nothing was sampled: denoise is 0"))
    assert len(batch) == 1 and batch.min() < 0.9


def check_a_batch_has_a_sheet_for_each_picture_and_the_image_is_not_looked_at():
    weights = torch.full((2, 3, 8, 6), 1 / 3)
    trace = Trace(("fidelity", "spatial 1", "spatial 2"), steps=[TraceStep(i, 1.0, weights) for i in range(3)])
    batch = sheets(trace, image=torch.zeros(2, 8, 8, 3))
    assert batch.dtype == torch.float32 and batch.shape[0] == 2 and batch.shape[3] == 3
    torch.testing.assert_close(batch[0, 80:], batch[1, 80:])  # below the title


def main() -> None:
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            with torch.inference_mode():
                check()
            print("ok", name)


main()
