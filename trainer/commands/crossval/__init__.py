"""Train once for each fold of the training images, and say how well the recipe does.

The arguments of a run follow, as for train.py. Each fold is a run in OUTPUT_DIR/fold-K, which
trains on the other folds and is tested on its own, once, at its end. The test images are not used.
The same command goes on where it was stopped, and when all folds are finished it writes
crossval.json, out_of_fold.npz and crossval.html. train.max_seconds is for the whole command.

example: python -m trainer crossval --config configs/digits.yaml --folds 5 --output_dir runs/folds
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.base.errors import StoppedOnRequest, UserError
from trainer.commands.options import add_json_option
from trainer.config import command_line, rules
from trainer.config.schema import RunConfig, folder_of, replace
from trainer.ranks import collectives, process_group, processes
from trainer.ranks.process_group import join_process_group
from trainer.run.run_folder import RunFolder, fill_pinned, pinned_values

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.ranks.preemption import StopRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments; the others are the run's."""
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--fold", type=int, metavar="K", help="train only this fold, from 1, without a report"
    )
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Train what is left of the folds; when all are finished, write and print the result.

    Raises:
        UserError: there cannot be such folds, or the folder contains something else.
        StoppedOnRequest: asked to by a signal or by `train.max_seconds`; the same command goes on.
    """
    asked = _parse(arguments.configuration)
    numbers = range(1, arguments.folds + 1) if arguments.fold is None else [arguments.fold]
    folds = [fold_config(asked, arguments.folds, number) for number in numbers]
    for each in folds or [fold_config(asked, arguments.folds, 1)]:
        rules.validate(each)
    known = asked if processes.is_launched() else fill_pinned(asked, _stored_pins(asked, folds))
    processes.check_launch(known)
    import trainer.run.training_run  # noqa: F401 - before the processes are started
    from trainer.ranks import local_processes

    local_processes.run(known, lambda: _run(arguments, asked, folds))


def _run(arguments: argparse.Namespace, asked: RunConfig, folds: Sequence[RunConfig]) -> None:
    """Do what `run` does, in each process; a collective."""
    from trainer.ranks.preemption import StopRequest

    stop = StopRequest()  # between two folds, where no run listens
    stop.install()
    found = None
    try:
        # Standard output is only for the JSON object.
        with (
            contextlib.redirect_stdout(sys.stderr if arguments.json else sys.stdout),
            join_process_group(asked) as accelerator,
        ):
            _train(accelerator, asked, folds, stop)
            if arguments.fold is None:
                from trainer.commands.crossval import class_result, label_result

                write = (label_result if asked.data.multi_label else class_result).write_result
                found = collectives.run_on_main_rank(accelerator, lambda: write(folds))
    finally:
        stop.restore()
    if found and arguments.json and processes.launched_rank() == 0:
        print(json.dumps(found, indent=2))


def fold_config(asked: RunConfig, folds: int, number: int) -> RunConfig:
    """Return the configuration of one fold's run."""
    folder = str(folder_of(asked) / f"fold-{number}")
    return replace(asked, {"data.folds": folds, "data.fold": number, "output_dir": folder})


def _parse(words: Sequence[str]) -> RunConfig:
    config = command_line.parse(words)
    if config.data.folds is not None:
        raise UserError(
            f"data.folds: must be null, found {config.data.folds}; the command's own --folds says "
            f"how many there are"
        )
    if config.resume not in ("auto", "none"):
        raise UserError(
            f"resume: must be auto or none for a cross-validation, found {config.resume!r}; each "
            f"fold goes on from its own checkpoints"
        )
    return config


def _train(
    accelerator: Accelerator, asked: RunConfig, folds: Sequence[RunConfig], stop: StopRequest
) -> None:
    """Do what is left of each fold; a collective."""
    from trainer.run.training_run import run_training

    pins = collectives.run_on_main_rank(accelerator, lambda: _stored_pins(asked, folds))
    limit_s, end_s = asked.train.max_seconds, None
    for config in folds:
        now_s = time.monotonic()
        late = end_s is not None and now_s > end_s
        (asked_to_stop,) = collectives.max_over_ranks(
            accelerator, [float(late or stop.signal is not None)]
        )
        if asked_to_stop:
            process_group.leave(accelerator)
            raise StoppedOnRequest(
                f"stopped before fold {config.data.fold}; the same command goes on with it"
            )
        if accelerator.is_main_process:
            print(f"\nfold {config.data.fold} of {config.data.folds}\n", flush=True)
        left_s = limit_s if end_s is None else end_s - now_s
        trained = run_training(replace(fill_pinned(config, pins), {"train.max_seconds": left_s}))
        if trained:
            pins = pinned_values(trained)
            # From the first fold that is trained, so that every start gets further.
            end_s = end_s or (now_s + limit_s if limit_s else None)


def _stored_pins(asked: RunConfig, folds: Sequence[RunConfig]) -> dict[str, int]:
    """Return the values that existing folds have pinned, if any.

    Raises:
        UserError: the folder contains something else than folds of this cross-validation.
    """
    path, count = folder_of(asked), folds[0].data.folds
    assert count is not None
    if (path / "config.yaml").exists():
        raise UserError(
            f"output_dir: {path} contains a run, not a cross-validation; choose another output_dir"
        )
    pins: dict[str, int] = {}
    for stored in sorted(path.glob("fold-*/config.yaml")):
        number = stored.parent.name.removeprefix("fold-")
        if not number.isdecimal() or not 1 <= int(number) <= count:
            raise UserError(
                f"output_dir: {stored.parent} is not a fold of {count}; choose another output_dir"
            )
        config = fold_config(asked, count, int(number))
        pins = pinned_values(RunFolder(stored.parent).inspect(config, {}).config)
    return pins
