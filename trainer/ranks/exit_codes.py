"""Run a command as a program: its exit code, its one message, and which rank prints it.

Rank 0 prints for all. The other ranks only report their own errors, with rank and machine.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from trainer.base import output_streams, user_code_errors
from trainer.base.errors import (
    DifferentRunError,
    FirstFailureError,
    LostRankError,
    NonFiniteLossError,
    RankError,
    StoppedOnRequest,
    UserError,
)
from trainer.ranks.preemption import end_with_launcher
from trainer.ranks.processes import is_started_here, launched_count, launched_rank

FINISHED = 0
FAILED = 1
USER_CAN_FIX = 2
DIFFERENT = 3
"""of `verify` and `replay`: the recomputed values differ from those in the run's folder"""
STOPPED_ON_REQUEST = 75

SILENT_RANK_WAITS_S = 2.0
"""before a rank that leaves the message to rank 0 ends"""


def exit_code_for(error: BaseException | None) -> int:
    """Return the exit code for an exception, or for None."""
    match error:
        case None:
            return FINISHED
        case UserError():
            return USER_CAN_FIX
        case OSError() if error.errno in output_streams.DISK_FULL:
            return USER_CAN_FIX
        case DifferentRunError():
            return DIFFERENT
        case StoppedOnRequest():
            return STOPPED_ON_REQUEST
        case FirstFailureError():
            return exit_code_for(error.error)
        case LostRankError() if error.__cause__ is not None:  # it failed for the same reason
            return USER_CAN_FIX if user_code_errors.as_user_error(error.__cause__) else FAILED
        case _:
            return USER_CAN_FIX if user_code_errors.as_user_error(error) else FAILED


@contextlib.contextmanager
def program() -> Iterator[None]:
    """Run the block as a whole program, also under a launcher, and exit with its code."""
    # Read when OpenMP is loaded: threads that wait for each other leave the cores to other runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    end_with_launcher()
    _silence_other_ranks()
    with output_streams.ignore_write_errors(), exit_with_code():
        _check_current_folder()
        yield


@contextlib.contextmanager
def exit_with_code() -> Iterator[None]:
    """Exit after the block; an error that a user can fix prints one line, any other its traceback.

    Raises:
        SystemExit: with the code of the contract.
    """
    try:
        yield
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        message = _message_of(error)
        if message is None and launched_count() == 1:
            raise
        text, prints = message or (_traceback_of(error), True)
        _tell_launcher(text, first=not isinstance(error, LostRankError))
        if prints:
            print(text, file=sys.stderr, flush=True)
        elif exit_code_for(error) == USER_CAN_FIX and not is_started_here():
            # A launcher ends all ranks when the first one fails: rank 0 has to speak before that.
            time.sleep(SILENT_RANK_WAITS_S)
        sys.exit(exit_code_for(error))
    sys.exit(FINISHED)


def end_now(error: LostRankError) -> NoReturn:
    """End this process from any of its threads, as the main one may wait for ever."""
    text = _prefix_rank(str(error))
    try:
        if error.prints:
            print(text, file=sys.stderr, flush=True)
        _tell_launcher(text, first=False)
    finally:  # also where the disk is full, or nobody reads
        os._exit(FAILED)


def _check_current_folder() -> None:
    """Raise a UserError if it has been removed: each relative path would fail in its own way."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UserError(
            "the current folder has been removed; change to another one (cd) and start again"
        ) from error


def _message_of(error: BaseException) -> tuple[str, bool] | None:
    """Return the message for an error and whether this rank prints it; None: a traceback."""
    match error:
        case FirstFailureError():
            return _message_of(error.error) or (_traceback_of(error.error), True)
        case LostRankError():
            return _prefix_rank(str(error)), error.prints
        case RankError():
            return _prefix_rank(str(error)), True
        case UserError() | DifferentRunError() | StoppedOnRequest() | NonFiniteLossError():
            return str(error), launched_rank() == 0
        case OSError() if error.errno in output_streams.DISK_FULL:
            where = error.filename or "a file of the run"
            return f"{where}: {error.strerror}; make room and start again", True
        case KeyboardInterrupt():
            return "interrupted", launched_rank() == 0
        case _:
            own = user_code_errors.as_user_error(error)
            if own is None:
                return None
            return (_prefix_rank(str(own)) if launched_count() > 1 else str(own)), True


def _traceback_of(error: BaseException) -> str:
    return _prefix_rank("".join(traceback.format_exception(error)))


def _prefix_rank(text: str) -> str:
    """Put the rank and the machine in front of each line of a text."""
    speaker = f"rank {launched_rank()} on {platform.node()}: "
    return "\n".join(speaker + line for line in text.splitlines())


def _silence_other_ranks() -> None:
    """Leave warnings of Python and of torch's C++ to rank 0; call it before torch is imported."""
    if launched_rank() > 0:
        logging.disable(logging.WARNING)
        warnings.filterwarnings("ignore")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _tell_launcher(text: str, *, first: bool) -> None:
    """Tell torchrun, or `accelerate launch`, why this process ends.

    They close with a table of all ranks that failed, the earliest one last. Its times are whole
    seconds, so a rank that only reports another's failure rounds its time up.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return
    moment_s = math.floor(time.time()) if first else math.ceil(time.time())
    details = {"py_callstack": text, "timestamp": str(moment_s)}
    message = {"message": {"message": text, "extraInfo": details}}
    with contextlib.suppress(OSError):  # the disk may be full; this rank prints the message itself
        Path(path).write_text(json.dumps(message), encoding="utf-8")
