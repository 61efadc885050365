"""Training on pictures that stay as they are until a batch asks for them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.data.picture_folders import write_pictures
from tests.data.picture_tables import write_csv, write_rows
from tests.faults.running import steps_logged
from tests.runs import Run, check_same, train_forked, train_here
from trainer import load_model
from trainer.config import stored_config
from trainer.config.schema import DataConfig
from trainer.data.loading import image_set, load
from trainer.data.sources import decoded_cache, reading
from trainer.finished.export import description
from trainer.training import engine

RECIPE = REPOSITORY / "configs" / "folder.yaml"
SHORT = ["--model.args", '{"widths": [8, 16]}', "--train.epochs", "2", "--train.batch_size", "16"]
SHORT += ["--data.store_size", "9", "--data.augment", "none"]


def write(place: Path) -> Path:
    return write_pictures(place / "own", ("train",), count=20, size=(16, 12), channels=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, own, a run on it, and a cache."""
    place = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        root = write(place)
        assert train_here(place / "run", "--data.root", str(root), *SHORT, config=RECIPE) == 0
    return place


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))


def config_of(root: Path, **keys: object) -> DataConfig:
    return DataConfig(name="folder", root=str(root), store_size=9, **keys)  # type: ignore[arg-type]


def test_nothing_is_decoded_at_the_start(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded_cache, "write", None)
    config = config_of(place / "own", scaling="imagenet")
    with monkeypatch.context() as patch:
        patch.setattr("trainer.data.stored.form.StoredForm.make", None)
        reading.prepare(config)
        data = load(config, 0)
    assert reading.describe_undecoded(config) is None
    first = data.train.images[:2]
    assert first.shape == (2, 3, 16, 12)
    assert first.float().std() > 10


def test_the_process_count_changes_nothing(place: Path, tmp_path: Path) -> None:
    run = Run(place / "run", 0)
    more = ["--config", str(RECIPE), "--data.root", str(place / "own"), *SHORT]
    two = train_forked(tmp_path / "two", 2, *more, "--data.cache", "disk")
    assert two.exit_code == 0, two.errors
    assert two.digest == run.digest
    assert two.json("results.json")["data"] == run.json("results.json")["data"]


def test_pictures_drawn_by_weights_are_the_same_run_on_any_processes(tmp_path: Path) -> None:
    """Wherever they are kept: in memory, in the cache, or nowhere."""
    table = write_csv(tmp_path, write_rows(tmp_path, 40))
    more = [
        *SHORT,
        "--data.name",
        "table",
        "--data.root",
        str(table),
        "--data.validation_size",
        "4",
    ]
    more += ["--train.microbatches", "4", "--train.batch_size", "8"]
    more += ["--data.augment", "[random_resized_crop, flip]", "--data.sampling"]
    one = [*more, "weights", "--data.cache", "memory"]
    assert train_here(tmp_path / "one", *one, config=RECIPE) == 0
    run = Run(tmp_path / "one", 0)
    for count, kept in ((2, "disk"), (4, "none")):
        words = ["--config", str(RECIPE), *more, "weights", "--data.cache", kept]
        check_same(train_forked(tmp_path / f"{count}", count, *words), run)
    assert train_here(tmp_path / "uniform", *more, "uniform", config=RECIPE) == 0
    assert Run(tmp_path / "uniform", 0).digest != run.digest


def _terminate_in_training(folder: Path) -> None:
    while steps_logged(folder) == 0:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_in_the_middle_of_epochs_and_kept_elsewhere_it_is_the_same_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped three times, on one and two processes, each time with another cache and prefetch."""
    more = ["--config", str(RECIPE), "--data.root", str(place / "own"), *SHORT]
    more += ["--data.augment", "[random_resized_crop, flip]", "--data.mixup", "0.2"]
    more += ["--data.image_size_schedule", "[[1, 12], [3, 16]]", "--train.epochs", "4"]
    more += ["--train.batch_size", "2", "--train.microbatches", "2"]
    assert train_here(tmp_path / "undisturbed", *more) == 0
    undisturbed, run = Run(tmp_path / "undisturbed", 0), tmp_path / "run"
    in_epoch = len(undisturbed.metrics("step")) // 4
    monkeypatch.setattr(engine, "LOG_SECONDS", 0.0)  # it is noticed after each step
    terminating = threading.Thread(target=_terminate_in_training, args=(run,))
    terminating.start()
    assert train_here(run, *more, "--data.cache", "disk", "--data.prefetch", "9") == 75
    terminating.join()
    assert not [one.name for one in threading.enumerate() if one.name.startswith("prefetch")]
    assert Run(run, 75).json("status.json")["step"] % in_epoch
    ends_soon = ["--train.max_seconds", "0.001"]
    forked = train_forked(run, 2, *more, "--data.cache", "none", "--data.prefetch", "0", *ends_soon)
    assert forked.exit_code == 75, forked.errors
    assert train_here(run, *more, "--data.prefetch", "3", *ends_soon) == 75
    assert Run(run, 75).json("status.json")["step"] % in_epoch
    check_same(train_forked(run, 2, *more, "--data.cache", "disk"), undisturbed)


@pytest.mark.parametrize("command", ["verify", "replay --step 2", "evaluate --json"])
def test_commands_go_on_from_the_pictures(place: Path, command: str, capsys: Capture) -> None:
    name, *more = command.split()
    code, output, errors = run_command(capsys, name, place / "run", *more)
    assert code == 0, output + errors
    if name == "evaluate":
        assert json.loads(output)["own_images"] is True


def test_predict_takes_the_pixels_that_evaluate_takes(place: Path, tmp_path: Path) -> None:
    """The pictures are shrunk to 9 pixels, and a JPEG, before they get the size of the network."""
    more = ["--data.root", str(place / "own"), *SHORT, "--data.store_format", "jpeg"]
    more += ["--data.store_quality", "30"]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 0
    config = stored_config.read_folder(tmp_path / "run").data
    assert (config.store_size, config.store_quality) == (9, 30)
    source = reading.read(config).test
    images, model = image_set(source).images, load_model(tmp_path / "run")
    assert len(images) > 3
    for number in range(len(images)):
        read = model.read(place / "own" / source.names[number])
        assert torch.equal(read, images[number : number + 1][0])
    facts = description.describe(model, description.Order("onnx", "uint8"))
    assert (facts["store_size"], facts["store_quality"]) == (9, 30)


def test_what_a_picture_is_for_the_run_is_in_the_fingerprint(place: Path) -> None:
    def fingerprint(**keys: object) -> str:
        config = config_of(place / "own", **keys)
        reading.prepare(config)
        return load(config, 0).fingerprint

    first = fingerprint()
    assert fingerprint(cache="none", memory_limit_mb=0) == first
    assert len({first, fingerprint(image_size=8), fingerprint(store_format="jpeg")}) == 3
    assert fingerprint(resize="pad", image_size=8) != fingerprint(image_size=8)


def test_a_picture_that_breaks_during_the_run_is_named(
    place: Path, tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "own"
    shutil.copytree(place / "own", root)
    for picture in root.rglob("01*.png"):  # its head is whole
        picture.write_bytes(picture.read_bytes()[:-100])
    more = ["--data.root", str(root), *SHORT, "--data.scaling", "imagenet"]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 2
    errors = capsys.readouterr().err
    assert "png: is not a picture that can be read (image file is truncated" in errors
    assert "data.on_bad: skip" in errors
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert train_here(tmp_path / "run", *more, "--data.on_bad", "skip", config=RECIPE) == 0
    assert "20 of 40 pictures cannot be read and are left out" in caplog.text
