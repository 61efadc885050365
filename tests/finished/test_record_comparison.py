"""Where a computation parts from what its run, or its receipt alone, says; all made up."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints import small_state
from tests.made_up_receipt import FINGERPRINTS, make_config, make_records, make_results
from trainer.checkpoint.reading import Checkpoint
from trainer.finished import receipts
from trainer.finished.record_comparison import (
    LinkComparison,
    Parting,
    RecordComparison,
    checkpoint_difference,
    differing_tensor,
)
from trainer.finished.run_record import RunRecord
from trainer.run import receipt as made
from trainer.run.metrics_log import by_event
from trainer.training.observer import Record


class Bar:
    """In place of tqdm's."""

    def __init__(self) -> None:
        self.moved: list[int] = []

    def update(self, steps: int) -> None:
        self.moved.append(steps)


def computed() -> tuple[list[Record], list[Record]]:
    """The steps and epochs that a computation of the run finds."""
    steps, epochs = by_event(make_records())
    for epoch in epochs:
        epoch["weights_sha256"] = f"{epoch['epoch']}b" * 32
    return steps, epochs


def compare(tolerance: float | None = None) -> RecordComparison:
    """With the lines of a run; a number that is not finite is null there."""
    steps, epochs = computed()
    run = RunRecord(
        Path("run"),
        {line["step"]: line for line in copy.deepcopy(steps)},
        {line["epoch"]: line for line in copy.deepcopy(epochs)},
        make_results(),
    )
    return RecordComparison(run, tolerance, Bar())


# ---------------------------------------------------------------------- with the run's lines


def test_a_run_that_comes_out() -> None:
    found, (steps, epochs) = compare(), computed()
    found.steps_done(steps[:2], {})
    assert found.agreed == "step 2 (epoch 1)"
    assert found.last_step is steps[1]
    found.epoch_done(epochs[0])
    found.steps_done(steps[2:], {})
    found.epoch_done(epochs[1])
    assert (found.first_difference, found.parted, found.largest) == (None, None, 0.0)
    assert (found.agreed, found.steps, found.epochs) == ("the end of epoch 2", 5, 2)
    assert found.bar.moved == [2, 3]
    found.run.steps[1]["loss"] = None
    found.steps_done([{**steps[0], "loss": math.nan}], {})
    assert found.first_difference is None, "null is what JSON has for it"


@pytest.mark.parametrize("key", ["loss", "lr"])
def test_the_first_step_that_differs_is_named(key: str) -> None:
    found, (steps, epochs) = compare(), computed()
    stored = found.run.steps[4][key]
    steps[3][key], steps[4][key], epochs[0]["train_loss"] = math.inf, 9.0, 9.0
    found.steps_done(steps, {})
    found.epoch_done(epochs[0])
    assert found.first_difference == f"step 4 (epoch 2): {key} {stored} in the run, None here"
    assert found.parted == Parting(2, 4, None, "step 3 (epoch 2)")
    assert (found.agreed, found.steps, found.epochs) == ("step 3 (epoch 2)", 5, 1)


@pytest.mark.parametrize(
    "key",
    [
        "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "weights_sha256",
        "state_sha256",
    ],
)  # fmt: skip
def test_a_figure_of_an_epoch_that_differs_is_named(key: str) -> None:
    found, (_, epochs) = compare(), computed()
    stored = found.run.epochs[1][key]
    found.epoch_done({**epochs[0], key: "other"})
    text = f"the end of epoch 1: {key} {stored} in the run, other here"
    assert found.first_difference == text
    assert found.parted == Parting(1, None, None, None)
    # Older versions had no digest of the state; everything else they had.
    found = compare()
    del found.run.epochs[1][key]
    found.epoch_done(epochs[0])
    assert (found.first_difference is None) is (key == "state_sha256")


def test_what_a_run_has_no_line_of_differs() -> None:
    found, (steps, epochs) = compare(), computed()
    del found.run.steps[2], found.run.epochs[2]
    found.steps_done(steps[:2], {})
    assert found.first_difference == "step 2 (epoch 1) has no line in metrics.jsonl"
    assert found.parted == Parting(1, 2, None, "step 1 (epoch 1)")
    found = compare()
    del found.run.epochs[2]
    found.epoch_done(epochs[1])
    assert found.first_difference == "the end of epoch 2 has no line in metrics.jsonl"


