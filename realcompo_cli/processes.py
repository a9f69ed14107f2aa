"""What the processes of one command, as `torchrun` and `accelerate launch` start them, must do once and not each."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from realcompo_core.errors import RealCompoError

INTERRUPTED = 130  # exit code of a command that Ctrl-C stopped, as that of a shell's
ANSWERS_WITHIN = timedelta(seconds=10)


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def is_first_to_say(message: str) -> bool:
    """Whether no other process of this command has said the same; also where they cannot be asked."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return True
    from torch.distributed import TCPStore

    key = f"realcompo {os.environ.get('TORCHELASTIC_RESTART_COUNT')} {hashlib.sha256(message.encode()).hexdigest()}"
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=ANSWERS_WITHIN, wait_for_workers=False)
        return store.add(key, 1) == 1
    except (KeyError, ValueError, RuntimeError):
        return True


class Processes:
    """The processes of this command: `index` of `count`. More than one are led by accelerate."""

    def __init__(self, index: int, count: int):
        self.index, self.count = index, count

    @classmethod
    def of_this_command(cls) -> Processes:
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def device(self, given: str | None) -> str:
        """The device given, or the best one; of several processes each has its own GPU."""
        from .models import best_device, check_device

        device = given or best_device()
        if device == "cuda" and self.count > 1:
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        check_device(device)
        return device

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others do."""
        if self.count == 1:
            yield
            return
        with _state().main_process_first():
            yield

    def wait(self) -> None:
        """For all processes to come here."""
        if self.count > 1:
            _state().wait_for_everyone()


def _state() -> Any:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise RealCompoError("several processes need the package accelerate: pip install accelerate") from error
    import torch

    return PartialState(cpu=not torch.cuda.is_available())


def command_line() -> str:
    return shlex.join(["realcompo", *sys.argv[1:]])
