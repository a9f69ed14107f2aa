"""What the processes of one command, as `torchrun` and `accelerate launch` start them, must do once and not each."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta

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
