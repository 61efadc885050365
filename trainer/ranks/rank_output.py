"""What the ranks of a run say: rank 0 talks, the others on errors, with their rank and machine."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import time
import warnings
from pathlib import Path

from trainer.ranks.processes import launched_rank


def hush_other_ranks() -> None:
    """Leave warnings to rank 0, of Python and of torch's C++; to be called before torch comes."""
    if launched_rank() > 0:
        logging.disable(logging.WARNING)
        warnings.filterwarnings("ignore")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def named(text: str) -> str:
    """Each line of a text with the rank and the machine before it."""
    speaker = f"rank {launched_rank()} on {platform.node()}: "
    return "\n".join(speaker + line for line in text.splitlines())


def note_failure(text: str, *, first: bool) -> None:
    """Tell torchrun, and `accelerate launch`, why this process ends.

    They close with a table of all ranks that failed, the earliest of them last. Times in it are
    whole seconds, so those who only tell of another's failure round theirs up.

    Args:
        first: whether it is a failure of this process itself.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return
    moment_s = math.floor(time.time()) if first else math.ceil(time.time())
    details = {"py_callstack": text, "timestamp": str(moment_s)}
    message = {"message": {"message": text, "extraInfo": details}}
    Path(path).write_text(json.dumps(message), encoding="utf-8")
