"""Train: do the run of a configuration, or what is left of it; `python train.py` does the same.

The arguments are those of train.py, and so is --help.

example: python -m trainer train --config digits --train.epochs 5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from trainer.base import garbage
from trainer.base.unused_imports import without_boto3
from trainer.commands import options
from trainer.config import command_line
from trainer.ranks import processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Leave all arguments to the configuration."""
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Do the run that the arguments describe, or what is left of it."""
    train(arguments.configuration)


def train(arguments: Sequence[str]) -> None:
    """Do the run that the arguments describe; `--help` prints and exits.

    Raises:
        UserError: names the key, the file or the process count that is wrong.
    """
    config = command_line.parse(arguments)
    known = options.complete(config)
    processes.check_launch(known)
    from trainer.data.sources import head_start

    with head_start.look_into_pictures(known.data), garbage.keep_all(), without_boto3():
        # Torch and its company take seconds to import: only after --help and a mistyped key.
        from trainer.ranks import local_processes
        from trainer.run.training_run import run_training

    local_processes.run(known, lambda: run_training(config))
