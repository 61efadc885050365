"""By which figure the best epoch is chosen, and that each figure is what scikit-learn says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from tests.commands.command import run_command
from tests.runs import DIGITS, Run, train_forked, train_here
from trainer.training import choice
from trainer.training.choice import ValidationFigures
from trainer.training.metrics import Predictions
from trainer.training.run_state import RunState

RARE = {0: 90, 1: 60, 2: 7}
"""images of each class"""


def write_set(folder: Path) -> Path:
    """Noise of three classes that overlap, the last of them rare."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for part, times in (("train", 1.0), ("test", 0.5)):
        labels = np.concatenate([np.full(int(n * times), label) for label, n in RARE.items()])
        noise = rng.normal(100, 40, (len(labels), 8, 8))
        pixels = (noise + 22 * labels[:, None, None]).clip(0, 255).astype(np.uint8)
        np.save(folder / f"d_{part}_features.npy", pixels)
        np.save(folder / f"d_{part}_targets.npy", labels)
    return folder


def keys_of(root: Path) -> list[str]:
    return ["--data.name", "npy", "--data.root", str(root), "--data.validation_size", "60"]


def figures(accuracy: float, loss: float, balanced: float = 0.5) -> ValidationFigures:
    return ValidationFigures(loss, accuracy, balanced, 0.5, None)


def chosen_epoch(choose_by: choice.ChoiceName, epochs: list[ValidationFigures]) -> int | None:
    state = RunState()
    for state.epoch, found in enumerate(epochs, 1):
        choice.note(state, found, choose_by)
    return state.best_epoch


def test_of_equal_figures_that_of_the_lower_loss() -> None:
    tied = [figures(0.8, 0.7), figures(0.8, 0.6), figures(0.7, 0.5), figures(0.8, 0.6)]
    assert chosen_epoch("accuracy", tied) == 2
    assert chosen_epoch("first_accuracy", tied) == 1
    assert chosen_epoch("loss", tied) == 3
    assert chosen_epoch("balanced_accuracy", tied) == 3
    assert chosen_epoch("balanced_accuracy", [*tied, figures(0.1, 9.0, 0.6)]) == 5


def test_the_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(4), 300).astype(np.float32)
    target = rng.integers(0, 3, 300)  # the last class has no image
    predicted = probabilities.argmax(1)
    loss = -np.log(probabilities[np.arange(300), target])
    found = choice.judge(
        Predictions(target, predicted, probabilities.max(1), loss, probabilities), 4
    )
    with pytest.warns(UserWarning, match="not in y_true"):
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(target, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(target, predicted, average="macro"))
    areas = [roc_auc_score(target == label, probabilities[:, label]) for label in range(3)]
    assert found.auc == pytest.approx(np.mean(areas), abs=1e-9)


def test_each_figure_chooses_its_epoch_and_patience_follows(tmp_path: Path) -> None:
    """The records are the same on two processes, which see 60 images in blocks of 7."""
    more = [*keys_of(write_set(tmp_path / "set")), "--train.epochs", "6", "--optimizer.lr", "0.02"]
    more += ["--train.evaluation_batch_size", "7"]
    chosen = {}
    for name, better in (("accuracy", max), ("loss", min), ("macro_f1", max), ("auc", max)):
        folder = tmp_path / name
        assert train_here(folder, *more, "--train.choose_by", name) == 0
        run = Run(folder, 0)
        epochs = run.metrics("epoch")
        values = [record[f"validation_{name}"] for record in epochs]
        ties = [record for record in epochs if record[f"validation_{name}"] == better(values)]
        best = min(ties, key=lambda record: record["validation_loss"])
        validation = run.json("results.json")["validation"]
        assert validation["chosen_by"] == name
        assert validation["best_epoch"] == validation["chosen_epoch"] == best["epoch"]
        assert validation["best_figure"] == best[f"validation_{name}"]
        assert validation["best_accuracy"] == best["validation_accuracy"]
        chosen[name] = best["epoch"]
    assert len(set(chosen.values())) > 1, chosen
    two = train_forked(tmp_path / "two", 2, *more, "--train.choose_by", "auc")
    assert two.exit_code == 0, two.errors
    changing = {"seconds", "samples_per_second"}
    for one, other in zip(
        Run(tmp_path / "auc", 0).metrics("epoch"), two.metrics("epoch"), strict=True
    ):
        assert {k: v for k, v in one.items() if k not in changing} == {
            k: v for k, v in other.items() if k not in changing
        }
    patient = ["--train.choose_by", "loss", "--train.patience", "1", "--train.epochs", "40"]
    assert train_here(tmp_path / "patient", *more, *patient) == 0
    losses = [record["validation_loss"] for record in Run(tmp_path / "patient", 0).metrics("epoch")]
    assert len(losses) < 40 and min(losses) == losses[-2]


def test_a_run_of_an_older_version_keeps_its_rule(tmp_path: Path) -> None:
    """Its configuration and its checkpoints know nothing of the choice."""
    more = [*keys_of(write_set(tmp_path / "set")), "--train.epochs", "5"]
    whole, old = tmp_path / "whole", tmp_path / "old"
    assert train_here(whole, *more, "--train.choose_by", "first_accuracy") == 0
    stop = ["--train.choose_by", "first_accuracy", "--train.max_seconds", "0.001"]
    assert train_here(old, *more, *stop) == 75
    config = yaml.safe_load((old / "config.yaml").read_text())
    assert config["train"].pop("choose_by") == "first_accuracy"
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    for path in old.glob("checkpoints/*/state.json"):
        state = json.loads(path.read_text())
        assert state["run"].pop("best_figure") is state["run"].pop("best_loss") is None
    assert train_here(old, *more) == 0
    assert Run(old, 0).json("results.json")["validation"]["chosen_by"] == "first_accuracy"
    receipts = [(folder / "receipt.json").read_bytes() for folder in (whole, old)]
    assert receipts[0] == receipts[1]


def test_rare_classes_are_said_and_chosen_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the keys, and goes where one of them is used."""
    root = write_set(tmp_path / "set")
    more = [*keys_of(root), "--train.epochs", "1"]
    assert train_here(tmp_path / "plain", *more) == 0
    words = "rare classes: 0 has 56 training images, 2 4; a network overlooks such classes"
    assert words in caplog.text
    found = {}
    for way in ("--train.logit_adjustment=1", "--train.class_weights=auto"):
        caplog.clear()
        assert train_here(tmp_path / way, *more, way) == 0
        assert "rare classes" not in caplog.text
        found[way] = Run(tmp_path / way, 0)
    balanced = [*more, "--data.sampling", "balanced"]
    assert train_here(tmp_path / "balanced", *balanced) == 0
    runs = [*found.values(), Run(tmp_path / "balanced", 0)]
    assert len({run.digest for run in runs}) == 3
    by = {run.json("results.json")["validation"]["chosen_by"] for run in runs}
    assert by == {"balanced_accuracy"}
    code, output, _ = run_command(capsys, "inspect-data", "--config", DIGITS, *keys_of(root))
    assert code == 0 and words in output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train.choose_by", "auc", "--data.validation", "first"], "60 validation images are of"),
        (["--train.choose_by", "f1"], "train.choose_by"),
        (["--train.choose_by", "loss", "--data.validation_size", "0"], "train.choose_by: must be"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "run", *keys_of(write_set(tmp_path / "set")), *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
