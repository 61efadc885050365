"""Compute a run again, or a part of it, and say whether it gives what the run's folder holds.

Compared are the loss of every step, the figures and digest of every epoch, every tensor of every
checkpoint, and the weights and test results at the end. Nothing in the folder is changed. Any
launcher may start it, on any number of processes that divides the run's micro-batches. Exit code 3
where the first difference was found, 2 where equal bits cannot be promised here.

example: python -m trainer verify runs/digits
         python -m trainer verify runs/digits --segment 2
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import DifferentRunError, NonFiniteLossError, UserError
from trainer.base.terminal import print_report, progress_bar
from trainer.commands import recomputing

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.checkpoint.reading import Checkpoint
    from trainer.finished.comparison import Comparison
    from trainer.finished.run_record import Position, RunRecord
    from trainer.training.engine import Engine
    from trainer.training.metrics import Predictions

    Tested = tuple[Predictions, Predictions | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    recomputing.add_arguments(parser)
    parser.add_argument(
        "--segment", type=int, metavar="K",
        help="only from one checkpoint that is there to the next, counted from 1; the first "
        "segment begins at the start of the run",
    )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is to be computed again, as rank 0 has found it."""

    run: RunRecord
    start: Checkpoint | None
    stops: list[Checkpoint]
    """the checkpoints on the way, which are compared"""
    end: Position
    """the last of them, or where the record of the run ends"""

    @property
    def reaches_end(self) -> bool:
        """Whether the results of a finished run are compared too."""
        return self.run.results is not None and self.end[1] == self.run.last_step


def run(arguments: argparse.Namespace) -> None:
    """Compute, and print on rank 0 what was found.

    Raises:
        UserError: there is no such run or segment, or equal bits cannot be promised.
        DifferentRunError: on rank 0, where something differs.
    """
    from trainer.finished import recomputation
    from trainer.finished.comparison import Comparison
    from trainer.ranks import collectives

    folder = arguments.folder
    config = recomputing.configuration(arguments)
    with recomputation.joined(config) as accelerator:
        plan = collectives.run_on_main_rank(
            accelerator, lambda: make_plan(folder, arguments.segment)
        )
        obstacles = recomputation.obstacles(accelerator, config, plan.run, plan.start, plan.stops)
        recomputation.refuse(plan.run, obstacles, arguments.tolerance)
        engine = recomputation.build(accelerator, config, plan.run, plan.start)
        is_main = accelerator.is_main_process
        first_step = engine.state.step + 1
        steps = plan.end[1] - engine.state.step
        with progress_bar(f"verifying {folder}", steps, enabled=is_main) as progress:
            tolerance = arguments.tolerance if obstacles else None
            comparison = Comparison(plan.run, tolerance, progress)
            engine.observer = comparison if is_main else None
            found = _verify(accelerator, engine, plan, comparison)
    if not is_main:  # rank 0 has the exit code: a launcher ends the others when one fails
        return
    # Such kernels are met while they are computed with.
    obstacles += [f"{name} has no deterministic form here" for name in engine.inexact_kernels]
    report = {
        "run": str(folder),
        "agrees": comparison.first_difference is None,
        "in_bits": comparison.first_difference is None and tolerance is None,
        "first_difference": comparison.first_difference,
        "first_step": first_step,
        "last_step": plan.end[1],
        "steps": comparison.steps,
        "epochs": comparison.epochs,
        **found,
        "processes": accelerator.num_processes,
        "threads": config.threads,
        "not_promised": list(dict.fromkeys(obstacles)),
        "tolerance": tolerance,
        "largest_difference": comparison.largest,
    }
    print_report(report, _lines(report), as_json=arguments.json)
    if comparison.first_difference is not None:
        raise DifferentRunError(f"{folder}: not what was computed here: see the first difference")


def make_plan(folder: Path, segment: int | None) -> Plan:
    """What of a run to compute again: all of it, or a segment, counted from 1.

    Raises:
        UserError: the run has no such segment; lists those that it has.
    """
    from trainer.finished import run_record

    run = run_record.read(folder)
    stops = run_record.checkpoints(folder, 1, run.last_step)
    end = max([run.end, *(run_record.position(saved) for saved in stops[-1:])])
    if segment is None:
        return Plan(run, None, stops, end)
    starts: list[Checkpoint | None] = [None, *stops]
    ends = [run_record.position(saved) for saved in stops]
    if not ends or ends[-1][1] < run.last_step:
        ends.append(end)
    if not 1 <= segment <= len(ends):
        bounds = [0, *(step for _, step in ends)]
        parts = [f"{k}: steps {bounds[k - 1] + 1} to {bounds[k]}" for k in range(1, len(bounds))]
        raise UserError(
            f"--segment: {segment}, but by its checkpoints {folder} has {'; '.join(parts)}"
        )
    return Plan(run, starts[segment - 1], stops[segment - 1 : segment], ends[segment - 1])


