"""Features of a frozen backbone that are computed once: the head's training, and its end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.commands.command import Capture, arguments_id, run_command
from tests.data.picture_folders import write_digits
from tests.runs import Run, check_same, train_forked, train_here

BACKBONE = ("--train.freeze", "backbone")
NET = (
    *("--model.name", "quicknet", "--model.args", '{"widths": [8, 16, 16]}'),
    *("--data.train_size", "600", "--data.augment", "none", "--train.microbatches", "4"),
    *("--train.batch_size", "135", "--train.epochs", "3", *BACKBONE),
)
CACHED = (*NET, "--train.cache_features", "true")
TWO_PHASES = (
    *(*CACHED, "--train.unfreeze_epoch", "3", "--train.ema_decay", "0.9"),
    *("--checkpoint.every_steps", "1", "--checkpoint.keep", "99"),
)

SCALED = """
from torch import nn

class Scaled(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.head(self.body(images)) * 0.5

class PerPlace(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Conv2d(1, 8, 3)
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, images):
        return self.head(self.body(images)).mean((2, 3))
"""


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("cached") / "run"
    assert train_here(folder, *TWO_PHASES) == 0
    return Run(folder, 0)


def test_the_head_learns_what_it_learns_with_the_backbone_at_work(tmp_path: Path) -> None:
    """To rounding, as the images of a block are computed together; the test by the whole net."""
    assert train_here(tmp_path / "cached", *CACHED) == 0
    assert train_here(tmp_path / "whole", *NET) == 0
    cached, whole = (Run(tmp_path / name, 0) for name in ("cached", "whole"))
    for event, key in (("step", "loss"), ("epoch", "validation_loss")):
        figures = [[record[key] for record in run.metrics(event)] for run in (cached, whole)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-4)
    weights = [load_file(run.folder / "model.safetensors") for run in (cached, whole)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-4)
    answers = [np.load(run.folder / "predictions.npz")["probability"] for run in (cached, whole)]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-3)


def test_a_run_goes_on_from_any_step_on_any_number_of_processes(
    two_phases: Run, tmp_path: Path
) -> None:
    """In the first phase, at its end and in the second; each with the average of the weights."""
    steps = [int(path.name[-8:]) for path in sorted((two_phases.folder / "checkpoints").iterdir())]
    assert steps == list(range(1, 13))
    for step, processes in ((2, 2), (8, 2), (9, 1)):
        start = two_phases.folder / "checkpoints" / f"step-{step:08}"
        folder, words = tmp_path / str(step), (*TWO_PHASES, "--resume", str(start))
        if processes == 1:
            assert train_here(folder, *words) == 0
            check_same(Run(folder, 0), two_phases)
        else:
            check_same(train_forked(folder, processes, *words), two_phases)


def test_it_is_computed_again_and_a_step_is_explained_by_the_images(
    two_phases: Run, tmp_path: Path, capsys: Capture
) -> None:
    code, _, errors = run_command(capsys, "verify", two_phases.folder)
    assert code == 0, errors
    page = tmp_path / "page.html"
    for step in (1, 3, 9):  # the first of the run, one with features, the first of the whole net
        code, output, errors = run_command(
            capsys, "replay", two_phases.folder, "--step", step, "--page", page, "--json"
        )
        assert code == 0, errors
        assert '"agrees": true' in output
        assert page.read_text().count("data:image/png") >= 100


def test_the_fast_reduction_on_pictures_that_are_read_for_each_block(tmp_path: Path) -> None:
    """DDP is set up for the head, and again for the whole network."""
    root = write_digits(tmp_path / "pictures", 60, 50)
    words = (
        *(*CACHED, "--data.name", "folder", "--data.root", str(root), "--data.cache", "none"),
        *("--data.train_size", "null", "--train.batch_size", "27", "--train.epochs", "2"),
        *("--train.unfreeze_epoch", "2"),
    )
    assert train_here(tmp_path / "exact", *words) == 0
    fast = train_forked(tmp_path / "fast", 2, *words, "--train.reduction", "fast")
    assert fast.exit_code == 0, fast.errors
    exact = [record["loss"] for record in Run(tmp_path / "exact", 0).metrics("step")]
    losses = [record["loss"] for record in fast.metrics("step")]
    assert len(losses) == 4
    assert losses == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "train.cache_features: must be false unless train.freeze is backbone"),
        (["--train.freeze", "[stem.*]"], "unless train.freeze is backbone"),
        ([*BACKBONE, "--data.augment", "flip"], "unless data.augment is none"),
        ([*BACKBONE, "--data.mixup", "0.2"], "unless data.mixup is 0"),
        ([*BACKBONE, "--data.cutmix", "0.2"], "unless data.cutmix is 0"),
        ([*BACKBONE, "--train.teacher", "runs/x"], "unless train.teacher is null"),
        ([*BACKBONE, "--data.name", "folder", "--data.root", "x", "--data.image_size", "32",
          "--train.unfreeze_epoch", "2", "--data.image_size_schedule", "[[1,16],[2,32]]"],
         "unless data.image_size_schedule has data.image_size before train.unfreeze_epoch"),
        ([*BACKBONE, "--data.memory_limit_mb", "0"], "of data.memory_limit_mb; raise it"),
        ([*BACKBONE, "--model.name", "{own}:Scaled"], "as something follows the head"),
        ([*BACKBONE, "--model.name", "{own}:PerPlace"], "as something follows the head"),
    ],
    ids=arguments_id,
)  # fmt: skip
def test_what_cannot_be_cached_is_refused_before_anything_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "own.py").write_text(SCALED)
    filled = [word.format(own=tmp_path / "own.py") for word in words]
    more = ["--data.augment", "none", "--model.args", "{}", "--train.cache_features", "true"]
    assert train_here(tmp_path / "run", *more, *filled) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()
