"""Whether the files of a run say what its receipt says; all of them made up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.checkpoints import small_state
from tests.made_up_receipt import (
    CODE,
    ENDS,
    FINGERPRINTS,
    IMAGES,
    make_config,
    make_records,
    make_results,
)
from trainer.base.tensor_files import weights_sha256
from trainer.checkpoint.reading import Checkpoint
from trainer.config.schema import flatten, nest
from trainer.finished import receipts
from trainer.finished.run_record import RunRecord
from trainer.run import receipt as made
from trainer.run.metrics_log import by_event
from trainer.run.receipt import Receipt, seal, to_text
from trainer.training.run_state import RunState
from trainer.training.state_digest import digest_state


@dataclasses.dataclass
class Made:
    """A run and its checkpoints, before one of its files is changed."""

    folder: Path
    record: RunRecord
    stops: list[Checkpoint]

    @property
    def receipt(self) -> Receipt:
        assert self.record.receipt is not None
        return self.record.receipt

    @property
    def results(self) -> dict[str, Any]:
        assert self.record.results is not None
        return self.record.results

    def find(self, receipt: Receipt | None = None) -> list[str]:
        record = dataclasses.replace(self.record, receipt=receipt or self.receipt)
        found = receipts.find_contradictions(record, self.stops)
        assert all(text.startswith("receipt.json: ") for text in found)
        return [text.removeprefix("receipt.json: ") for text in found]


@pytest.fixture
def run(tmp_path: Path) -> Made:
    keys = json.loads(json.dumps(nest(flatten(make_config()))))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(keys))
    tensors = {"a": torch.ones(3), "lockstep/pixel_mean": torch.zeros(1)}
    save_file(tensors, tmp_path / "model.safetensors")
    records, stops = make_records(), []
    for epoch, (step, position) in enumerate(zip(ENDS, (2, 3), strict=True), start=1):
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        files = {"model": {"w": torch.full((2,), step)}, "optimizer": {"0.step": torch.ones(1)}}
        for name, content in files.items():
            save_file(content, folder / f"{name}.safetensors")
        state = small_state()
        state["run"] = dataclasses.asdict(RunState(epoch=position, step=step))
        state |= {"fingerprints": FINGERPRINTS, "format_version": 4}
        state["files"] = [f"{name}.safetensors" for name in files]
        (line,) = (one for one in records if (one["event"], one["epoch"]) == ("epoch", epoch))
        line["state_sha256"] = digest_state(files, state).sha256
        stops.append(Checkpoint(folder, state))
    results = make_results()
    results["weights_sha256"] = weights_sha256({"a": tensors["a"]})
    receipt = made.make(make_config(), results, FINGERPRINTS, records)
    assert receipt is not None
    results["receipt_sha256"] = receipt["sha256"]
    steps, epochs = by_event(records)
    record = RunRecord(
        tmp_path,
        {line["step"]: line for line in steps},
        {line["epoch"]: line for line in reversed(epochs)},
        results,
        receipt,
    )
    return Made(tmp_path, record, stops)


def test_files_that_say_the_same(run: Made) -> None:
    assert run.find() == []
    later = Checkpoint(run.folder, json.loads(json.dumps(run.stops[0].state)))
    later.state["run"]["step"] = 1  # in the middle of an epoch no digest is known
    run.stops = [later]
    assert run.find() == []


def forged(receipt: Receipt, change: Callable[[Receipt], object]) -> Receipt:
    found: Receipt = json.loads(to_text(receipt))
    change(found)
    return seal(found)


def not_the_digest(run: Made) -> str:
    digest = run.results["receipt_sha256"]
    return f"sha256 is not the receipt_sha256 in results.json, {digest}"


def test_another_configuration(run: Made) -> None:
    path = run.folder / "config.yaml"
    text = path.read_text()
    other = text.replace("weight_decay: 0.01", "weight_decay: 0.5")
    path.write_text(other.replace("seed: 0\n", "seed: 7\n"))
    assert run.find() == [
        "configuration: optimizer.weight_decay 0.01, but 0.5 in config.yaml",
        "configuration: seed 0, but 7 in config.yaml",
    ]
    path.write_text(text.replace("reduction: exact", "reduction: fast"))
    receipt = forged(
        run.receipt,
        lambda one: one["configuration"].update({"train.reduction": "fast", "processes": 2}),
    )
    assert run.find(receipt) == [not_the_digest(run)]
    receipt = forged(receipt, lambda one: one["configuration"].pop("processes"))
    assert run.find(receipt)[0] == "configuration: processes None, but 0 in config.yaml"
    receipt = forged(run.receipt, lambda one: one["configuration"].update(own=1))
    path.write_text(text)
    assert run.find(receipt)[0] == "configuration: own 1, but None in config.yaml"


def test_other_metrics(run: Made) -> None:
    first, second = run.receipt["chain"]
    for number, link in enumerate((first, second), start=1):
        for key in ("state_sha256", "state_marks"):
            before = run.record.epochs[number].pop(key)
            assert run.find() == [
                f"{key} of epoch {number} in metrics.jsonl is None, and {link[key]} here"
            ]
            run.record.epochs[number][key] = before
    run.record.steps[2]["loss"] = 0.25
    (text,) = run.find()
    digest = made.records_sha256([run.record.steps[1], run.record.steps[2]], run.record.epochs[1])
    assert text == (
        f"records_sha256 of epoch 1 in metrics.jsonl is {digest}, and {first['records_sha256']} "
        "here"
    ), "the first is enough"
    run.record.steps[2]["loss"] = 0.5
    forgery = forged(run.receipt, lambda one: one["chain"][1].update(step_marks="0" * 12))
    assert run.find(forgery)[0] == (
        f"step_marks of epoch 2 in metrics.jsonl is {second['step_marks']}, and {'0' * 12} here"
    )
    for step in (3, 4, 5):
        del run.record.steps[step]
    assert run.find() == ["step of epoch 2 in metrics.jsonl is 0, and 5 here"]
    del run.record.epochs[2]
    assert run.find() == ["has 2 epochs, but metrics.jsonl has 1"]


def test_other_results(run: Made) -> None:
    results = run.results
    before = json.dumps(results)
    other: dict[str, Any] = {"versions": {}, "environment": {}, "equality": {}, "test": {}}
    other |= {"final_weights_sha256": "0", "weights_sha256": "0"}
    results |= {key: other[key] for key in other if key != "test"}
    results["test"] |= {"accuracy": 1.0, "loss": None}
    results["data"] = {}
    results["receipt_sha256"] = None
    ours = {**run.receipt["result"], **run.receipt["made_with"]}
    test = {"accuracy": 1.0, "loss": None, "samples": 8}
    assert run.find() == [
        f"final_weights_sha256 is {'4' * 64}, but 0 in results.json",
        f"weights_sha256 is {ours['weights_sha256']}, but 0 in results.json",
        f"test is {ours['test']}, but {test} in results.json",
        "versions is {'torch': '9.9'}, but {} in results.json",
        "environment is {'device': 'cpu', 'torch': '9.9'}, but {} in results.json",
        "equality is {'in_bits': True, 'because': []}, but {} in results.json",
        "fingerprints: data.root is not the data.fingerprint in results.json",
        "fingerprints: test is not the data.test_fingerprint in results.json",
        "sha256 is not the receipt_sha256 in results.json, None",
    ]
    results.update(json.loads(before))
    results["test"]["worst_class"] = "dog"  # no part of a receipt
    assert run.find() == []
    forgery = forged(run.receipt, lambda one: one.update(skipped_steps=[4]))
    assert run.find(forgery) == ["skipped_steps is [4], but [] in its metrics", not_the_digest(run)]


def test_other_weights(run: Made) -> None:
    other = {"a": torch.zeros(3)}
    save_file(other, run.folder / "model.safetensors")
    digest = weights_sha256(other)
    assert run.find() == [f"weights_sha256 of model.safetensors is {digest}"]
    (run.folder / "model.safetensors").unlink()
    assert run.find() == ["model.safetensors, whose digest it has, is missing"]


def test_other_checkpoints(run: Made) -> None:
    save_file({"w": torch.full((2,), 6)}, run.stops[1].folder / "model.safetensors")
    assert run.find() == ["step-5 is not the state at the end of epoch 2"]
    run.stops[0].state["optimizer"] = {"more": 1}
    assert run.find() == [
        "step-2 is not the state at the end of epoch 1",
        "step-5 is not the state at the end of epoch 2",
    ]
    run.stops = run.stops[:1]
    run.stops[0].state["optimizer"] = {}
    run.stops[0].state["fingerprints"] = {**FINGERPRINTS, "train.loss": None}
    assert run.find() == ["fingerprints are not those of step-2"]
    run.stops[0].state["fingerprints"] = {"data.root": IMAGES, "train.loss": CODE, "test": None}
    assert run.find() == []
