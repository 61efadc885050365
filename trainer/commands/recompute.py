"""Compute a run again, as `verify` and `replay` do: their common arguments and their verdict."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base import kernels
from trainer.base.errors import DifferentRunError, UserError
from trainer.base.terminal import print_report, progress_bar
from trainer.commands.options import add_json_option
from trainer.config.plugins import CODE
from trainer.config.schema import RunConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.finished.recomputation import Plan
    from trainer.finished.record_comparison import RecordComparison
    from trainer.training.engine import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be different here, and how strictly to compare."""
    parser.add_argument("--data.root", metavar="DIR", help="where the run's images are here")
    parser.add_argument(
        "--model.weights", metavar="FILE", help="where the weights are here that the run began with"
    )
    parser.add_argument("--train.teacher", metavar="RUN", help="where the run's teacher is here")
    for key, what in CODE.items():
        parser.add_argument(
            f"--{key}",
            metavar="NAME",
            type=_text_or_list,
            help=f"the run's {what}; needed where it is user-defined",
        )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of each process; default: as in the run"
    )
    parser.add_argument(
        "--tolerance", type=float, metavar="X",
        help="go on where equal bits cannot be promised, and let losses differ by this share",
    )  # fmt: skip
    add_json_option(parser)


def _text_or_list(word: str) -> str | list[Any]:
    """Return a value of `data.augment` as a configuration has it."""
    import yaml

    try:
        value = yaml.safe_load(word) if word.startswith("[") else word
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not a list in YAML") from error
    return value if isinstance(value, list) else word


@dataclass(frozen=True)
class Recomputation:
    """A part of a run that is being computed again, on each rank."""

    accelerator: Accelerator
    config: RunConfig
    plan: Plan
    engine: Engine
    comparison: RecordComparison
    not_promised: list[str]

    def verdict(self) -> dict[str, Any]:
        """Return what both commands say about it in JSON."""
        # Kernels without a deterministic form are met while they compute.
        inexact = [f"{name} has no deterministic form here" for name in self.engine.inexact_kernels]
        difference, tolerance = self.comparison.first_difference, self.comparison.tolerance
        parted = self.comparison.parted
        return {
            "run": str(self.plan.run.folder),
            "agrees": difference is None,
            "in_bits": difference is None and tolerance is None,
            "first_difference": difference,
            "parted": dataclasses.asdict(parted) if parted else None,
            "processes": self.accelerator.num_processes,
            "threads": self.config.threads,
            "not_promised": list(dict.fromkeys([*self.not_promised, *inexact])),
            "tolerance": tolerance,
            "largest_difference": self.comparison.largest,
        }


def in_processes(
    arguments: argparse.Namespace, config: RunConfig, where: Path, work: Callable[[RunConfig], None]
) -> None:
    """Do `work`, which joins the other processes, in as many as the run may have here.

    Args:
        config: that of the run; `work` gets it with what the arguments change.
        where: its folder or receipt.

    Raises:
        UserError: an argument is out of range, or the run cannot be computed again.
    """
    changed = _change(arguments, config, where)
    from trainer.ranks import local_processes

    local_processes.run(changed, lambda: work(changed))


@contextlib.contextmanager
def join(config: RunConfig) -> Iterator[Accelerator]:
    """Join the other processes, to compute a run inside of this context."""
    from trainer.ranks import processes
    from trainer.ranks.process_group import join_process_group

    with join_process_group(config) as accelerator:
        processes.apply_pins(config)
        yield accelerator


def _change(arguments: argparse.Namespace, config: RunConfig, where: Path) -> RunConfig:
    """Return the configuration of a run with what the arguments change."""
    _check(arguments)
    kernels.choose(config.train.kernels)
    from trainer.finished import recomputation

    given = {
        key: getattr(arguments, key)
        for key in (*CODE, "data.root", "model.weights", "train.teacher", "threads")
    }
    changes = {key: value for key, value in given.items() if value is not None}
    return recomputation.configuration(config, where, changes)


@contextlib.contextmanager
def recompute(
    accelerator: Accelerator, config: RunConfig, plan: Plan, tolerance: float | None, what: str
) -> Iterator[Recomputation]:
    """Build the engine of the run where the plan starts; compute inside of this context.

    Raises:
        UserError: equal bits cannot be promised here and there is no tolerance.
    """
    from trainer.finished import recomputation
    from trainer.finished.record_comparison import LinkComparison, RecordComparison

    engine, not_promised = recomputation.build(accelerator, config, plan, tolerance)
    is_main = accelerator.is_main_process
    with progress_bar(what, plan.end[1] - engine.state.step, enabled=is_main) as progress:
        comparison = (
            RecordComparison(plan.run, tolerance if not_promised else None, progress)
            if plan.run.steps
            else LinkComparison(plan.run, progress)
        )
        engine.observer = comparison if is_main else None
        yield Recomputation(accelerator, config, plan, engine, comparison, not_promised)
    accelerator.free_memory()


def conclude(report: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print what was found, and fail if it differs.

    Raises:
        DifferentRunError: it is not what the run's folder says.
    """
    print_report(report, lines, as_json=as_json)
    if not report["agrees"]:
        raise DifferentRunError(f"{report['run']}: not what was computed here: see the difference")


def _check(arguments: argparse.Namespace) -> None:
    if arguments.tolerance is not None and not 0 <= arguments.tolerance < 1:
        raise UserError(
            f"--tolerance: must be at least 0 and below 1, found {arguments.tolerance:g}"
        )
    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"--threads: must be at least 1, found {arguments.threads}")
