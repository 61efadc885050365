"""What benchmarks say of commands that cannot be meant."""

from __future__ import annotations

import sys
from types import ModuleType

import minutes
import pytest
import throughput
import time_to_accuracy


@pytest.mark.parametrize(
    ("benchmark", "words", "message"),
    [
        (throughput, ["--images", "150"], "--images: must be a multiple of the batch size, "),
        (minutes, ["cifar10-5"], "cifar10-5: not a case; there are cifar10-4, "),
        (minutes, ["cifar10-4"], "--cifar10 must say where the pictures are"),
        (time_to_accuracy, ["svhn"], "svhn: not a race; there are fashion_mnist, mnist, cifar10"),
        (time_to_accuracy, ["cifar10"], "--cifar10 must say where the pictures are"),
        (
            time_to_accuracy,
            ["cifar10", "--cifar10", "x", "--held_out", "--output", "y.json"],
            "--held_out writes grey images: it is not for cifar10",
        ),
        (time_to_accuracy, ["--ways", "skorch"], "skorch: not a way; there are lockstep, lab, "),
        (
            time_to_accuracy,
            ["--epochs", "1"],
            "a trial or --held_out needs an --output of its own",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_wrong_command_says_what_is_right(
    benchmark: ModuleType,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{benchmark.__name__}.py", *words])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
