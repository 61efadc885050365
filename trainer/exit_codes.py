"""From what ended a command to its exit code and its one message."""

from __future__ import annotations

import errno
import platform
import sys
from collections.abc import Callable

from trainer.errors import (
    DifferentRunError,
    LostRankError,
    NonFiniteLossError,
    RankError,
    StoppedOnRequest,
    UserError,
)
from trainer.processes import launched_rank

FINISHED = 0
FAILED = 1
USER_CAN_MEND = 2
DIFFERENT = 3
"""of `verify` and `replay`: what was computed again is not what the run's folder holds"""
STOPPED_ON_REQUEST = 75

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def of(error: BaseException | None) -> int:
    """The exit code for an exception, or for None."""
    match error:
        case None:
            return FINISHED
        case UserError() | RankError():
            return USER_CAN_MEND
        case OSError() if error.errno in NO_SPACE:
            return USER_CAN_MEND
        case DifferentRunError():
            return DIFFERENT
        case StoppedOnRequest():
            return STOPPED_ON_REQUEST
        case _:
            return FAILED


def run(command: Callable[[], None]) -> int:
    """Run a command; what a user can mend becomes one line, anything else keeps its traceback."""
    try:
        command()
    except RankError as error:
        print(f"rank {launched_rank()} on {platform.node()}: {error}", file=sys.stderr)
        return of(error)
    except (UserError, DifferentRunError, StoppedOnRequest, NonFiniteLossError) as error:
        if launched_rank() == 0:
            print(error, file=sys.stderr)
        return of(error)
    except LostRankError as error:
        if error.speaks:
            print(f"rank {launched_rank()} on {platform.node()}: {error}", file=sys.stderr)
        return of(error)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        where = error.filename or "a file of the run"
        print(f"{where}: {error.strerror}; make room and start again", file=sys.stderr)
        return of(error)
    except KeyboardInterrupt as error:
        print("interrupted; the newest checkpoint is what is saved", file=sys.stderr)
        return of(error)
    return FINISHED