def _verify(
    accelerator: Accelerator, engine: Engine, plan: Plan, comparison: Comparison
) -> dict[str, Any]:
    """Go the way, up to the first difference; a collective.

    Returns:
        `checkpoints`, the names of those that were compared; `final_weights_sha256` and
        `weights_sha256` as computed here, None where that was not reached.
    """
    from trainer.base.tensor_files import weights_sha256
    from trainer.finished import run_record
    from trainer.network import model_state
    from trainer.ranks import collectives

    found: dict[str, Any] = {
        "checkpoints": [],
        "final_weights_sha256": None,
        "weights_sha256": None,
    }
    try:
        for saved in plan.stops:
            if not _advance(accelerator, engine, run_record.position(saved), comparison):
                return found
            if comparison.tolerance is None:
                collectives.run_on_main_rank(
                    accelerator, partial(_compare_checkpoint, engine, saved, comparison)
                )
                found["checkpoints"].append(saved.folder.name)
        if not _advance(accelerator, engine, plan.end, comparison) or not plan.reaches_end:
            return found
        found["final_weights_sha256"] = weights_sha256(model_state.to_write(engine.module))
        tested = engine.test()
        found["weights_sha256"] = weights_sha256(model_state.to_write(engine.module))
    except NonFiniteLossError as error:
        # Where the run itself has ended by it, that is what had to come out.
        if error.step != plan.run.last_step or plan.run.results is not None:
            comparison.note(str(error))
        return found
    if accelerator.is_main_process:
        _compare_results(engine, plan.run, tested, found, comparison)
    return found


def _advance(
    accelerator: Accelerator, engine: Engine, until: Position, comparison: Comparison
) -> bool:
    """Train epoch by epoch, up to a difference; whether there was none. A collective."""
    from trainer.ranks import collectives

    while (here := (engine.state.epoch, engine.state.step)) < until:
        end_of_epoch = (here[0] + 1, here[0] * engine.batches.steps)
        engine.fit(min(until, end_of_epoch))
        if (engine.state.epoch, engine.state.step) == here:
            break  # it ends here, before the run did
        if collectives.run_on_main_rank(accelerator, lambda: comparison.first_difference):
            return False
    return collectives.run_on_main_rank(accelerator, lambda: comparison.first_difference) is None


def _compare_checkpoint(engine: Engine, saved: Checkpoint, comparison: Comparison) -> None:
    from trainer.finished.comparison import checkpoint_difference

    files, small = engine.snapshot.collect(engine.state, engine.selection.best)
    comparison.note(checkpoint_difference(files, small, saved))


def _compare_results(
    engine: Engine, run: RunRecord, tested: Tested, found: dict[str, Any], comparison: Comparison
) -> None:
    from trainer.run.results import test_results

    assert run.results is not None
    for key, what in {
        "final_weights_sha256": "the weights after the last step",
        "weights_sha256": "the chosen weights",
    }.items():
        if not comparison.agrees(key, found[key], run.results.get(key)):
            comparison.note(f"{what}: {run.results.get(key)} in the run, {found[key]} here")
    test = test_results(tested[0], tested[1], engine.data.class_names, engine.config)
    stored = run.results["test"]
    for key, value in json.loads(json.dumps(test)).items():  # as JSON brings it back
        # What the version that did the run did not write, or this one does not, cannot differ.
        if key in stored and value is not None and not comparison.agrees(key, value, stored[key]):
            comparison.note(f"results.json: test.{key} differs")


def _lines(report: dict[str, Any]) -> list[str]:
    count, threads = report["processes"], report["threads"]
    processes = "1 process" if count == 1 else f"{count} processes"
    steps = f"steps {report['first_step']:,} to {report['last_step']:,}"
    lines = [
        f"{report['run']}: {steps}, on {processes} of {threads} thread{'s' * (threads != 1)}",
        f"compared: the losses of {report['steps']:,} steps, the figures of {report['epochs']:,} "
        f"epochs, checkpoints: {', '.join(report['checkpoints']) or 'none'}",
    ]
    lines += [f"equal at best to rounding: {reason}" for reason in report["not_promised"]]
    if report["tolerance"] is not None:
        lines.append(
            f"so losses alone are compared, to {report['tolerance']:g}; "
            f"the largest relative difference is {report['largest_difference']:.3g}"
        )
    if not report["agrees"]:
        return [*lines, f"first difference: {report['first_difference']}"]
    for key, what in {
        "final_weights_sha256": "weights after the last step",
        "weights_sha256": "chosen weights",
    }.items():
        if report[key] and report["in_bits"]:
            lines.append(f"{what}: {report[key]}, as in the run")
    how = "bit-identical" if report["in_bits"] else "equal to the tolerance"
    return [*lines, f"{how}: the run gives what its folder holds"]