def test_losses_may_be_compared_to_a_tolerance() -> None:
    found = compare(0.25)
    for key in ("lr", "loss", "train_loss", "validation_loss"):
        assert found.agrees(key, 1.0, 0.75)
        assert found.agrees(key, -0.75, -1.0)
        assert not found.agrees(key, 1.0, 0.74)
        assert not found.agrees(key, 1.0, None)
        assert not found.agrees(key, math.nan, 1.0)
        assert found.agrees(key, math.nan, None)
        assert found.agrees(key, 40.0, 32.0)
    assert found.agrees("weights_sha256", "a", "b"), "digests are equal or not"
    assert found.agrees("train_accuracy", 0.1, 0.9)
    assert found.largest == pytest.approx(0.26)
    found.agrees("loss", 1.0, 1.1)
    assert found.largest == pytest.approx(0.26)
    (first, second), _ = (steps[:2] for steps in computed())
    found.steps_done([{**first, "loss": 1.2}], {})
    assert found.first_difference is None
    found.steps_done([{**second, "loss": 0.9, "lr": 0.21}], {})
    assert found.first_difference == "step 2 (epoch 1): loss 0.5 in the run, 0.9 here"
    exact = compare()
    assert exact.last_step == {}
    assert not exact.agrees("loss", 1.0, 1.0 + 2**-52)
    assert not exact.agrees("weights_sha256", "a", "b")
    assert exact.largest == 0.0


def test_a_note_is_kept_if_it_is_the_first() -> None:
    found = compare()
    found.note(None, epoch=1)
    found.note_agreement("all")
    assert found.parted is None
    found.note("one", epoch=1, step=2, tensor="w")
    found.note("other", epoch=3)
    found.note_agreement("more")
    assert found.first_difference == "one"
    assert found.parted == Parting(1, 2, "w", "all")
    assert (found.agreed, found.position()) == ("all", {})


# ---------------------------------------------------------------------- with a receipt alone


def links(steps: list[Record] | None = None, **changes: Any) -> LinkComparison:
    """With a receipt whose second epoch has these steps, and these values in its link."""
    records = make_records()
    if steps is not None:
        records = [one for one in records if one["epoch"] == 1 or one["event"] == "epoch"] + steps
    receipt = made.make(make_config(), make_results(), FINGERPRINTS, records)
    assert receipt is not None
    receipt["chain"][1] |= changes
    return LinkComparison(receipts.record_of(receipt, Path("receipt.json")), Bar())


def compute(found: LinkComparison, second: list[Record] | None = None) -> LinkComparison:
    """Compute both epochs, the second one with these steps."""
    steps, epochs = computed()
    found.steps_done(steps[:1], {})
    found.steps_done(steps[1:2], {})
    found.epoch_done(epochs[0])
    assert (found.first_difference, found.tensor_number) == (None, None)
    assert (found.agreed, found.epochs) == ("the end of epoch 1", 1)
    found.steps_done(steps[2:] if second is None else second, {})
    found.epoch_done(epochs[1])
    assert found.epochs == 2
    return found


def test_a_receipt_that_comes_out() -> None:
    found = compute(links())
    assert (found.first_difference, found.parted, found.tolerance) == (None, None, None)
    assert (found.agreed, found.steps, found.tensor_number) == ("the end of epoch 2", 5, None)
    assert found.bar.moved == [1, 1, 3]


@pytest.mark.parametrize(
    ("number", "after"),
    [(0, "the end of epoch 1"), (1, "step 3 (epoch 2)"), (2, "step 4 (epoch 2)")],
)
def test_the_first_step_that_is_not_the_receipts_is_named(number: int, after: str) -> None:
    steps = computed()[0][2:]
    for step in steps[number:]:
        step["loss"] += 1
    found = compute(links(), steps)
    place = 3 + number
    assert found.first_difference == f"step {place} (epoch 2): not the loss or rate in the receipt"
    assert found.parted == Parting(2, place, None, after)
    assert found.tensor_number is None, "the state is the same"


