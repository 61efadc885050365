"""Change receipts as somebody would who wants to pass them off as others, and verify them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.commands.command import Capture, run_command
from trainer.run.receipt import Receipt, seal, to_text

SHORT = ["--data.train_size", "300", "--train.batch_size", "67", "--checkpoint.keep", "9"]
SHORT += ["--schedule.name", "constant", "--schedule.warmup_epochs", "0"]
SIX_EPOCHS = [*SHORT, "--train.epochs", "6"]


def verify(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    return run_command(capsys, "verify", *words)


def forge(path: Path, change: Callable[[Receipt], object]) -> None:
    """Change a receipt, and compute all of its digests again."""
    receipt = json.loads(path.read_text())
    change(receipt)
    path.write_text(to_text(seal(receipt)))
