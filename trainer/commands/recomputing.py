"""The words that `replay` and `verify` have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.base.errors import UserError
from trainer.commands.options import add_json_option
from trainer.config.plugins import CODE
from trainer.config.schema import RunConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run's folder, what may be different here, and how strictly to judge."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--data.root", metavar="DIR", help="where the run's images are here")
    for key, what in CODE.items():
        parser.add_argument(
            f"--{key}",
            metavar="NAME",
            help=f"the run's {what}; needed where it is code of the run's own",
        )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of each process; the run's own where left out"
    )
    parser.add_argument(
        "--tolerance", type=float, metavar="X",
        help="go on where equal bits cannot be promised, and let losses differ by this share",
    )  # fmt: skip
    add_json_option(parser)


def configuration(arguments: argparse.Namespace) -> RunConfig:
    """The configuration of the run, as it is to be computed again.

    Raises:
        UserError: a number means nothing; or as `recomputation.configuration`.
    """
    from trainer.finished import recomputation

    _check(arguments)
    given = {key: getattr(arguments, key) for key in (*CODE, "data.root", "threads")}
    changes = {key: value for key, value in given.items() if value is not None}
    return recomputation.configuration(arguments.folder, changes)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.tolerance is not None and not 0 <= arguments.tolerance < 1:
        raise UserError(f"--tolerance: {arguments.tolerance:g}, but a share lies in [0, 1)")
    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"--threads: {arguments.threads}, but at least one computes")
