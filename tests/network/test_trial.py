"""The trial before the first step: what it refuses, what passes, and that it leaves nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.nets import catalog
from tests.runs import train_here
from trainer.base import numerics
from trainer.base.errors import UserError
from trainer.base.tensor_files import weights_sha256
from trainer.config.schema import RunConfig, replace
from trainer.data.dataset import Dataset
from trainer.data.loading import load
from trainer.network import new_model
from trainer.network.trial import trial

SHORT = ["--train.epochs", "1", "--data.train_size", "300"]

REFUSED = {
    "Counter": "calls counts passes, and what is computed depends on it",
    "LateCounter": "calls counts passes",
    "EveryThousandth": "calls counts passes",
    "CounterInADictionary": "facts['calls'] counts passes",
    "CounterOfTheClass": "calls of CounterOfTheClass counts passes",
    "CounterOfTheFile": "CALLS of its file counts passes",
    "CountsImages": "calls counts passes",
    "CountsDown": "left counts passes",
    "ExactlyThen": "calls counts passes",
    "Scheduled": "calls counts passes",
    "CounterInATensor": "calls counts passes",
    "LongMemory": "the length of seen counts passes",
    "FailsLate": "calls counts passes, and a pass fails where it has counted many (enough)",
    "TeacherInAList": "no process knows of another: hidden[0]",
    "RemembersInAnObject": "no process knows of another: facts.center",
    "GeneratorOfTheFile": "no process knows of another: GENERATOR of its file",
    "EpochCounter": "epoch counts passes",
    "ReadsFreshMemory": "gives other bits",
    "Remembers": "no process knows of another: center",
    "RemembersForEvaluation": "an evaluation gives other bits on a second process",
    "EvaluationCounts": "seen counts passes",
    "StaleCache": "after a resume",
    "FlagInAnAttribute": "no process knows of another: ready",
    "OwnGenerator": "no process knows of another: generator",
    "OwnNumpyGenerator": "no process knows of another: generator",
    "SystemDraws": "a micro-batch gives other bits on a second process",
    "DrawsInBackward": "(the gradient of conv.weight, the gradient of conv.bias)",
    "NeverInitialised": "scale has other values each time",
    "NoNumbers": "head.weight holds NaN",
    "ReplacedParameter": "another parameter in the place of head.weight",
    "Thaws": "sets requires_grad of conv.weight",
    "ThawsLate": "sets requires_grad of conv.weight",
    "NoGradient": "has no gradient, so nothing could be learnt",
    "GrowingBuffer": "the buffer seen takes another shape",
    "UnsafeExtraState": "_extra_state: get_extra_state() of the module returns a dict",
}
RIGHT = [
    "UnsavedBuffer", "SharedBuffer", "SharedInPlace", "NumpyDraws", "PythonDraws",
    "NumpyInitialisation", "DropsInEvaluation", "RandomTable", "MaxNorm", "Teacher",
    "ReplacedTeacher", "Codebook", "FirstBatch", "GridOfTheBatch", "LateBuffer", "EmptyBuffer",
    "LooksInEvaluation", "ExtraState", "Versioned", "TableOfTheLargest", "Merging",
    "HarmlessAttributes", "MadeInTheFirstPass",
]  # fmt: skip


def configured(name: str, **changes: object) -> RunConfig:
    keys: dict[str, Any] = {"data.name": "digits", "train.microbatches": 4, "train.batch_size": 60}
    return replace(
        RunConfig(), {**keys, "model.name": catalog.plugin(name), "model.args": {}} | changes
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    numerics.choose_kernels(True)  # as a run does
    return load(configured("Body").data, 0)


def attempt(name: str, dataset: Dataset, **changes: object) -> list[str]:
    config = configured(name, **changes)
    model = new_model.build_model(config, dataset)
    return trial.try_network(config, dataset, model, torch.device("cpu"))


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_what_can_be_made_right_passes(name: str, digits: Dataset) -> None:
    assert attempt(name, digits) == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_is_named(name: str, digits: Dataset) -> None:
    with pytest.raises(UserError) as refused:
        attempt(name, digits)
    assert REFUSED[name] in str(refused.value)
    assert str(refused.value).startswith("model.name")


def test_every_network_is_tried() -> None:
    assert catalog.NETWORKS.keys() == {"Facts", *RIGHT, *REFUSED}


def test_the_fast_reduction_is_only_warned(digits: Dataset) -> None:
    found = attempt("Remembers", digits, **{"train.reduction": "fast"})
    assert "a micro-batch gives other bits on a second process" in found[0]


def test_one_micro_batch_has_no_second_process(digits: Dataset) -> None:
    """But it may be resumed."""
    one = {"train.microbatches": 1}
    assert attempt("HarmlessAttributes", digits, **one) == []
    with pytest.raises(UserError, match="after a resume"):
        attempt("Remembers", digits, **one)


def test_it_leaves_nothing(digits: Dataset) -> None:
    config = configured("CounterOfTheClass", **{"train.reduction": "fast"})
    model = new_model.build_model(config, digits)
    before = weights_sha256(model.state_dict())
    calls = type(model).calls  # type: ignore[attr-defined]
    python, others, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    assert trial.try_network(config, digits, model, torch.device("cpu"))
    assert weights_sha256(model.state_dict()) == before
    assert type(model).calls == calls  # type: ignore[attr-defined]
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], others[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torchs)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_run_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = [*SHORT, "--model.args", "{}", "--model.name"]
    assert train_here(folder, *words, catalog.plugin("LateCounter")) == 2
    assert "model.name: " in (errors := capsys.readouterr().err)
    assert "calls counts passes" in errors
    assert not {"config.yaml", "metrics.jsonl", "checkpoints"} & {p.name for p in folder.iterdir()}
    assert train_here(folder, *words, catalog.plugin("HarmlessAttributes")) == 0
    assert "trial         equal bits on two processes, and resumed" in capsys.readouterr().out


def test_the_fast_reduction_trains_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = [*SHORT, "--model.args", "{}", "--model.name", catalog.plugin("OwnGenerator")]
    assert train_here(tmp_path / "run", *words, "--train.reduction", "fast") == 0
    assert "trial         other bits, see the warning" in capsys.readouterr().out
    assert "no process knows of another: generator" in caplog.text


def test_a_trial_without_memory_costs_no_training(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_differences(_: object) -> list[str]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trial, "find_differences", find_differences)
    assert train_here(tmp_path / "run", *SHORT) == 0
    assert "trial         not done, too little memory" in capsys.readouterr().out
    assert "has not been tried, as there is too little memory for it" in caplog.text
