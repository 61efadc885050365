"""How many images an evaluation takes at once: it fits wherever the training fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import models
from tests.commands.command import run_command
from tests.conftest import REPOSITORY
from tests.runs import Run, train_here
from trainer.config import command_line
from trainer.config.schema import TrainConfig
from trainer.data.dataset import ImageSet
from trainer.training import evaluation_size

# The largest of its tensors has 64 x 64 x 32 values of each image: 262 MB for 500.
WIDE = """
import os
from pathlib import Path
from torch import nn

class Wide(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.filters, self.norm = nn.Conv2d(in_channels, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, num_classes)

    def forward(self, images):
        modes = [self.training, self.norm.training]
        with Path(os.environ["SEEN"]).open("a") as file:
            file.write(f"{len(images)} {any(modes)} {all(modes)}\\n")
        return self.head(self.norm(self.filters(images)).amax((2, 3)))
"""


def black(count: int, *shape: int) -> ImageSet:
    images = torch.zeros(1, *shape, dtype=torch.uint8).expand(count, *shape)
    return ImageSet(images, torch.zeros(count, dtype=torch.int64))


def block_of(model: nn.Module, images: ImageSet, **train: Any) -> int:
    config = TrainConfig(**({"batch_size": 100, "microbatches": 4} | train))
    return evaluation_size.block_samples(config, model, images)


# But for those of users' own pictures, of whose sizes nothing is known.
OF_OWN_PICTURES = ("finetune", "folder", "photos")
RECIPES = [
    path for path in (REPOSITORY / "configs").glob("*.yaml") if path.stem not in OF_OWN_PICTURES
]


@pytest.mark.parametrize("path", sorted(RECIPES), ids=lambda path: path.stem)
def test_the_recipes_take_500_images(path: Path) -> None:
    """Their figures, and the epochs that they choose, were measured so."""
    config = command_line.parse(["--config", str(path)])
    side = 8 if config.data.name == "digits" else 28
    model = models.create(
        config.model.name, config.model.args, num_classes=10, in_channels=1, image_size=(side, side)
    )
    images = black(1000, 1, side, side)
    assert evaluation_size.block_samples(config.train, model, images) == 500


def test_large_pictures_and_wide_networks_take_a_micro_batch() -> None:
    small, large = nn.Conv2d(3, 64, 3, padding=1), black(1000, 3, 224, 224)
    assert block_of(small, black(1000, 3, 32, 32)) == 500
    assert block_of(small, large) == 25
    assert block_of(small, large, batch_size=102) == 26
    assert block_of(small, black(10, 3, 224, 224)) == 3  # a step has no more than ten
    assert block_of(small, black(9000, 3, 224, 224), batch_size=4096) == 500
    assert block_of(small, large, evaluation_batch_size=7) == 7
    wide = nn.Sequential(nn.Conv2d(3, 1024, 3, padding=1), nn.ReLU(), nn.Conv2d(1024, 3, 3))
    assert block_of(wide, black(1000, 3, 32, 32)) == 25


def test_neither_weights_nor_small_layers_count() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 60_000), nn.Linear(60_000, 2))
    assert evaluation_size.peak_bytes_per_image(model, black(9, 1, 28, 28)) == 4 * (
        784 + 60_000 + 2
    )


class Functional(nn.Module):
    """Its large tensors come from no layer."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.repeat(1, 50, 1, 1) * 2).mean((2, 3))


def test_functions_count_too_and_compiled_ones() -> None:
    images = black(9, 1, 28, 28)
    assert evaluation_size.peak_bytes_per_image(Functional(), images) == 4 * (1 + 2 * 50) * 28 * 28
    traced = torch.jit.trace(Functional(), torch.zeros(2, 1, 28, 28))
    assert evaluation_size.peak_bytes_per_image(traced, images) == 4 * (1 + 2 * 50) * 28 * 28


class Gathering(nn.Module):
    """None of its tensors is large, but all are kept until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.filters(images) for _ in range(30)], 1).mean((2, 3))


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_compiled_network_is_counted_without_a_traceback() -> None:
    """Torch's compiler would look into the counting itself, and end parts of it with tracebacks."""
    compiled, images = torch.compile(Gathering(), backend="eager"), black(9, 3, 8, 8)
    assert evaluation_size.peak_bytes_per_image(compiled, images) > 30 * 4 * 16 * 8 * 8


def test_many_small_tensors_and_the_pictures_count_too() -> None:
    assert block_of(Gathering(), black(1000, 3, 32, 32)) == 25
    assert block_of(nn.Conv2d(3, 4, 16, stride=16), black(1000, 3, 224, 224)) == 25


def test_the_network_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.5), nn.Dropout())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    evaluation_size.peak_bytes_per_image(model, black(9, 1, 8, 8))
    after_draw = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after_draw, torch.rand(3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 training and 30 test images of 64 x 64 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for part, count in (("train", 100), ("test", 30)):
        targets = np.arange(count) % 2
        images = generator.integers(0, 99, (count, 64, 64), dtype=np.uint8)
        np.save(
            folder / f"d_{part}_features.npy",
            images + (99 * targets).astype(np.uint8)[:, None, None],
        )
        np.save(folder / f"d_{part}_targets.npy", targets)
    return folder


@pytest.fixture
def words(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run of the wide network, which notes how many images it sees."""
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    plugin = tmp_path / "wide.py"
    plugin.write_text(WIDE)
    data = ["--data.name", "npy", "--data.root", str(pictures), "--data.test_augment", "flip"]
    model = ["--model.name", f"{plugin}:Wide", "--model.args", "{}", "--train.batch_size", "18"]
    return [*data, *model, "--train.epochs", "1"]


def test_every_evaluation_takes_a_micro_batch(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validation, the statistics of an average, the test, and evaluate with the same figures."""
    run, seen = tmp_path / "run", tmp_path / "seen"
    assert train_here(run, *words, "--train.epochs", "3", "--train.average_epochs", "2") == 0
    lines = [line.split() for line in seen.read_text().splitlines()]
    counts = {
        kind: {int(count) for count, *modes in lines if modes == kind.split()}
        for kind in ("True True", "False False", "True False")
    }
    # A micro-batch has five of the 18; the 90 training images are 18 blocks.
    assert {kind: max(found) for kind, found in counts.items()} == dict.fromkeys(counts, 5)
    assert counts["True False"] == {5}
    seen.unlink()
    capsys.readouterr()
    code, output, _ = run_command(
        capsys, "evaluate", str(run), "--json", "--model", words[words.index("--model.name") + 1]
    )
    assert code == 0
    assert json.loads(output)["equals_results_json"] is True
    # Two and three images try the network out.
    assert max(int(line.split()[0]) for line in seen.read_text().splitlines()) == 5


def test_a_file_of_an_older_version_is_evaluated_as_it_was(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, seen = tmp_path / "run", tmp_path / "seen"
    assert train_here(run, *words) == 0
    path = run / "model.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["model"])
    assert about.pop("evaluation_batch_size") == 5
    save_file(load_file(path), path, {"model": json.dumps(about)})
    name = words[words.index("--model.name") + 1]
    for more, at_once in (([], 30), (["--train.evaluation_batch_size", "7"], 7)):
        seen.unlink()
        assert run_command(capsys, "evaluate", str(run), "--model", name, *more)[0] == 0
        assert max(int(line.split()[0]) for line in seen.read_text().splitlines()) == at_once


def test_another_number_belongs_to_the_run(words: list[str], tmp_path: Path) -> None:
    more = ["--train.evaluation_batch_size", "9"]
    assert train_here(tmp_path / "run", *words, *more) == 0
    assert "evaluation_batch_size: 9" in (tmp_path / "run" / "config.yaml").read_text()
    assert Run(tmp_path / "run", 0).json("results.json")["test"]["samples"] == 30
    counts = {int(line.split()[0]) for line in (tmp_path / "seen").read_text().splitlines()}
    assert max(counts) == 9


GREEDY = """
import os
import torch
from torch import nn

class Greedy(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, images):
        if not self.training and len(images) > int(os.environ["FITTING"]):
            torch.empty(2**60, dtype=torch.uint8)
        return super().forward(images)
"""


def test_a_run_goes_on_where_its_evaluation_did_not_fit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With fewer images at once, from its checkpoint, and says that it rounds differently."""
    plugin = tmp_path / "greedy.py"
    plugin.write_text(GREEDY)
    words = ["--model.name", f"{plugin}:Greedy", "--model.args", "{}", "--train.epochs", "3"]
    run, straight = tmp_path / "run", tmp_path / "straight"
    monkeypatch.setenv("FITTING", "1000")
    assert train_here(straight, *words) == 0
    assert train_here(run, *words, "--train.max_seconds", "1e-9") == 75
    step = Run(run, 75).json("status.json")["step"]
    monkeypatch.setenv("FITTING", "8")
    assert train_here(run, *words) == 2
    message = capsys.readouterr().err
    assert "train.evaluation_batch_size: a block of 144 images of an evaluation" in message
    assert "with which a run that has begun can go on" in message
    fewer = ["--train.evaluation_batch_size", "8"]
    assert train_here(run, *words, *fewer) == 0
    reason = f"from step {step}: train.evaluation_batch_size null against 8"
    assert f"equal to rounding, not in bits: {reason}" in caplog.text
    results = Run(run, 0).json("results.json")
    assert results["equality"] == {"in_bits": False, "because": [reason]}
    final = "final_weights_sha256"
    assert results[final] == Run(straight, 0).json("results.json")[final]
    name = ["--model", f"{plugin}:Greedy"]
    code, output, _ = run_command(capsys, "evaluate", str(run), "--json", *name)
    assert (code, json.loads(output)["equals_results_json"]) == (0, True)
    code, _, message = run_command(capsys, "verify", str(run), "--model.name", f"{plugin}:Greedy")
    assert (code, reason in message) == (2, True)
