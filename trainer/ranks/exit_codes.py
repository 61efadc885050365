"""From what ended a command to its exit code and its one message."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from trainer.base import output_streams, user_code
from trainer.base.errors import (
    DifferentRunError,
    FirstFailureError,
    LostRankError,
    NonFiniteLossError,
    RankError,
    StoppedOnRequest,
    UserError,
)
from trainer.ranks.orphans import end_with_launcher
from trainer.ranks.processes import launched_count, launched_rank
from trainer.ranks.rank_output import hush_other_ranks, named, note_failure

FINISHED = 0
FAILED = 1
USER_CAN_MEND = 2
DIFFERENT = 3
"""of `verify` and `replay`: what was computed again is not what the run's folder holds"""
STOPPED_ON_REQUEST = 75

SILENT_RANK_WAITS_S = 2.0
"""before a rank that leaves the message to rank 0 ends"""


def of(error: BaseException | None) -> int:
    """The exit code for an exception, or for None."""
    match error:
        case None:
            return FINISHED
        case UserError() | RankError():
            return USER_CAN_MEND
        case OSError() if error.errno in output_streams.DISK_FULL:
            return USER_CAN_MEND
        case DifferentRunError():
            return DIFFERENT
        case StoppedOnRequest():
            return STOPPED_ON_REQUEST
        case FirstFailureError():
            return of(error.error)
        case LostRankError() if error.__cause__ is not None:  # it failed of the same
            return USER_CAN_MEND if user_code.as_user_error(error.__cause__) else FAILED
        case _:
            return USER_CAN_MEND if user_code.as_user_error(error) else FAILED


def exit_after(command: Callable[[], None]) -> NoReturn:
    """Be the program of a command, under a launcher too, and exit with its code."""
    end_with_launcher()
    hush_other_ranks()
    with output_streams.ignore_write_errors():
        code = run(command)
    sys.exit(code)


def run(command: Callable[[], None]) -> int:
    """Run a command; what a user can mend becomes one line, anything else keeps its traceback."""
    try:
        command()
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        said = _known(error)
        if said is None and launched_count() == 1:
            raise
        text, prints = said or (_with_traceback(error), True)
        note_failure(text, first=not isinstance(error, LostRankError))
        if prints:
            print(text, file=sys.stderr, flush=True)
        elif of(error) == USER_CAN_MEND:
            # A launcher ends the other ranks with the first that fails: rank 0 has to speak before.
            time.sleep(SILENT_RANK_WAITS_S)
        return of(error)
    return FINISHED


def _known(error: BaseException) -> tuple[str, bool] | None:
    """What there is to say about an end, and whether this process says it; None: a traceback."""
    match error:
        case FirstFailureError():
            return _known(error.error) or (_with_traceback(error.error), True)
        case LostRankError():
            return named(str(error)), error.prints
        case RankError():
            return named(str(error)), True
        case UserError() | DifferentRunError() | StoppedOnRequest() | NonFiniteLossError():
            return str(error), launched_rank() == 0
        case OSError() if error.errno in output_streams.DISK_FULL:
            where = error.filename or "a file of the run"
            return f"{where}: {error.strerror}; make room and start again", True
        case KeyboardInterrupt():
            return "interrupted", True
        case _:
            own = user_code.as_user_error(error)
            if own is None:
                return None
            return (named(str(own)) if launched_count() > 1 else str(own)), True


def _with_traceback(error: BaseException) -> str:
    return named("".join(traceback.format_exception(error)))
