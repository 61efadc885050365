"""Search for a better recipe: train trials of a space by Optuna, and test the best of them.

The arguments of a run follow, as for train.py. SPACE is a YAML file: a list of choices for each
key, or a range such as {low: 1e-3, high: 0.1, log: true}. Each trial is a run in
OUTPUT_DIR/trial-N, judged on the validation images; only the best is tested, at the end. What the
trials are does not depend on workers or kills: the same command goes on where it was stopped, and
may be given on several machines that share the folder. train.max_seconds is for the whole command.

example: python -m trainer sweep --config digits --space digits --trials 20 --output_dir runs/sweep
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.base import garbage
from trainer.base.errors import UserError
from trainer.base.files import write_json
from trainer.base.terminal import print_line, print_report
from trainer.commands.options import add_json_option, positive_integer
from trainer.commands.sweep import space, space_file
from trainer.commands.sweep.definition import Sweep
from trainer.config import command_line
from trainer.config.schema import RunConfig, default_choice, folder_of
from trainer.ranks import processes

if TYPE_CHECKING:
    from trainer.commands.sweep.claims import Claims


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments; the others are the run's."""
    add_search_options(parser, is_required=True)
    parser.add_argument(
        "--retry_failed",
        action="store_true",
        help="do the trials again that have failed, as after a shortage of memory",
    )
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def add_search_options(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    """Add what a search is, which `submit` takes too.

    Args:
        is_required: whether there must be a space; where there need not, it makes it a sweep.
    """
    parser.add_argument(
        "--space",
        type=space_file.path_of,
        required=is_required,
        metavar="FILE",
        help="of a sweep: what to try, by the key; digits: our own of this name",
    )
    parser.add_argument(
        "--trials",
        type=positive_integer,
        default=30,
        metavar="N",
        help="of a sweep, in all; more may be asked for later; default: %(default)s",
    )
    parser.add_argument(
        "--workers",
        type=positive_integer,
        default=1,
        metavar="N",
        help="of a sweep: trials that run at the same time; default: %(default)s",
    )
    parser.add_argument(
        "--at_once",
        type=positive_integer,
        default=4,
        metavar="N",
        help="of a sweep: most workers of all its commands; trial K learns from those up to K - N; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--pruning",
        choices=("median", "none"),
        default="median",
        help="of a sweep: median, the default: give up a trial that is behind the median of the "
        "others after an epoch",
    )


def run(arguments: argparse.Namespace) -> None:
    """Do what is left of the sweep; then test the best trial, and write and print the result.

    Raises:
        UserError: the space or the recipe is wrong, or the folder contains something else.
        StoppedOnRequest: asked to by a signal or by `train.max_seconds`; the same command goes on.
    """
    if processes.is_launched():
        raise UserError("sweep: starts the processes of its trials itself; give it to no launcher")
    if find_spec("optuna") is None:
        raise UserError("sweep: Optuna is missing: pip install 'lockstep-trainer[sweep]'")
    asked = read(arguments)
    processes.check_launch(asked.base)
    _work(asked, arguments)


def read(arguments: argparse.Namespace) -> Sweep:
    """Return the sweep that a command line asks for.

    Raises:
        UserError: the space or the recipe is wrong, or the folder contains something else.
    """
    if arguments.workers > arguments.at_once:
        raise UserError(
            f"--workers: {arguments.workers} are more than --at_once, {arguments.at_once}, allows"
        )
    base = _parse(arguments.configuration)
    judged_by = base.train.choose_by or default_choice(base)
    if judged_by is None:
        raise UserError("data.validation_size: 0, but trials are judged on validation images")
    found = space_file.read(arguments.space)
    _check_folder(folder_of(base))
    space.check(found, base, lambda config: None, arguments.space)
    return Sweep(
        tuple(arguments.configuration),
        base,
        found,
        arguments.trials,
        arguments.at_once,
        arguments.pruning == "median",
        judged_by,
    )


def _parse(words: list[str]) -> RunConfig:
    config = command_line.parse(words)
    if config.resume != "auto":
        raise UserError(
            f"resume: must be auto for a sweep, found {config.resume!r}; each trial goes on from "
            f"its own checkpoints"
        )
    return config


def _check_folder(folder: Path) -> None:
    """Make sure that a folder has nothing else than a sweep.

    Raises:
        UserError: it contains a run or a cross-validation.
    """
    kinds = {"config.yaml": "a run", "fold-*": "a cross-validation"}
    if not (folder / "journal.log").is_file():
        kinds["trial-*"] = "trials without the journal of their sweep"
    for pattern, what in kinds.items():
        if any(folder.glob(pattern)):
            raise UserError(
                f"output_dir: {folder} contains {what}, not a sweep; choose another output_dir"
            )


def _work(sweep: Sweep, arguments: argparse.Namespace) -> None:
    """Do the trials, the test and the page."""
    limit_s = sweep.base.train.max_seconds
    end_s = None if limit_s is None else time.monotonic() + limit_s
    with garbage.keep_all():  # for the processes of the trials, which share it
        import optuna

        from trainer.commands.sweep import page, result, workers
        from trainer.commands.sweep.jobs import Jobs
        from trainer.network import creation
        from trainer.ranks.preemption import StopRequest

        if sweep.base.data.name == "digits":
            import sklearn.datasets  # noqa: F401 - each trial would take a second for it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    models = {key: of for key, of in sweep.space.items() if key.startswith("model.")}
    if not models:
        creation.check(sweep.base.model)
    space.check(models, sweep.base, lambda config: creation.check(config.model), arguments.space)
    stop = StopRequest()
    stop.install()
    try:
        # Standard output is only for the JSON object.
        with contextlib.redirect_stdout(sys.stderr if arguments.json else sys.stdout):
            claims = _open(sweep)
            if arguments.retry_failed:
                claims.retry_failed()
            with Jobs(stop, end_s, arguments.workers) as jobs:
                workers.do_trials(
                    claims,
                    jobs,
                    arguments.workers,
                    lambda trial, outcome: print_line(result.line_of(sweep, trial, outcome)),
                )
                trials = claims.trials()
                for best in result.ranked(sweep, trials)[:1]:
                    workers.test(claims, jobs, best)
    finally:
        stop.restore()
    importance = claims.importance()
    found = result.summarise(sweep, trials, importance)
    write_json(sweep.folder / "sweep.json", found)
    page.write(sweep, found, trials)
    print_report(found, result.lines(sweep, found, trials), as_json=arguments.json)


def _open(sweep: Sweep) -> Claims:
    from trainer.commands.sweep.claims import Claims

    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        return Claims(sweep)
    except OSError as error:
        raise UserError(
            f"output_dir: {error.filename} cannot be written ({error.strerror}); choose a folder "
            f"that you may write to"
        ) from error
