"""Compute a part of a run and compare it, up to its end or the first difference."""

from __future__ import annotations

import copy
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from trainer.base.errors import NonFiniteLossError

if TYPE_CHECKING:
    from trainer.checkpoint.reading import Checkpoint
    from trainer.commands.recompute import Recomputation
    from trainer.finished.run_record import Position
    from trainer.training.weight_selection import TestedWeights

DIGESTS = {
    "final_weights_sha256": "the weights after the last step",
    "weights_sha256": "the chosen weights",
}


def verify(again: Recomputation) -> dict[str, Any]:
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
                collectives.run_on_main_rank(again.accelerator, partial(_name_tensor, again, saved))
                return found
            if comparison.tolerance is None:
                collectives.run_on_main_rank(
                    again.accelerator, partial(_compare_checkpoint, again, saved)
                )
                found["checkpoints"].append(saved.folder.name)
        if not _advance(again, plan.end):
            collectives.run_on_main_rank(again.accelerator, partial(_name_marked_tensor, again))
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
        target = min(until, (here[0] + 1, here[0] * engine.batches.steps))
        for step in again.plan.run.skipped_steps:
            if here[1] < step <= target[1]:
                engine.fit((here[0], step - 1))
                _check_left_out(again, step)
        engine.fit(target)
        if (engine.state.epoch, engine.state.step) == here:
            break  # it ends here, before the run did
    return not differs()


def _check_left_out(again: Recomputation, step: int) -> None:
    """Do the next step, which the run has left out, to see that its loss is not finite; undo it.

    A run may leave no other step out: which ones it trains on is not for it to choose.
    """
    from trainer.checkpoint.reading import Checkpoint
    from trainer.checkpoint.sharing import NAMES

    engine = again.engine
    files, small = engine.snapshot.collect(engine.state, engine.selection.best)
    before = Checkpoint(again.plan.run.folder, copy.deepcopy(small))
    tensors = {
        name: {key: tensor.detach().clone() for key, tensor in files.get(name, {}).items()}
        for name in NAMES
    }
    observer, engine.observer = engine.observer, None
    skipped = engine.state.skipped_steps
    engine.state.skipped_steps = [other for other in skipped if other != step]
    try:
        engine.fit((engine.state.epoch, step))
        is_finite = True
    except NonFiniteLossError as error:
        is_finite = error.step != step
    engine.observer = observer
    engine.state, engine.selection.best = engine.snapshot.restore(before, tensors)
    engine.step_log.clear()
    engine.next_log_step = 0
    if is_finite:
        epoch = engine.state.epoch
        difference = f"step {step} (epoch {epoch}) was left out, though its loss is finite"
        again.comparison.note(difference, epoch=epoch, step=step)


def _compare_checkpoint(again: Recomputation, saved: Checkpoint) -> None:
    from trainer.finished.record_comparison import checkpoint_difference, differing_tensor

    engine = again.engine
    files, small = engine.snapshot.collect(engine.state, engine.selection.best)
    difference = checkpoint_difference(files, small, saved)
    tensor = differing_tensor(files, saved) if difference else None
    again.comparison.note(difference, epoch=_last_epoch(saved), tensor=tensor)
    again.comparison.note_agreement(saved.folder.name)


def _name_tensor(again: Recomputation, saved: Checkpoint) -> None:
    """Note which tensor differs first, if the computation has stopped where a checkpoint is."""
    from trainer.finished import run_record
    from trainer.finished.record_comparison import differing_tensor

    engine, parted = again.engine, again.comparison.parted
    if parted and (engine.state.epoch, engine.state.step) == run_record.position(saved):
        files, _ = engine.snapshot.collect(engine.state, engine.selection.best)
        parted.tensor = differing_tensor(files, saved)


def _name_marked_tensor(again: Recomputation) -> None:
    """Note which tensor differs first at the end of the epoch, by the marks of a receipt alone."""
    from trainer.finished.record_comparison import LinkComparison

    comparison = again.comparison
    if not isinstance(comparison, LinkComparison) or comparison.tensor_number is None:
        return
    files, _ = again.engine.snapshot.collect(again.engine.state, again.engine.selection.best)
    names = [f"{name} of {file}" for file in sorted(files) for name in sorted(files[file])]
    if comparison.parted and comparison.tensor_number < len(names):
        comparison.parted.tensor = names[comparison.tensor_number]


def _last_epoch(saved: Checkpoint) -> int:
    """Return the epoch of the last step before a checkpoint."""
    run = saved.state["run"]
    epoch: int = run["epoch"]
    return epoch if run["epoch_samples"] else epoch - 1


def _compare_results(again: Recomputation, tested: TestedWeights, found: dict[str, Any]) -> None:
    from trainer.finished.run_record import as_recorded
    from trainer.run.results import test_results

    engine, comparison, results = again.engine, again.comparison, again.plan.run.results
    assert results is not None
    for key, what in DIGESTS.items():
        if not comparison.agrees(key, found[key], results.get(key)):
            comparison.note(f"{what}: {results.get(key)} in the run, {found[key]} here")
    test = test_results(tested.test, tested.augmented, engine.data.class_names, engine.config)
    stored = results["test"]
    for key, value in json.loads(json.dumps(test)).items():  # as JSON brings it back
        # What the version that did the run did not write, or this one does not, cannot differ.
        if key not in stored or value is None:
            continue
        if not comparison.agrees(key, as_recorded(value, stored[key]), stored[key]):
            comparison.note(f"results.json: test.{key} differs")
