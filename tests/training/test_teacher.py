"""Distillation: a network learns the answers of a finished run's, with the same bits anywhere."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from tests.commands.command import Capture, arguments_id, run_command
from tests.conftest import REPOSITORY
from tests.data.picture_folders import write_digits, write_pictures
from tests.runs import Run, check_same, train_forked, train_here
from trainer.config.schema import TrainConfig
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.scaling import Scaling
from trainer.network.stored_network import StoredNetwork
from trainer.training.loss import TrainingLoss, distillation_loss
from trainer.training.teacher import LoadedTeacher, Teacher

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -2.0]])
TEACHER_LOGITS = torch.tensor([[1.0, 1.0, -3.0], [4.0, 0.0, 0.0]])
TARGETS = torch.tensor([0, 2])


def test_the_loss_is_a_share_of_the_labels_and_one_of_the_teacher() -> None:
    def soften(logits: torch.Tensor) -> Any:
        powers = np.exp(logits.numpy().astype(np.float64) / 4)
        return powers / powers.sum(1, keepdims=True)

    ours, theirs = soften(LOGITS), soften(TEACHER_LOGITS)
    divergence = 16 * (theirs * np.log(theirs / ours)).sum(1)
    found = distillation_loss(LOGITS, TEACHER_LOGITS, 4.0)
    np.testing.assert_allclose(found.numpy(), divergence, rtol=1e-5)

    config = TrainConfig(teacher="run", teacher_weight=0.25, temperature=4.0)
    labels = nn.functional.cross_entropy(LOGITS, TARGETS, reduction="none").numpy()
    loss = TrainingLoss(config)
    each = loss.of_samples(LOGITS, TARGETS, TEACHER_LOGITS)
    np.testing.assert_allclose(each.numpy(), 0.75 * labels + 0.25 * divergence, rtol=1e-5)
    summed = loss.sum(LOGITS, TARGETS, TEACHER_LOGITS)
    np.testing.assert_allclose(summed.item(), each.sum().item(), rtol=1e-6)


@pytest.mark.parametrize("side", [4, 8])
def test_the_teacher_gets_the_pixels_in_its_own_scaling_and_size(side: int) -> None:
    """It is asked as its own run would have asked it; its classes are in another order."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    own = Scaling(torch.rand(1, 4, 4) * 100, torch.rand(1, 4, 4) * 50 + 1)
    facts = {"class_names": ["b", "a", "c"], "image_size": [4, 4], "in_channels": 1}
    network = StoredNetwork(module, "lab_cnn", facts, "", own, Path(), "")
    pixels = torch.randint(0, 256, (5, 1, side, side), dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(5, dtype=torch.int64))
    ours = Scaling(torch.full((1, 1, 1), 90.0), torch.full((1, 1, 1), 40.0))
    dataset = Dataset("", ("a", "b", "c"), images, images, images, ours, "", "")
    teacher = Teacher(Accelerator(cpu=True), LoadedTeacher(network, ""), dataset)
    inputs = ours.apply(pixels).clone()
    before = inputs.clone()
    found = teacher.answer(inputs)
    seen = pixels.float()
    if side != 4:
        seen = nn.functional.interpolate(seen, (4, 4), mode="bilinear", antialias=True)
    expected = module(own.apply(seen))[:, [1, 0, 2]]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(inputs, before)
    assert not found.requires_grad