def test_of_a_long_epoch_the_steps_are_named_among_which_it_is() -> None:
    def steps(change_from: int) -> list[Record]:
        return [
            {
                "event": "step", "epoch": 2, "step": 3 + place, "lr": 0.5,
                "loss": 1.0 + (place >= change_from),
            }
            for place in range(600)
        ]  # fmt: skip

    for change_from, first, last in ((0, 3, 5), (2, 3, 5), (3, 6, 8), (598, 600, 602)):
        found = compute(links(steps(600)), steps(change_from))
        text = f"steps {first} to {last} (epoch 2): not the losses in the receipt"
        assert found.first_difference == text
        after = f"step {first - 1} (epoch 2)" if first > 3 else "the end of epoch 1"
        assert found.parted == Parting(2, None, None, after)


def test_an_epoch_of_other_steps_is_named() -> None:
    steps = computed()[0][2:]
    found = compute(links(), steps[:2])
    assert found.first_difference == "epoch 2 has other steps in the receipt"
    assert found.parted == Parting(2, None, None, "the end of epoch 1")


@pytest.mark.parametrize(
    ("key", "value", "tensor"),
    [
        ("step", 6, None),
        ("records_sha256", "0" * 64, None),
        ("state_sha256", "0" * 64, None),
        ("state_marks", "2bcd" + "0" * 8, 1),
    ],
)
def test_what_is_not_as_in_its_link_is_named(key: str, value: Any, tensor: int | None) -> None:
    here = links().run.receipt["chain"][1][key]
    found = compute(links(**{key: value}))
    text = f"the end of epoch 2: {key} {value} in the receipt, {here} here"
    assert found.first_difference == text
    assert found.parted == Parting(2, None, None, "the end of epoch 1")
    assert found.tensor_number == tensor


# ---------------------------------------------------------------------- with a checkpoint


def saved(folder: Path) -> Checkpoint:
    files = {"model": {"v": torch.zeros(2), "w": torch.ones(2)}, "best": {"w": torch.ones(1)}}
    folder.mkdir()
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")
    state = small_state(7) | {"format_version": 4, "fingerprints": FINGERPRINTS}
    state["files"] = [f"{name}.safetensors" for name in files]
    return Checkpoint(folder, state)


def test_a_checkpoint_that_comes_out_and_one_that_does_not(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "step-7")
    small = json.loads(json.dumps(checkpoint.state))
    files = {name: checkpoint.tensors(name) for name in ("model", "best", "average")}
    assert checkpoint_difference(files, small, checkpoint) is None
    positions = (
        "epoch", "step", "loss_sum", "hits", "trained_samples", "last_accuracy", "best_accuracy",
        "best_epoch", "best_step", "best_figure", "best_loss",
    )  # fmt: skip
    for key in positions:
        other = copy.deepcopy(small)
        other["run"][key] = 99
        stored = small["run"][key]
        text = f"step-7: {key} {stored} in the run, 99 here"
        assert checkpoint_difference(files, other, checkpoint) == text
    for key in small["run"].keys() - set(positions):
        other = copy.deepcopy(small)
        other["run"][key] = 99  # times and the like
        assert checkpoint_difference(files, other, checkpoint) is None
    for key in ("optimizer", "scaler"):
        text = f"step-7: {key} in state.json"
        assert checkpoint_difference(files, {**small, key: {"x": 1}}, checkpoint) == text
    older = dataclasses.replace(checkpoint, state=copy.deepcopy(checkpoint.state))
    del older.state["run"]["best_loss"]
    assert checkpoint_difference(files, small, older) is None


def test_the_first_tensor_that_differs_is_named(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "step-7")
    files = {name: checkpoint.tensors(name) for name in ("best", "model")}
    assert differing_tensor(files, checkpoint) is None
    files["model"] = {"w": torch.zeros(2), "v": -torch.zeros(2)}
    text = "step-7: v in model.safetensors"
    assert differing_tensor(files, checkpoint) == text, "in bits, so minus zero is another"
    assert checkpoint_difference(files, checkpoint.state, checkpoint) == text
    files["model"] = {"v": torch.zeros(2)}
    assert differing_tensor(files, checkpoint) == "step-7: other tensors in model.safetensors"
    files = {"average": {"w": torch.zeros(2)}}
    assert differing_tensor(files, checkpoint) == "step-7: other tensors in average.safetensors"
