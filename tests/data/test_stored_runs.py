"""Training on pictures that stay as they are until a batch asks for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.data.picture_folders import write_pictures
from tests.runs import Run, train_forked, train_here
from trainer.config.schema import DataConfig
from trainer.data.loading import load
from trainer.data.sources import decoded_cache, reading

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


@pytest.mark.parametrize("command", ["verify", "replay --step 2", "evaluate --json"])
def test_commands_go_on_from_the_pictures(place: Path, command: str, capsys: Capture) -> None:
    name, *more = command.split()
    code, output, errors = run_command(capsys, name, place / "run", *more)
    assert code == 0, output + errors
    if name == "evaluate":
        assert json.loads(output)["own_images"] is True


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
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert train_here(tmp_path / "run", *more, "--data.on_bad", "skip", config=RECIPE) == 0
    assert "20 of 40 pictures cannot be read and are left out" in caplog.text
