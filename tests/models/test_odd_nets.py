"""Odd networks in whole runs and commands: they train, or end with one message and exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import models
from tests.commands.command import run_command
from tests.models import odd_nets
from tests.runs import Run, train_forked, train_here, words
from trainer.base import user_code_errors

FILE = Path(odd_nets.__file__)
SHORT = ["--train.epochs", "1", "--data.train_size", "150", "--data.validation_size", "30"]
SHORT += ["--data.test_size", "40", "--model.args", "{}"]


def named(network: str) -> list[str]:
    return ["--model.name", f"{FILE}:{network}"]


def train(folder: Path, network: str, *more: str) -> int:
    return train_here(folder, *SHORT, *named(network), *more)


@pytest.mark.parametrize(
    "network",
    ["FiveDimensions", "ParameterList", "SilentTrain", "SilentEval", "SparseTable", "Contiguous"],
)
def test_it_trains_and_is_evaluated_to_the_same_figures(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", network) == 0
    name = f"{FILE}:{network}"
    code, output, errors = run_command(
        capsys, "evaluate", tmp_path / "run", "--model", name, "--json"
    )
    assert code == 0, errors
    assert json.loads(output)["equals_results_json"] is True


@pytest.mark.parametrize("network", ["Reentrant", "scripted", "compiled"])
def test_it_can_be_replayed(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step's own bits, whatever the samples' gradients have drawn and normalised again."""
    assert train(tmp_path / "run", network) == 0
    code, output, errors = run_command(
        capsys, "replay", tmp_path / "run", "--step", "2", *named(network), "--json"
    )
    assert code == 0, errors
    found = json.loads(output)
    assert found["in_bits"] is True
    assert found["loss"] == Run(tmp_path / "run", 0).metrics("step")[1]["loss"]
    norms = [row["gradient_norm"] for row in found["samples"]]
    assert 0 < found["gradient_norm"] <= sum(norms) / len(norms) * 1.001


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("Complex", r"Complex: phase holds complex numbers \(torch.complex64\)"),
        ("SparseFunction", "SparseFunction: the gradient of its parameter table.weight is sparse"),
        ("NoGradient", "NoGradient returns in training what has no gradient"),
        ("InPlace", r"InPlace fails in the backward pass .*modified by an inplace .*, line LINE\)"),
        ("Groups", r"Groups: its parameters\(\) gives a dict"),
        ("TrainFails", r"KeyError: 'in train\(\)' \(odd_nets.py, line LINE\)"),
        ("StateFails", r"KeyError: 'in state_dict\(\)' \(odd_nets.py, line LINE\)"),
        ("NamesFail", r"KeyError: 'in named_parameters\(\)' \(odd_nets.py, line LINE\)"),
        ("Leaving", r"SystemExit: in the constructor \(odd_nets.py, line LINE\)"),
    ],
)
def test_it_is_refused_before_the_first_step(
    network: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", network) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("model.name, model.args: ")
    assert errors.count("\n") == 1
    assert re.search(expected.replace("LINE", str(_line(network))), errors)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def _line(network: str) -> int:
    """Of the statement that fails."""
    lines = FILE.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"class {network}("))
    mark = ".exp()" if network == "InPlace" else "raise "
    return next((i + 1 for i in range(start, len(lines)) if mark in lines[i]), 0)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("FailsOnImages", r"odd_nets.py, line \d+: forward fails, .*KeyError: 'in a step'"),
        ("FailsInLargeBatches", r"line \d+: forward fails, .*KeyError: 'in an evaluation'"),
        ("FailsBackward", r"line \d+: backward fails, .*KeyError: 'in a backward pass'"),
        ("FailsInTorch", r"model.name: \S+:FailsInTorch\S* fails: RuntimeError: one of the variab"),
        ("FailsToLoad", r"line \d+: load_state_dict fails, .*'in load_state_dict\(\)'"),
    ],
)
def test_what_fails_later_is_one_message_too(
    network: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(user_code_errors, "_networks", [])  # of other tests in this process
    assert train(tmp_path / "run", network) == 2
    errors = capsys.readouterr().err
    assert re.search(expected, errors)
    assert errors.count("\n") == 1
    assert Run(tmp_path / "run", 0).json("status.json")["exit_code"] == 2


def test_on_two_processes_it_is_said_once(tmp_path: Path) -> None:
    run = train_forked(tmp_path / "run", 2, *SHORT, *named("FailsOnImages"))
    assert run.exit_code == 2
    assert run.errors.count("KeyError: 'in a step'") == 1
    assert "Traceback" not in run.errors
    assert run.json("status.json")["exit_code"] == 2


@pytest.mark.parametrize(
    ("command", "more"),
    [("doctor", []), ("lr-find", ["--steps", "20"]), ("profile", ["--steps", "1"]),
     ("crossval", ["--folds", "2"])],
)  # fmt: skip
def test_it_is_one_message_in_other_commands(
    command: str,
    more: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    network = "TrainFails" if command == "doctor" else "FailsOnImages"
    given = [*words(tmp_path / "run"), *SHORT, *named(network), "--train.epochs", "9"]
    code, output, errors = run_command(capsys, command, *more, *given)
    assert code == 2, errors
    assert "KeyError: 'in " in output + errors
    assert "odd_nets.py, line " in output + errors
    assert "Traceback" not in output + errors


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_network_that_fails_afterwards(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file has changed since it was trained."""
    assert train(tmp_path / "run", "Small") == 0
    words = ["--model", f"{FILE}:FailsOnImages"]
    if command == "predict":
        from PIL import Image

        Image.new("L", (8, 8), 200).save(tmp_path / "one.png")
        words += [str(tmp_path / "one.png")]
    code, _, errors = run_command(capsys, command, tmp_path / "run", *words)
    assert code == 2
    assert "odd_nets.py, line " in errors
    assert "KeyError: 'in a step'" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("Softmax", "Softmax seems to return probabilities, as after softmax"),
        ("LogSoftmax", "LogSoftmax seems to return log-probabilities, as after log_softmax"),
        ("Small", ""),
    ],
)
def test_probabilities_in_the_place_of_logits_get_a_warning(
    network: str, expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(tmp_path / "run", network) == 0
    assert [message.startswith("model.name: ") for message in caplog.messages] == [True] * bool(
        expected
    )
    assert expected in caplog.text


def test_what_is_no_probability() -> None:
    found = {kind: models.kind_of_output(values) for kind, values in {
        "zeros": torch.zeros(2, 10), "logits": torch.randn(2, 10), "one class": torch.ones(2, 1),
        "infinite": torch.full((2, 2), torch.inf), "shares": torch.full((2, 4), 0.25),
    }.items()}  # fmt: skip
    assert found == {"zeros": None, "logits": None, "one class": None, "infinite": None,
                     "shares": "probabilities"}  # fmt: skip


@pytest.mark.parametrize("network", ["FiveDimensions", "scripted", "compiled"])
def test_its_layers_are_shown(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["models", f"{FILE}:{network}", "--image_size", "8", "8", "--json"]
    code, output, errors = run_command(capsys, *words)
    assert code == 0, errors
    found = json.loads(output)
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]
    assert "convolution" in [layer["operation"] for layer in found["layers"]]
    text = run_command(capsys, *words[:-1])[1]
    if network == "FiveDimensions":
        assert "depth (1 - 1) / 1 + 1 = 1; height (8 + 2*1 - 3) / 1 + 1 = 8" in text
