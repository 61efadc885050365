"""The scaling of the pixels is saved in model.safetensors, for images of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