def test_what_a_teacher_remembers_does_not_reach_its_next_answer() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return images.flatten(1)[:, :2] * self.calls

    scaling = Scaling(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    facts = {"class_names": ["a", "b"], "image_size": [2, 2], "in_channels": 1}
    network = StoredNetwork(Counts().eval(), "", facts, "", scaling, Path(), "")
    images = ImageSet(torch.ones(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    dataset = Dataset("", ("a", "b"), images, images, images, scaling, "", "")
    teacher = Teacher(Accelerator(cpu=True), LoadedTeacher(network, ""), dataset)
    first, second = (teacher.answer(torch.ones(1, 1, 2, 2)) for _ in range(2))
    assert torch.equal(first, second)


# ---------------------------------------------------------------------- runs

TAUGHT = (
    *("--train.teacher_weight", "0.6", "--train.temperature", "2", "--data.mixup", "0.3"),
    *("--data.train_size", "200", "--schedule.name", "constant", "--model.args.widths", "[8,8,8]"),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    scaling = ["--data.scaling", "per_pixel", "--data.train_size", "300"]
    assert train_here(folder, "--train.epochs", "3", *scaling) == 0
    return Run(folder, 0)


@pytest.fixture(scope="module")
def taught(teacher: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("taught") / "run"
    words = ["--train.epochs", "2", "--train.teacher", str(teacher.folder)]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert train_here(folder, *words, *TAUGHT) == 0
    return Run(folder, 0, output.getvalue())


def test_two_processes_and_a_resumed_run_give_the_same_bits(
    teacher: Run, taught: Run, tmp_path: Path
) -> None:
    words = ["--train.teacher", str(teacher.folder / "model.safetensors"), *TAUGHT]
    begun = train_forked(tmp_path / "run", 2, "--train.epochs", "1", *words)
    assert begun.exit_code == 0, begun.errors
    assert train_here(tmp_path / "run", "--train.epochs", "2", *words) == 0
    check_same(Run(tmp_path / "run", 0), taught)


def test_the_teacher_is_named_on_the_screen_and_in_the_results(teacher: Run, taught: Run) -> None:
    file = teacher.folder / "model.safetensors"
    expected = {
        "source": str(teacher.folder),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "weight": 0.6,
        "temperature": 2.0,
    }
    assert taught.json("results.json")["train"]["teacher"] == expected
    assert teacher.json("results.json")["train"]["teacher"] is None
    line = f"{teacher.folder}, SHA-256 {expected['sha256'][:12]}; 0.6 of the loss, at temperature 2"
    assert line in " ".join(taught.output.split())


def test_a_taught_run_is_computed_again_also_where_its_teacher_has_moved(
    teacher: Run, taught: Run, tmp_path: Path, capsys: Capture
) -> None:
    moved = shutil.copy(teacher.folder / "model.safetensors", tmp_path / "teacher.safetensors")
    code, output, errors = run_command(
        capsys, "verify", taught.folder, "--train.teacher", str(moved)
    )
    assert code == 0, errors
    code, output, errors = run_command(capsys, "replay", taught.folder, "--step", "3", "--json")
    assert code == 0, errors
    assert '"agrees": true' in output


def test_another_teacher_is_refused(teacher: Run, taught: Run, tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "teacher"
    shutil.copytree(taught.folder, folder)
    shutil.copytree(teacher.folder, other)
    content = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    config = (folder / "config.yaml").read_text().replace(str(teacher.folder), str(other))
    (folder / "config.yaml").write_text(config)
    words = ["--train.epochs", "3", "--train.teacher", str(other), *TAUGHT]
    before = (folder / "results.json").read_bytes()
    assert train_here(folder, *words) == 2
    assert (folder / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.teacher", ""], "train.teacher: must be a name"),
        (["--train.teacher", "nowhere"], "train.teacher: nowhere: there is no such run"),
        (["--train.teacher_model", "lab_cnn"], "train.teacher_model: must be null where"),
        (["--train.teacher_weight", "0"], "train.teacher_weight: must be above 0"),
        (["--train.temperature", "0"], "train.temperature: must be above 0"),
        (["--train.teacher", "{tmp}"], "not a run"),
        (["--train.teacher", "{run}", "--data.name", "folder", "--data.root", "{others}"],
         "does not know 'cat', 'dog' and knows '0', '1'"),
        (["--train.teacher", "{run}", "--data.name", "folder", "--data.root", "{digits}",
          "--data.image_size", "[8,10]"], "have other proportions"),
        (["--train.teacher", "{run}", "--data.name", "folder", "--data.root", "{digits}",
          "--data.channels", "3"], "takes images of 1 channels"),
    ],
    ids=arguments_id,
)  # fmt: skip
def test_a_teacher_that_cannot_be_right_is_refused(
    teacher: Run,
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    places = {"tmp": str(tmp_path), "run": str(teacher.folder)}
    if "{others}" in words:
        places["others"] = str(write_pictures(tmp_path / "others"))
    if "{digits}" in words:
        root = write_digits(tmp_path / "digits", 60, 20)
        for folder in root.glob("*/digit *"):
            folder.rename(folder.with_name(folder.name.removeprefix("digit ")))
        places["digits"] = str(root)
    filled = [word.format(**places) for word in words]
    assert train_here(tmp_path / "new", *filled) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new" / "results.json").exists()


def test_a_teachers_own_code_runs_only_where_it_is_named(
    taught: Run, tmp_path: Path, capsys: Capture
) -> None:
    name = f"{REPOSITORY}/examples/own_model.py:OwnModel"
    own = ["--model.name", name, "--model.args", "{}", "--data.train_size", "100"]
    assert train_here(tmp_path / "own", "--train.epochs", "1", *own) == 0
    words = ["--train.epochs", "1", "--train.teacher", str(tmp_path / "own"), *TAUGHT]
    assert train_here(tmp_path / "run", *words) == 2
    assert "runs only where you name it: --train.teacher_model" in capsys.readouterr().err
    assert train_here(tmp_path / "run", *words, "--train.teacher_model", name) == 0
    # The first step of the same network says something else to another teacher.
    losses = [run.metrics("step")[0]["loss"] for run in (taught, Run(tmp_path / "run", 0))]
    assert losses[0] != losses[1]
    for named, expected in (([], 2), (["--train.teacher_model", name], 0)):
        code, _, errors = run_command(capsys, "verify", tmp_path / "run", *named)
        assert code == expected, errors
