"""receipt.json: the same however a run was done, and what it consists of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.runs import Run, train_forked, train_here
from trainer.config import stored_config
from trainer.run import receipt
from trainer.run.metrics_log import read_records

SHORT = ["--train.epochs", "2", "--data.train_size", "300", "--train.batch_size", "67"]
CONSTANT = ["--schedule.name", "constant", "--schedule.warmup_epochs", "0"]
# Averaged weights, and an optimiser with numbers and tensors of its own.
MORE = [*SHORT, *CONSTANT, "--optimizer.name", "muon", "--train.ema_decay", "0.9"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, *MORE) == 0
    return Run(folder, 0)


def sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_equal_on_four_processes(run: Run, tmp_path: Path) -> None:
    """`check_same` compares those of runs on two processes, and of runs that were killed."""
    other = train_forked(tmp_path / "run", 4, *MORE, "--checkpoint.every_steps", "2")
    assert other.exit_code == 0, other.errors
    assert (other.folder / "receipt.json").read_text() == (run.folder / "receipt.json").read_text()


def test_a_run_that_got_more_epochs_has_the_receipt_of_one_that_had_them(
    run: Run, tmp_path: Path
) -> None:
    assert train_here(tmp_path / "run", *MORE, "--train.epochs", "1") == 0
    shorter = (tmp_path / "run" / "receipt.json").read_text()
    (tmp_path / "run" / "receipt.json.sig").write_text("a signature of the shorter run")
    assert train_here(tmp_path / "run", *MORE) == 0
    longer = (tmp_path / "run" / "receipt.json").read_text()
    assert longer == (run.folder / "receipt.json").read_text() != shorter
    assert not (tmp_path / "run" / "receipt.json.sig").exists()


def test_the_chain_as_the_documentation_defines_it(run: Run) -> None:
    found, results = run.json("receipt.json"), run.json("results.json")
    head = ("format_version", "configuration", "fingerprints", "skipped_steps")
    before = sha256({key: found[key] for key in head})
    for link, record in zip(found["chain"], run.metrics("epoch"), strict=True):
        own = [one for one in run.metrics("step") if one["epoch"] == record["epoch"]]
        figures = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
        rows = [[one["step"], one["loss"], one["lr"]] for one in own]
        assert link["records_sha256"] == sha256([rows, *(record[key] for key in figures)])
        assert link["state_sha256"] == record["state_sha256"]
        assert (link["epoch"], link["step"]) == (record["epoch"], own[-1]["step"])
        marks, lines = [], b""
        for row in rows:
            lines += json.dumps(row, separators=(",", ":")).encode() + b"\n"
            marks.append(hashlib.sha256(lines).hexdigest()[:4])
        assert link["step_marks"] == "".join(marks)
        assert link["state_marks"] == record["state_marks"]
        kept = ("epoch", "step", "records_sha256", "state_sha256", "step_marks", "state_marks")
        before = sha256([before, *(link[key] for key in kept)])
        assert link["sha256"] == before
    last = found["result"]
    kept = ("final_weights_sha256", "weights_sha256", "test")
    assert last["sha256"] == sha256([before, *(last[key] for key in kept)])
    assert last["final_weights_sha256"] == results["final_weights_sha256"]
    assert last["weights_sha256"] == results["weights_sha256"]
    assert last["test"]["accuracy"] == results["test"]["accuracy"]
    whole = {key: value for key, value in found.items() if key != "sha256"}
    assert found["sha256"] == results["receipt_sha256"] == sha256(whole)


def test_the_state_as_the_documentation_defines_it(run: Run) -> None:
    """From the files of the last checkpoint, with numpy only."""
    checkpoint = max((run.folder / "checkpoints").iterdir())
    digest, marks = hashlib.sha256(), ""
    for file in ("average", "best", "model", "optimizer"):
        tensors = load_file(checkpoint / f"{file}.safetensors")
        names = {"float32": "F32", "int64": "I64"}
        for name in sorted(tensors):
            array = tensors[name]
            line = [file, name, names[str(array.dtype)], list(array.shape)]
            digest.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            digest.update(array.tobytes("C"))
            marks += digest.hexdigest()[:4]
    state = json.loads((checkpoint / "state.json").read_text())
    keys = ("epoch", "step", "last_accuracy", "best_accuracy", "best_epoch", "best_step")
    position = {key: state["run"][key] for key in (*keys, "plateaus", "plateau_epoch")}
    position |= {key: state["run"][key] for key in ("best_figure", "best_loss")}  # none is null
    small = {"run": position, "optimizer": state["optimizer"], "scaler": state["scaler"]}
    text = json.dumps(small, sort_keys=True, separators=(",", ":"))
    digest.update(text.encode() + b"\n")
    last = run.json("receipt.json")["chain"][-1]
    assert (last["state_sha256"], last["state_marks"]) == (digest.hexdigest(), marks)


def test_only_what_can_change_the_weights_is_in_its_configuration(run: Run) -> None:
    keys = run.json("receipt.json")["configuration"].keys()
    assert {"seed", "train.epochs", "data.augment", "model.args", "threads"} <= keys
    free = ("output_dir", "processes", "data.root", "data.cache")
    sections = ("checkpoint.", "tracking.")
    assert not [key for key in keys if key in free or key.startswith(sections)]


def test_a_run_that_an_older_version_began_has_none(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = list(read_records(run.folder / "metrics.jsonl"))
    config, results = stored_config.read_folder(run.folder), run.json("results.json")
    assert receipt.make(config, results, {}, records) is not None
    next(record for record in records if record["event"] == "epoch").pop("state_marks")
    found = receipt.make(config, results, {}, records)
    assert found is None
    (tmp_path / "receipt.json").write_text("of fewer epochs")
    receipt.write(tmp_path, found)
    assert "no receipt.json: a version of Lockstep that had none" in caplog.text
    assert list(tmp_path.iterdir()) == []
