"""What a run on images with several labels cannot be, said before its first step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.several_labels import KEYS, RECIPE, table
from tests.runs import train_forked, train_here

__all__ = ["table"]  # a fixture


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("--train.loss", "cross_entropy"), "train.loss: "),
        (("--train.class_weights", "[1, 2]"), "train.class_weights: 2 weights for 6 classes"),
        (("--train.loss", "mine.py:mine"), "train.loss: mine"),
    ],
)
def test_two_processes_refuse_what_cannot_be_once(
    table: Path, tmp_path: Path, keys: tuple[str, ...], message: str
) -> None:
    """Before any image is read, after it, and where the loss is tried."""
    file = tmp_path / "mine.py"
    file.write_text("def mine(logits, targets):\n    return (logits * 0).sum(1) / 0\n")
    more = [word.replace("mine.py", str(file)) for word in keys]
    found = train_forked(
        tmp_path / "run", 2, "--config", str(RECIPE), "--data.root", str(table), *KEYS, *more
    )
    assert found.exit_code == 2, found.errors
    assert found.errors.count(message) == 1, found.errors
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("--train.loss", "cross_entropy"), ["train.loss", "bce, asymmetric"]),
        (("--train.loss", "focal"), ["train.loss"]),
        (("--data.sampling", "balanced"), ["data.sampling"]),
        (("--train.logit_adjustment", "1"), ["train.logit_adjustment"]),
        (("--train.class_weights", "[1, 2]"), ["train.class_weights", "6 classes"]),
        (("--data.name", "digits", "--data.root", "null"), ["data.multi_label"]),
    ],
)
def test_what_asks_for_one_class_is_refused(
    table: Path,
    tmp_path: Path,
    keys: tuple[str, ...],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("--data.root", str(table), *KEYS, *keys)
    assert train_here(tmp_path / "run", *asked, config=RECIPE) == 2
    errors = capsys.readouterr().err
    assert all(word in errors for word in words), errors
    assert not (tmp_path / "run" / "config.yaml").exists()
