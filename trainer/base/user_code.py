"""Errors that come up in code of the user's own: one message with its file and line."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from trainer.base.errors import UserError

_HERE = Path(__file__).parents[1]
_PASSES = ("/torch/nn/modules/", "/torch/autograd/")
"""where torch runs a network forward and backward"""


def as_user_error(error: BaseException) -> UserError | None:
    """What an unforeseen error is that has come up in a part of the user's own; None: it is ours.

    Such a part is the code of a plug-in and of what it imports, a network that a program has
    registered, and one of timm's. It counts where it was called by ours, and not where it calls us.
    """
    if "models" not in sys.modules or not isinstance(error, (Exception, SystemExit)):
        return None  # nobody's code has run yet
    import models

    called = _called(error)
    own = [frame for frame in called if models.is_foreign(frame.filename)]
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if own:
        frame = own[-1]
        return UserError(
            f"{frame.filename}, line {frame.lineno}: {frame.name} fails, in code that is not "
            f"Lockstep's: {words}"
        )
    names = models.foreign_names()
    in_pass = any(part in Path(frame.filename).as_posix() for frame in called for part in _PASSES)
    of_others = re.search("gloo|nccl", str(error), re.IGNORECASE)  # DDP exchanges in a pass
    if names and in_pass and not of_others:  # torch's own layers, put together by the user
        return UserError(f"model.name: {', '.join(names)} fails: {words}")
    return None


def _called(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames from the last of ours on, from the outermost."""
    frames = list(traceback.extract_tb(error.__traceback__))
    ours = [number for number, frame in enumerate(frames) if _HERE in _parents(frame)]
    return frames[ours[-1] + 1 :] if ours else frames


def _parents(frame: traceback.FrameSummary) -> Iterator[Path]:
    return iter(Path(frame.filename).parents)
