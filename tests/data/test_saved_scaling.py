"""The scaling of the pixels is saved in model.safetensors, for images of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import models
from tests.commands.command import run_command
from tests.runs import Run, sha256_of, train_here
from tests.stored import write_model
from trainer.base.errors import UserError
from trainer.base.tensor_files import write_tensors
from trainer.config import stored_config
from trainer.data.scaling import Scaling, encode_scaling
from trainer.finished.trained_model import load

NAMES = ["lockstep/pixel_deviation", "lockstep/pixel_mean"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, "--data.scaling", "per_pixel", "--train.epochs", "2") == 0
    return Run(folder, 0)


def per_pixel(channels: int, side: int) -> Scaling:
    generator = torch.Generator().manual_seed(0)
    mean, deviation = (
        1 + 100 * torch.rand(channels, side, side, generator=generator) for _ in range(2)
    )
    return Scaling(mean, deviation)


def write(path: Path, scaling: Scaling) -> Path:
    """The model of `write_model` with another scaling, as a run writes it."""
    shape = tuple(scaling.mean.shape)
    found: dict[str, Any] = {}
    write_model(
        path, "quicknet", channels=shape[0], image_size=(shape[1], shape[2]), change=found.update
    )
    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["model"])
    numbers, tensors = encode_scaling(scaling)
    write_tensors(path, load_file(path) | tensors, {"model": json.dumps(metadata | numbers)})
    return path


def test_a_scaling_of_large_images_is_read_again(tmp_path: Path) -> None:
    scaling = per_pixel(3, 264)
    stored = load(write(tmp_path / "model.safetensors", scaling))
    assert torch.equal(stored.scaling.mean, scaling.mean)
    assert torch.equal(stored.scaling.deviation, scaling.deviation)
    assert stored.probabilities(torch.zeros(1, 3, 264, 264)).isfinite().all()


def test_an_older_file_has_it_in_the_metadata(tmp_path: Path) -> None:
    scaling = per_pixel(1, 12)
    numbers = {"mean": scaling.mean.tolist(), "deviation": scaling.deviation.tolist()}
    file = write_model(tmp_path / "x.safetensors", change=lambda found: found.update(numbers))
    assert torch.equal(load(file).scaling.deviation, scaling.deviation)


def test_one_for_all_pixels_adds_no_tensors_to_the_file(tmp_path: Path) -> None:
    assert train_here(tmp_path / "run", "--train.epochs", "1") == 0
    assert not [name for name in load_file(tmp_path / "run/model.safetensors") if "/" in name]


def test_the_digest_is_of_the_weights_only(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run.folder / "model.safetensors"
    tensors = load_file(file)
    assert [name for name in sorted(tensors) if "/" in name] == NAMES
    results = run.json("results.json")
    assert sha256_of(file) == results["weights_sha256"] == load(file).weights_sha256
    copy = tmp_path / "copy.safetensors"
    words = ["export", run.folder, "--format", "safetensors", "--output", copy]
    assert run_command(capsys, *words)[0] == 0
    assert copy.read_bytes() == file.read_bytes()
    code, output, errors = run_command(capsys, "evaluate", run.folder, "--json")
    assert code == 0, errors
    assert json.loads(output)["equals_results_json"] is True
    # By hand, as docs/using_the_model.md says.
    stored = load(file)
    assert torch.equal(tensors[NAMES[1]].view(torch.float32), stored.scaling.mean)
    network = models.create(
        stored.name, json.loads(stored.metadata)["args"],
        num_classes=10, in_channels=1, image_size=(8, 8),
    )  # fmt: skip
    weights = {name: one for name, one in tensors.items() if not name.startswith("lockstep/")}
    network.load_state_dict(weights)


def test_such_a_file_may_be_started_from(run: Run, tmp_path: Path) -> None:
    more = ["--model.weights", str(run.folder / "model.safetensors"), "--train.epochs", "1"]
    assert train_here(tmp_path / "run", *more) == 0


@pytest.mark.parametrize("wrong", [None, torch.zeros(1, 12, 13, dtype=torch.int32)])
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, wrong: torch.Tensor | None) -> None:
    file = write_model(tmp_path / "x.safetensors", change=lambda found: found.update(mean=None))
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    more = {} if wrong is None else {NAMES[1]: wrong}
    write_tensors(file, load_file(file) | more, metadata)
    with pytest.raises(UserError, match=r"model\.mean: is neither in .* lockstep/pixel_mean"):
        load(file)


def write_channels(folder: Path, channels: int) -> Path:
    """Write two classes that differ in the last channel's brightness; two test labels are wrong."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 20)):
        targets = np.arange(count) % 2
        images = random.integers(0, 120, (count, 12, 12, channels))
        images[..., -1] += 100 * targets[:, None, None]
        np.save(folder / f"bands_{part}_features.npy", images.astype(np.uint8))
        if part == "test":
            targets[:2] = [1, 0]
        np.save(folder / f"bands_{part}_targets.npy", targets)
    return folder


def of_channels(data: Path) -> list[str]:
    return ["--data.name", "npy", "--data.root", str(data), "--data.augment", "none"]


def test_images_of_many_channels_are_scaled_by_channel_trained_on_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = of_channels(write_channels(tmp_path / "data", 6))
    run = tmp_path / "run"
    assert train_here(run, *more, "--train.epochs", "4", "--optimizer.lr", "0.01") == 0
    assert stored_config.read_folder(run).data.scaling == "per_channel"
    stored = load(run)
    assert stored.scaling.mean.shape == (6, 1, 1)
    assert stored.scaling.mean[5] > stored.scaling.mean[:5].max() + 30
    assert Run(run, 0).json("results.json")["test"]["accuracy"] == 0.9
    assert run_command(capsys, "report", run)[0] == 0
    assert (run / "mistakes.png").exists()
    assert (run / "features.png").exists()
    code, output, errors = run_command(capsys, "evaluate", run, "--json")
    assert (code, json.loads(output)["equals_results_json"]) == (0, True), errors
    page = tmp_path / "page.html"
    assert run_command(capsys, "inspect-data", run, "--page", page)[0] == 0
    assert page.exists()


def test_a_run_of_an_older_version_keeps_its_scaling(tmp_path: Path) -> None:
    run, more = tmp_path / "run", of_channels(write_channels(tmp_path / "data", 3))
    more += ["--schedule.name", "constant"]
    assert train_here(run, *more, "--data.scaling", "global", "--train.epochs", "1") == 0
    assert train_here(run, *more, "--train.epochs", "2") == 0
    assert stored_config.read_folder(run).data.scaling == "global"
    assert load(run).scaling.mean.shape == (1, 1, 1)
