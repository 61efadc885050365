"""If the file systems of the ranks differ, rank 0's counts; parts that must agree are compared."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.distributed.launch import run_forked
from tests.runs import DIGITS, Run, train_here

IN_RANK_FOLDER = """
import os, sys
from pathlib import Path
from trainer.__main__ import main

folder = Path(__file__).parent / f"rank{os.environ.get('RANK', 0)}"
folder.mkdir(exist_ok=True)
os.chdir(folder)
main()
"""

QUIET = ["--tracking.wandb", "disabled", "--threads", "1", "--timeout_seconds", "60"]
CONSTANT = ["--schedule.name", "constant", "--schedule.warmup_epochs", "0"]
SHORT = [*CONSTANT, "--data.train_size", "400"]


def run_on_two_ranks(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on two ranks, each in its own working folder: rank0 and rank1."""
    script = folder / "script.py"
    script.write_text(IN_RANK_FOLDER)
    return run_forked(2, folder, str(script), *words)


def test_a_run_goes_on_where_a_rank_does_not_see_its_folder(tmp_path: Path) -> None:
    words = ["train", "--config", str(DIGITS), "--output_dir", "run", *QUIET, *SHORT]
    words += ["--train.on_nonfinite", "rollback"]
    for epochs in ("1", "2"):
        finished = run_on_two_ranks(tmp_path, *words, "--train.epochs", epochs)
        assert finished.returncode == 0, finished.stderr
    assert train_here(tmp_path / "whole", *SHORT, "--train.epochs", "2") == 0
    assert Run(tmp_path / "rank0" / "run", 0).digest == Run(tmp_path / "whole", 0).digest
    assert not (tmp_path / "rank1" / "run").exists()


MODEL = "from models.lab import LabCNN\n\nclass Own(LabCNN):\n    pass\n"
OPTIMIZER = "import torch\n\nclass Own(torch.optim.NAdam):\n    pass\n"


@pytest.mark.parametrize(
    ("name", "texts", "more", "message"),
    [
        (
            "recipe.yaml",
            [DIGITS.read_text(), DIGITS.read_text().replace("epochs: 5", "epochs: 4")],
            [],
            "--config: rank 1 was started with another configuration than rank 0 (train.epochs: 4",
        ),
        (
            "own.py",
            [MODEL, MODEL.replace("pass", "extra = 1")],
            ["--model.name", "own.py:Own"],
            "model.name: the lines of code of rank 1 differ from those of rank 0",
        ),
        (
            "own.py",
            [OPTIMIZER, None],
            ["--optimizer.name", "own.py:Own"],
            "optimizer.name: own.py:Own: there is no file",
        ),
    ],
)
def test_what_has_to_be_the_same_is_compared(
    tmp_path: Path, name: str, texts: list[str | None], more: list[str], message: str
) -> None:
    """Another recipe on rank 1, another network in a file of the same name, no file at all."""
    for rank, text in enumerate(texts):
        folder = tmp_path / f"rank{rank}"
        folder.mkdir()
        (folder / "recipe.yaml").write_text(DIGITS.read_text())
        if text:
            (folder / name).write_text(text)
    words = ["train", "--config", "recipe.yaml", "--output_dir", "run", *QUIET]
    finished = run_on_two_ranks(tmp_path, *words, *more, "--model.args", "{}")
    assert finished.returncode == 2
    assert finished.stderr.count(message) == 1, finished.stderr
    assert not (tmp_path / "rank0" / "run" / "metrics.jsonl").exists()


def test_keys_that_do_not_change_a_run_are_those_of_rank_0(tmp_path: Path) -> None:
    """Also in a command without a run's folder: each divides its batches as rank 0 does."""
    for rank in (0, 1):
        folder = tmp_path / f"rank{rank}"
        folder.mkdir()
        keys = f"microbatches: null\n  accumulation: {1 + 2 * rank}"
        (folder / "recipe.yaml").write_text(DIGITS.read_text().replace("microbatches: 4", keys))
    words = ["profile", "--config", "recipe.yaml", "--steps", "1", "--warmup", "1", *QUIET]
    finished = run_on_two_ranks(tmp_path, *words)
    assert finished.returncode == 0, finished.stderr


def test_pictures_to_predict_are_those_that_rank_0_finds(tmp_path: Path) -> None:
    """Rank 1, which has another number of them, would wait for a collective that never comes."""
    assert train_here(tmp_path / "run", *SHORT, "--train.epochs", "1") == 0
    from PIL import Image

    for rank, count in ((0, 3), (1, 200)):
        folder = tmp_path / f"rank{rank}" / "pictures"
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("L", (8, 8), number % 256).save(folder / f"{number:03}.png")
    finished = run_on_two_ranks(tmp_path, "predict", str(tmp_path / "run"), "pictures")
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 4
