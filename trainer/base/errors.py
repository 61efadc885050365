"""Exceptions that end a run early."""

from __future__ import annotations

ADVICE = "a lower optimizer.lr, schedule.warmup_epochs or train.clip_norm may help"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class UserError(Exception):
    """Something in the configuration, the data or the launch that the user can fix.

    The message names the key or the file, says what was found and what would be right. The
    commands print it on standard error without a traceback and exit with code 2.
    """


class RankError(UserError):
    """A `UserError` that only this rank has, and prints, where no collective tells the others."""


class NonFiniteLossError(Exception):
    """A loss is infinite or not a number; the same on all ranks.

    Args:
        message: says where.
        step: the optimiser step whose loss it is; None for a loss of an evaluation.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(f"{message}; {ADVICE}")
        self.step = step


class FirstFailureError(Exception):
    """This rank is the first of several to fail, with an unforeseen error.

    Args:
        error: the one that came up.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class LostRankError(Exception):
    """Another rank has failed, perhaps before this one did.

    Args:
        message: names it.
        prints: whether this rank is the one to print it.
    """

    def __init__(self, message: str, *, prints: bool) -> None:
        super().__init__(message)
        self.prints = prints


class UnreadableError(UserError):
    """A file may be whole, but this user may not read it."""


class FormatVersionError(UserError):
    """A checkpoint is from another version: whole, and not to be touched."""


class DifferentRunError(Exception):
    """A result that was computed again differs from the run's folder; the same on all ranks."""


class StoppedOnRequest(Exception):  # noqa: N818 - nothing went wrong
    """The run was asked to stop and has saved everything; the same command goes on."""
