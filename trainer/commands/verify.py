"""Compute a run, or a part of it, again, and say whether it gives what the run's folder says.

Compared are the loss of every step, the figures and digest of every epoch, every tensor of every
checkpoint, and the weights and test results at the end. Nothing in the folder is changed. Any
launcher may start it, on any number of processes that divides the run's micro-batches. Exit code 3:
the run differs, and the first difference is printed; 2: equal bits cannot be promised here.

example: python -m trainer verify runs/digits
         python -m trainer verify runs/digits --segment 2
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import NonFiniteLossError, UserError
from trainer.commands import recompute

if TYPE_CHECKING:
    from trainer.checkpoint.reading import Checkpoint
    from trainer.commands.recompute import Recomputation
    from trainer.finished.recomputation import Plan
    from trainer.finished.run_record import Position
    from trainer.training.metrics import Predictions

    Tested = tuple[Predictions, Predictions | None]

DIGESTS = {
    "final_weights_sha256": "the weights after the last step",
    "weights_sha256": "the chosen weights",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    recompute.add_arguments(parser)
    parser.add_argument(
        "--segment", type=int, metavar="K",
        help="only from one checkpoint in the folder to the next, counted from 1; the first "
        "segment begins at the start of the run",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Compute, and print on rank 0 what was found.

    Raises:
        UserError: there is no such run or segment, or equal bits cannot be promised.
        DifferentRunError: on rank 0, where something differs.
    """
    folder = arguments.folder
    make = partial(make_plan, folder, arguments.segment)
    with recompute.recompute(arguments, make, f"verifying {folder}") as again:
        first_step = again.engine.state.step + 1
        found = _verify(again)
    if not again.accelerator.is_main_process:  # rank 0 has the exit code
        return
    report = {
        **again.verdict(),
        "first_step": first_step,
        "last_step": again.plan.end[1],
        "steps": again.comparison.steps,
        "epochs": again.comparison.epochs,
        **found,
    }
    recompute.conclude(report, _lines(report), as_json=arguments.json)


def make_plan(folder: Path, segment: int | None) -> Plan:
    """Plan to compute all of a run again, or a segment, counted from 1.

    Raises:
        UserError: the run has no such segment; lists those that it has.
    """
    from trainer.finished import run_record
    from trainer.finished.recomputation import Plan

    run = run_record.read(folder)
    stops = list(run_record.checkpoints(folder, 1, run.last_step))
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


def _verify(again: Recomputation) -> dict[str, Any]:
    """Compute up to the plan's end or the first difference; a collective.

    Returns:
        `checkpoints`, the names of those that were compared; `final_weights_sha256` and
        `weights_sha256` as computed here, None if that was not reached.
    """
    from trainer.finished import run_record
    from trainer.network import model_state
    from trainer.ranks import collectives

    engine, plan, comparison = again.engine, again.plan, again.comparison
    found: dict[str, Any] = {"checkpoints": [], **dict.fromkeys(DIGESTS)}
    try:
        for saved in plan.stops:
            if not _advance(again, run_record.position(saved)):
                return found
            if comparison.tolerance is None:
                collectives.run_on_main_rank(
                    again.accelerator, partial(_compare_checkpoint, again, saved)
                )
                found["checkpoints"].append(saved.folder.name)
        if not _advance(again, plan.end):
            return found
        if plan.run.results is None or plan.end[1] < plan.run.last_step:
            return found
        found["final_weights_sha256"] = model_state.digest(engine.module)
        tested = engine.test()
        found["weights_sha256"] = model_state.digest(engine.module)
    except NonFiniteLossError as error:
        # Where the run itself was ended by this loss, it had to come out.
        if error.step != plan.run.last_step or plan.run.results is not None:
            comparison.note(str(error))
        return found
    if again.accelerator.is_main_process:
        _compare_results(again, tested, found)
    return found


def _advance(again: Recomputation, until: Position) -> bool:
    """Train epoch by epoch, up to a difference; return whether there was none. A collective."""
    from trainer.ranks import collectives

    engine = again.engine

    def differs() -> bool:
        return collectives.run_on_main_rank(
            again.accelerator, lambda: again.comparison.first_difference is not None
        )

    while not differs() and (here := (engine.state.epoch, engine.state.step)) < until:
        engine.fit(min(until, (here[0] + 1, here[0] * engine.batches.steps)))
        if (engine.state.epoch, engine.state.step) == here:
            break  # it ends here, before the run did
    return not differs()


def _compare_checkpoint(again: Recomputation, saved: Checkpoint) -> None:
    from trainer.finished.recomputation import checkpoint_difference

    engine = again.engine
    files, small = engine.snapshot.collect(engine.state, engine.selection.best)
    again.comparison.note(checkpoint_difference(files, small, saved))


def _compare_results(again: Recomputation, tested: Tested, found: dict[str, Any]) -> None:
    from trainer.run.results import test_results

    engine, comparison, results = again.engine, again.comparison, again.plan.run.results
    assert results is not None
    for key, what in DIGESTS.items():
        if not comparison.agrees(key, found[key], results.get(key)):
            comparison.note(f"{what}: {results.get(key)} in the run, {found[key]} here")
    test = test_results(tested[0], tested[1], engine.data.class_names, engine.config)
    stored = results["test"]
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
            f"so only losses are compared, to {report['tolerance']:g}; "
            f"the largest relative difference is {report['largest_difference']:.3g}"
        )
    if not report["agrees"]:
        return [*lines, f"first difference: {report['first_difference']}"]
    for key, what in DIGESTS.items():
        if report[key] and report["in_bits"]:
            lines.append(f"{what}: {report[key]}, as in the run")
    how = "bit-identical" if report["in_bits"] else "equal to the tolerance"
    return [*lines, f"{how}: the run gives what its folder says"]
