"""Explain errors in users' code by one message with its file and line."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from trainer.base.errors import UserError

_OURS = Path(__file__).parents[1]
_PASSES = ("/torch/nn/modules/", "/torch/autograd/")
"""where torch runs a network forward and backward"""

_files: set[str] = set()
"""files and folders with code that is not Lockstep's and is in use, as tracebacks name them"""
_networks: list[str] = []
"""networks in use that are not Lockstep's"""


def note_file(path: str) -> None:
    """Count the code of a file, or of all files in a folder, as the user's from now on."""
    _files.add(path)


def note_network(name: str) -> None:
    """Count a network as the user's, though torch's own layers may be all that it has."""
    if name not in _networks:
        _networks.append(name)


def as_user_error(error: BaseException) -> UserError | None:
    """Return a message for an unforeseen error in the user's code; None if it is ours.

    The user's code is that of a plug-in and of what it imports, a network that a program has
    registered, and one of timm's. It counts where ours has called it, and not where it calls us.
    """
    if not isinstance(error, (Exception, SystemExit)):
        return None
    called = _called_frames(error)
    users = [frame for frame in called if _is_noted(frame.filename)]
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if users:
        frame = users[-1]
        return UserError(
            f"{frame.filename}, line {frame.lineno}: {frame.name} fails, in code that is not "
            f"Lockstep's: {words}"
        )
    in_pass = any(part in Path(frame.filename).as_posix() for frame in called for part in _PASSES)
    of_others = re.search("gloo|nccl", str(error), re.IGNORECASE)  # DDP exchanges in a pass
    if _networks and in_pass and not of_others:  # torch's own layers, put together by the user
        return UserError(f"model.name: {', '.join(_networks)} fails: {words}")
    return None


def _is_noted(path: str) -> bool:
    return not _files.isdisjoint([path, *map(str, Path(path).parents)])


def _called_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames after the last of ours, from the outermost."""
    frames = list(traceback.extract_tb(error.__traceback__))
    ours = [n for n, frame in enumerate(frames) if _OURS in Path(frame.filename).parents]
    return frames[ours[-1] + 1 :] if ours else frames
