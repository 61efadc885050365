"""The error that a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Something in the configuration, the data or the launch that the user can put right.

    The message names the key or the file, says what was found and what would be right. The
    commands print it on standard error without a traceback and exit with code 2.
    """


class RankError(UserError):
    """A `UserError` of one rank alone; any other is the same on all ranks, and rank 0 prints it."""


class LaterFormatError(UserError):
    """A checkpoint of a later version: whole, and not to be touched."""


class StoppedOnRequest(Exception):  # noqa: N818 - nothing went wrong
    """The run was asked to stop and has saved everything; the same command goes on."""
