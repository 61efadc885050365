"""From YAML and the command line to a configuration, and the messages for what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trainer.base.errors import UserError
from trainer.config import command_line, stored_config
from trainer.config.same_run import differences
from trainer.config.schema import DataConfig, RunConfig, flatten, replace

PIECEWISE = ["--schedule.name", "piecewise", "--schedule.milestones"]
FOLDER = ["--data.name", "folder", "--data.root", "own"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\nmodel: {name: vgg_small, args: {widths: [8]}}\ntrain: {epochs: 4}\n")
    return path


def parse(recipe: Path, *words: str) -> RunConfig:
    return command_line.parse(["--config", str(recipe), *words])


def test_command_line_goes_over_the_file_goes_over_the_defaults(recipe: Path) -> None:
    config = parse(recipe, "--train.epochs", "7", "--optimizer.lr=1e-2")
    assert (config.seed, config.train.epochs, config.optimizer.lr) == (3, 7, 0.01)
    assert config.train.batch_size == RunConfig().train.batch_size


def test_output_dir_is_named_after_the_recipe(recipe: Path) -> None:
    assert parse(recipe).output_dir == "runs/mine"
    assert parse(recipe, "--output_dir", "x/y").output_dir == "x/y"


def test_null_and_objects_on_the_command_line(recipe: Path) -> None:
    config = parse(recipe, "--train.max_seconds", "null", "--model.args", "{}")
    assert config.train.max_seconds is None
    assert config.model.args == {}
    assert parse(recipe, "--model.args", '{"dropout": 0.1}').model.args == {"dropout": 0.1}


def test_a_recipe_s_optimiser_and_schedule_may_be_exchanged_alone() -> None:
    words = ["--optimizer.name", "adam", "--schedule.name", "constant"]
    config = command_line.parse(words)
    assert (config.optimizer.name, config.schedule.name) == ("adam", "constant")
    assert config.schedule.final_fraction == 0.1  # of the recipe's own schedule


def test_one_number_is_a_square_and_the_same_run(recipe: Path) -> None:
    square = parse(recipe, *FOLDER, "--data.image_size", "[224, 224]")
    assert square.data.image_size == [224, 224]
    assert parse(recipe, *FOLDER, "--data.image_size", "224") == square
    assert "image_size: 224" not in command_line.to_yaml(square)
    changes = {"data": {"name": "folder", "root": "own", "image_size": 224}}
    assert command_line.combine(recipe, changes) == square
    recipe.write_text("data: {name: folder, root: own, image_size: 224}\n")
    assert parse(recipe).data.image_size == [224, 224]


def test_milestones_on_the_command_line(recipe: Path) -> None:
    assert parse(recipe, *PIECEWISE, "[1, 2.5]").schedule.milestones == [1, 2.5]
    recipe.write_text("{schedule: {name: piecewise, milestones: [2, 3]}}")
    assert parse(recipe).schedule.milestones == [2, 3]
    assert parse(recipe, *PIECEWISE, "[4]").schedule.milestones == [4]
    without = ["--schedule.name", "cosine", "--schedule.milestones", "null"]
    assert parse(recipe, *without).schedule.milestones is None


def test_a_configuration_survives_yaml(recipe: Path, tmp_path: Path) -> None:
    words = ["--train.clip_norm", "1.5", "--data.root", "ü/1e3", *PIECEWISE, "[1, 2.5]"]
    config = parse(recipe, *words)
    (tmp_path / "again.yaml").write_text(command_line.to_yaml(config), encoding="utf-8")
    assert stored_config.read(tmp_path / "again.yaml") == config


def test_older_runs_on_folders_have_stretched_their_pictures(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data: {name: folder, root: own}")
    assert stored_config.read(path).data.resize == "stretch"
    path.write_text("data: {name: digits}")
    assert stored_config.read(path).data == DataConfig(name="digits")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=str)
def test_every_recipe_is_valid_and_fixes_its_microbatches(path: Path) -> None:
    words = ["--config", str(path), "--data.root", "own"]  # the recipe for any folder has none
    assert command_line.parse(words).train.microbatches == 4


@pytest.mark.parametrize("words", [["--config", "digits"], ["--config=digits"]], ids=" ".join)
def test_a_recipe_of_ours_is_found_by_its_name(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = command_line.parse(["--config", str(REPOSITORY / "configs" / "digits.yaml")])
    assert command_line.parse(words) == ours
    assert command_line.combine("digits", {}) == ours
    (tmp_path / "digits").write_text("seed: 7\n")
    assert command_line.parse(words).seed == 7


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--train.epochz", "3"], ["--train.epochz", "did you mean train.epochs?"]),
        (["--epochs", "3"], ["--epochs", "did you mean train.epochs?"]),
        (["--train.epochs", "many"], ["train.epochs", "whole number", "many"]),
        (["--train.epochs", "1.5"], ["train.epochs", "1.5"]),
        (["--train.epochs", "0"], ["train.epochs", "at least 1", "0"]),
        (["--train.batch_size", "0"], ["train.batch_size", "at least 1"]),
        (["--train.precision", "no"], ["train.precision", "fp32", "bf16"]),
        (["--train.microbatches", "500"], ["train.microbatches", "at most train.batch_size"]),
        (["--train.evaluation_batch_size", "0"], ["train.evaluation_batch_size", "from 1 to"]),
        (["--train.label_smoothing", "1"], ["train.label_smoothing", "[0, 1)"]),
        (["--train.clip_norm", "-1"], ["train.clip_norm", "positive"]),
        (["--optimizer.lr", ".nan"], ["optimizer.lr", "positive and finite"]),
        (["--optimizer.momentum", "1"], ["optimizer.momentum"]),
        (["--schedule.warmup_epochs", "4"], ["schedule.warmup_epochs", "less than train.epochs"]),
        (
            ["--schedule.name", "one_cycle"],
            ["schedule.warmup_epochs", "positive where", "0.3 x train.epochs"],
        ),
        (["--schedule.name", "piecewise"], ["schedule.milestones", "a list", "found None"]),
        ([*PIECEWISE, "[]"], ["schedule.milestones", "above schedule.warmup_epochs"]),
        ([*PIECEWISE, "[1, 4]"], ["schedule.milestones", "below train.epochs, which is 4"]),
        ([*PIECEWISE, "[0, 2]"], ["schedule.milestones", "above schedule.warmup_epochs"]),
        ([*PIECEWISE, "[2, 1]"], ["schedule.milestones", "rising", "[2.0, 1.0]"]),
        ([*PIECEWISE, "[1, 1]"], ["schedule.milestones", "rising"]),
        ([*PIECEWISE, "[.nan]"], ["schedule.milestones", "rising"]),
        ([*PIECEWISE, "[1]", "--schedule.warmup_epochs", "2"], ["milestones", "which is 2.0"]),
        ([*PIECEWISE, "2"], ["schedule.milestones"]),
        ([*PIECEWISE, "[soon]"], ["schedule.milestones", "soon"]),
        (["--schedule.milestones", "[1]"], ["schedule.milestones", "null unless", "piecewise"]),
        ([*PIECEWISE, "[1]", "--schedule.factor", "1"], ["schedule.factor", "between 0 and 1"]),
        (["--schedule.factor", "0"], ["schedule.factor", "between 0 and 1"]),
        (["--data.name", "cats"], ["data.name", "fashion_mnist"]),
        (["--data.name", "npy"], ["data.root", "npy"]),
        (["--data.name", "folder"], ["data.root", "folder"]),
        ([*FOLDER, "--data.image_size", "[0, 9]"], ["data.image_size", "[64, 64]", "1,024"]),
        ([*FOLDER, "--data.image_size", "[9]"], ["data.image_size", "height and width"]),
        (["--tracking.trackers", "mlflow, aim"], ["found mlflow, aim; write '[mlflow, aim]'"]),
        ([*FOLDER, "--data.image_size", "0"], ["one number for a square", "found [0, 0]"]),
        (["--data.image_size", "16,24"], ["data.image_size: must be null, one", "'[16, 24]'"]),
        (["--data.image_size", "16x16"], ["data.image_size: must be null, one", "'[16, 16]'"]),
        (["--data.image_size", "224.0"], ["data.image_size: must be null, one", "write 224"]),
        (["--data.image_size", "[16,", "16]"], ["data.image_size", "in quotes: '[64, 64]'"]),
        (["--data.image_size", "16", "16"], ["arguments: 16", "in quotes: '[64, 64]'"]),
        (["--data.image_size", ""], ["data.image_size: must be null, one", "found nothing"]),
        (["--data.validation_size", "0.2"], ["data.validation_size: must be null", "not a share"]),
        (["--data.train_size", "50%"], ["data.train_size: must be null (all)", "not a share"]),
        (["--data.test_size", "1,000"], ["data.test_size: must be null (all)", "write 1000"]),
        (["--train.batch_size", "1e2"], ["train.batch_size: must be a whole number", "write 100"]),
        (["--train.epochs", "1.2.3"], ["train.epochs: must be a whole number, found 1.2.3"]),
        (["--schedule.milestones", "2"], ["must be null or a list of numbers", "write '[2]'"]),
        (["--train.max_seconds", "1h"], ["must be null or a number, found 1h"]),
        (["--optimizer.nesterov", "2"], ["must be true or false, found 2"]),
        (["--optimizer.lr", "null"], ["optimizer.lr: must be a number, found null"]),
        (["--train", "fast"], ["train: must be a section"]),
        ([*FOLDER, "--data.grey_range", "[5, 5]"], ["data.grey_range", "[0, 4095]"]),
        ([*FOLDER, "--data.grey_range", "[]"], ["data.grey_range", "[0, 4095]"]),
        ([*FOLDER, "--data.channels", "0"], ["data.channels", "null, or from 1 to 1,024"]),
        ([*FOLDER, "--data.on_bad", "ask"], ["data.on_bad", "skip", "ask"]),
        (["--data.channels", "1"], ["data.channels", "null unless data.name is folder"]),
        (["--data.augment", "flip_zoom"], ["data.augment", "flip, rotate, crop", "flip_zoom"]),
        (["--data.augment", "flip_flip"], ["data.augment", "at most once", "flip_flip"]),
        (["--data.augment", "none_flip"], ["data.augment", "none, or some of"]),
        (["--data.augment", "flip_"], ["data.augment", "joined by _"]),
        (["--data.augment", ""], ["data.augment", "none, or some of"]),
        (["--data.mixup", "-0.1"], ["data.mixup", "0 or positive and finite"]),
        (["--data.cutmix", ".inf"], ["data.cutmix", "0 or positive and finite"]),
        (["--threads", "100000"], ["threads", "at most 1,024"]),
        (["--output_dir", ""], ["output_dir", "null or the name of a folder"]),
        (["--data.root", ""], ["data.root", "must be a name", "found ''"]),
        (["--resume", ""], ["resume", "must be a name", "found ''"]),
        (["--model.weights", ""], ["model.weights", "must be a name", "found ''"]),
        (["--data.root", "caf\udce9"], ["data.root", r"'caf\udce9' is not in UTF-8", "link"]),
        (["--output_dir", "caf\udce9"], ["output_dir", r"'caf\udce9' is not in UTF-8"]),
        (["--config", "caf\udce9.yaml"], ["--config", r"'caf\udce9.yaml' is not in UTF-8"]),
        (["--config", ""], ["--config", "is empty"]),
        (["--timeout_seconds", "0"], ["timeout_seconds", "between 1"]),
        (["--seed", "-1"], ["seed", "between 0"]),
        (["--train.patience", "2", "--data.validation_size", "0"], ["train.patience"]),
        (["--seed"], ["--seed"]),
        (["--model.args", "[1]"], ["model.args"]),
        (["--model.args", "{widths: [8], widths: [9]}"], ["widths is there twice"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_named_with_what_would_be_right(
    recipe: Path, words: list[str], expected: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        parse(recipe, *words)
    for part in expected:
        assert part in str(caught.value)
    for word in ("\n", "Union", "<class", "typing.", "Given value", "Got value"):
        assert word not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sead: 3\n", ["sead", "did you mean seed?"]),
        ("train: {epochz: 3}\n", ["epochz", "did you mean train.epochs?"]),
        ("train: [1\n", ["mine.yaml"]),
        ("train: {precision: no}\n", ["train.precision", "False"]),
        ("train: {epochs: null}\n", ["train.epochs: must be a whole number, found null"]),
        ("train: {epochs: [3]}\n", ["train.epochs: must be a whole number, found [3]"]),
        ("train: 3\n", ["train: must be a section"]),
        ("data: {validation_size: 0.2}\n", ["mine.yaml: data.validation_size", "not a share"]),
        ("data: {image_size: '16,16'}\n", ["mine.yaml: data.image_size", "'[16, 16]'"]),
        ("seed: 1\nseed: 2\n", ["mine.yaml: line 2: seed is there twice"]),
        ("train:\n  epochs: 1\n  'epochs': 2\n", ["mine.yaml: line 3: epochs is there twice"]),
        ("train: {epochs: 1}\ntrain: {patience: 2}\n", ["line 2: train is there twice"]),
        ("model: {args: {widths: [8], widths: [9]}}\n", ["line 1: widths is there twice"]),
        ("seed: " + "[" * 2**17, ["mine.yaml", "line 1: nested too deeply"]),
        ("model: &all {args: *all}\n", ["mine.yaml", "line 1: *all is within itself"]),
        ("just text\n", ["mine.yaml", "has no keys"]),
        ("", ["mine.yaml", "has no keys"]),
    ],
)
def test_a_mistake_in_the_file_is_named(recipe: Path, text: str, expected: list[str]) -> None:
    recipe.write_text(text)
    with pytest.raises(UserError) as caught:
        parse(recipe)
    for part in expected:
        assert part in str(caught.value)


def test_a_file_that_is_no_text_is_named(recipe: Path) -> None:
    recipe.write_bytes(b"\xf8\x00\xff")
    with pytest.raises(UserError, match="not text in UTF-8"):
        parse(recipe)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        parse(tmp_path / "nowhere.yaml")


def test_an_empty_object_is_all_defaults(recipe: Path) -> None:
    recipe.write_text("{}")
    assert replace(parse(recipe), {"output_dir": None}) == RunConfig()


def test_what_cannot_change_a_run_makes_no_difference() -> None:
    config = RunConfig()
    free = {"output_dir": "x", "data.root": "y", "tracking.wandb": "offline", "checkpoint.keep": 9}
    free |= {"train.activation_checkpointing": True}
    assert differences(config, replace(config, free)) == []
    changed = replace(config, {"seed": 4, "optimizer.lr": 0.5})
    assert differences(config, changed) == ["seed: 0 against 4", "optimizer.lr: 0.001 against 0.5"]


def test_help_is_fast_and_describes_every_key() -> None:
    """Fast means without torch."""
    code = "import sys, runpy; sys.argv = ['train.py', '--help']\n"
    code += "try: runpy.run_path('train.py', run_name='__main__')\n"
    code += "finally: print('torch' in sys.modules, file=sys.stderr)"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0
    assert finished.stderr.strip() == "False"
    for key in flatten(RunConfig()):
        assert f"--{key} " in finished.stdout
    assert "samples of one optimiser step" in finished.stdout
