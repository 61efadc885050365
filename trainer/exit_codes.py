"""From what ended a command to its exit code and its one message."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable

from trainer.errors import RankError, StoppedOnRequest, UserError
from trainer.processes import launched_rank

FINISHED = 0
FAILED = 1
USER_CAN_MEND = 2
STOPPED_ON_REQUEST = 75


def of(error: BaseException | None) -> int:
    """The exit code for an exception, or for None."""
    match error:
        case None:
            return FINISHED
        case UserError():
            return USER_CAN_MEND
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
    except (UserError, StoppedOnRequest) as error:
        if launched_rank() == 0:
            print(error, file=sys.stderr)
        return of(error)
    except KeyboardInterrupt as error:
        print("interrupted; the newest checkpoint is what is saved", file=sys.stderr)
        return of(error)
    return FINISHED
