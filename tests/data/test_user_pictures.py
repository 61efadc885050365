"""Training on a folder of pictures by its recipe."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.data.picture_folders import write_pictures
from tests.runs import Run, train_forked, train_here
from trainer.data.stored import entries

RECIPE = REPOSITORY / "configs" / "folder.yaml"
SHORT = ["--model.args", '{"widths": [8, 16, 16]}', "--train.epochs", "2", "--train.batch_size"]
SHORT += ["16"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "own", ("train",), count=30, size=(16, 12), channels=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train on such pictures in one process, with pixels in memory."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        root = write_pictures(place / "own", ("train",), count=30, size=(16, 12), channels=3)
        assert train_here(place / "run", "--data.root", str(root), *SHORT, config=RECIPE) == 0
    return Run(place / "run", 0)


def test_the_process_count_changes_nothing(root: Path, run: Run, tmp_path: Path) -> None:
    """Train with two processes and no cache, and with pixels on the disk."""
    more = ["--config", str(RECIPE), "--data.root", str(root), *SHORT]
    two = train_forked(tmp_path / "two", 2, *more)
    assert two.exit_code == 0, two.errors
    assert two.json("results.json")["data"]["test"] == 12
    assert "no folder test: 12 of the pictures in train" in two.output
    assert two.errors.count("has no folder test") == 1
    more += ["--data.memory_limit_mb", "0"]
    assert train_here(tmp_path / "disk", *more[2:], config=RECIPE) == 0
    assert Run(tmp_path / "disk", 0).digest == two.digest == run.digest


def test_another_folder_is_made_fit_for_the_model(
    run: Run, tmp_path: Path, capsys: Capture
) -> None:
    # Too few to hold this many out for validation.
    other = write_pictures(tmp_path / "other", count=3, size=(40, 30))
    words = ["evaluate", run.folder, "--data.root", other, "--json"]
    words += ["--data.validation_size", "1"]
    code, output, errors = run_command(capsys, *words)
    assert code == 0, errors
    assert json.loads(output)["test"]["samples"] == 6
    code, _, errors = run_command(capsys, *words, "--split", "validation")
    assert code == 2
    assert "data.validation_size: a stratified draw" in errors


@pytest.mark.parametrize(
    ("classes", "count", "parts"), [(2, 5, ["train"]), (20, 6, ["train", "test"])]
)
def test_few_pictures_start_with_the_defaults(
    tmp_path: Path, classes: int, count: int, parts: list[str]
) -> None:
    names = [f"class {number}" for number in range(classes)]
    root = write_pictures(tmp_path / "own", parts, names, count)
    more = ["--data.root", str(root), "--train.epochs", "2", "--model.args", '{"widths": [8, 16]}']
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 0
    assert Run(tmp_path / "run", 0).json("results.json")["data"]["validation"] == classes


def test_a_class_that_is_too_small_is_named(tmp_path: Path, capsys: Capture) -> None:
    root = write_pictures(tmp_path / "own", classes=("ant", "bee", "cow"))
    for path in sorted((root / "train" / "cow").iterdir())[1:]:
        path.unlink()
    more = ["--data.root", str(root), "--data.validation_size", "5", *SHORT]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 2
    assert "data.validation: a stratified draw needs at least 2" in (
        words := capsys.readouterr().err
    )
    assert "found 1 of class cow;" in words


def test_the_cache_may_be_elsewhere_and_is_held(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "cache"
    for size in (16, 20):
        more = ["--data.root", str(root), "--data.cache_dir", str(elsewhere), *SHORT]
        more += ["--data.image_size", str(size)]
        assert train_here(tmp_path / f"run {size}", *more, config=RECIPE) == 0
    kept = entries.list_entries(elsewhere)
    assert [entry.is_held for entry in kept] == [True, True]  # by this process
    assert not list((tmp_path / "cache").rglob("train.npy"))


def test_a_network_of_one_size_refuses_a_schedule(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    more = ["--data.root", str(root), "--data.image_size", "28", "--model.name", "lab_cnn"]
    more += ["--data.image_size_schedule", "[[1, 20]]", "--model.args", "{}"]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 2
    errors = capsys.readouterr().err
    assert "data.image_size_schedule: lab_cnn is built for images of 28 x 28 pixels" in errors
    assert not (tmp_path / "run" / "config.yaml").exists()
    wrong = [*more, "--data.image_size_schedule", "[[2, 20]]"]
    assert train_here(tmp_path / "run", *wrong, config=RECIPE) == 2
    assert "the first of them 1" in capsys.readouterr().err


def test_strips_that_become_too_flat_name_the_key(tmp_path: Path, capsys: Capture) -> None:
    root = write_pictures(tmp_path / "own", count=3, size=(30, 1500))
    more = ["--data.root", str(root), *SHORT]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 2
    assert "data.image_size: the pictures are made 3 high and 128 wide" in capsys.readouterr().err
    unknown = [*more, "--model.name", "quicknetz"]
    assert train_here(tmp_path / "run", *unknown, config=RECIPE) == 2
    errors = capsys.readouterr().err
    assert "did you mean quicknet?" in errors
    assert "image_size" not in errors
    more += ["--data.image_size", "[16, 128]", "--train.epochs", "2"]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 0


def test_the_folds_are_summed_up_where_nothing_is_decoded_yet(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["crossval", "--folds", "2", "--config", RECIPE, "--output_dir", tmp_path / "folds"]
    words += ["--data.root", root, "--tracking.wandb", "disabled", "--threads", "1", *SHORT]
    assert run_command(capsys, *words)[0] == 0
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "folds" / "crossval.json").unlink()
    code, output, errors = run_command(capsys, *words)
    assert code == 0, errors
    assert re.search(
        r"^class  images  accuracy  out of fold\n(?:cat|dog) +24 ", output, re.MULTILINE
    )


def test_the_recipe_without_a_folder_says_what_it_needs(tmp_path: Path, capsys: Capture) -> None:
    assert train_here(tmp_path / "run", config=RECIPE) == 2
    message = capsys.readouterr().err
    assert "data.root: must be the folder of the files where data.name is folder" in message


def test_a_broken_picture_ends_the_run_before_it_begins(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    (root / "train" / "cat" / "005.png").write_bytes(b"no picture")
    more = ["--data.root", str(root), *SHORT]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 2
    assert "cat/005.png: is not a picture that can be read" in capsys.readouterr().err
    assert train_here(tmp_path / "run", *more, "--data.on_bad", "skip", config=RECIPE) == 0


def test_the_doctor_knows_folders(root: Path, tmp_path: Path, capsys: Capture) -> None:
    more = ["--config", str(RECIPE), "--threads", "1", "--output_dir", str(tmp_path / "run")]
    more += ["--tracking.wandb", "disabled", *SHORT]
    code, output, _ = run_command(capsys, "doctor", *more, "--data.root", str(root))
    assert code == 0
    assert "not decoded yet: 60 in train" in " ".join(output.split())
    assert not (tmp_path / "cache").exists()
    run_command(capsys, "inspect-data", *more, "--data.root", str(root))
    code, output, _ = run_command(capsys, "doctor", *more, "--data.root", str(root))
    assert code == 0
    assert "43 training, 5 validation, 12 test" in " ".join(output.split())
    code, output, _ = run_command(capsys, "doctor", *more, "--data.root", str(tmp_path / "none"))
    assert code == 2
    assert "data.root: there is no folder" in output


def test_the_limit_on_pixels_is_the_users(root: Path, tmp_path: Path, capsys: Capture) -> None:
    Image.new("L", (1200, 1000)).save(root / "train" / "cat" / "large.png")
    run = tmp_path / "run"
    more = ["--data.root", str(root), *SHORT]
    assert train_here(run, *more, "--data.max_megapixels", "1", config=RECIPE) == 2
    message = capsys.readouterr().err
    assert "cat/large.png: has 1.2 megapixels; if that is right, allow them" in message
    assert train_here(run, *more, "--data.max_megapixels", "2", config=RECIPE) == 0
    words = ["predict", run, root / "train" / "cat" / "large.png", "--max_megapixels"]
    assert run_command(capsys, *words, "1")[0] == 2
    assert run_command(capsys, *words, "2")[0] == 0
