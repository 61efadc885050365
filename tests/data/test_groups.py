"""What shares a group, such as a patient, stays on one side of every split and fold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.runs import DIGITS, train_here
from trainer.base.errors import UserError
from trainer.config.rules import validate
from trainer.config.schema import DataConfig, RunConfig
from trainer.data import loading
from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.pictures.places import Places
from trainer.data.sources import reading
from trainer.data.sources.picture_groups import join_groups, name_groups
from trainer.data.split import split, take_fold


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep away from this machine's real cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def write(root: Path, names: list[str]) -> Path:
    """Write small pictures that all differ."""
    random = np.random.default_rng(len(names))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (6, 6), dtype=np.uint8)).save(path)
    return root


def patients(root: Path, *, parts: tuple[str, ...] = ("train",), count: int = 20) -> Path:
    """Write pictures of two classes, named by their patients, each of whom is in both classes."""
    names = [
        f"{part}/{kind}/{part}{patient:02}_{number}.png"
        for part in parts
        for kind in ("ill", "well")
        for patient in range(count)
        for number in range(3)
    ]
    return write(root, names)


def of_folder(root: Path) -> list[str]:
    return ["--data.name", "folder", "--data.root", str(root), "--data.augment", "none"]


PATTERN = "^([^_]+)_"


def divided(root: Path, seed: int = 0, **keys: Any) -> list[list[str]]:
    """Return the names of the pictures in train, validation and test."""
    config = DataConfig(**{"name": "folder", "root": str(root), "groups": PATTERN, **keys})
    validate(RunConfig(data=config))
    reading.prepare(config)
    source = reading.read(config)
    _, subsets = loading.build_dataset(config, seed, source)
    return [list(subset.select().names or ()) for subset in subsets]


def groups_of(names: list[str]) -> set[str]:
    return {Path(name).name.partition("_")[0] for name in names}


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 6), min_size=12, max_size=40),
    seed=st.integers(0, 2**62),
    held_out_share=st.floats(0.05, 0.9),
)
def test_no_group_is_on_both_sides(sizes: list[int], seed: int, held_out_share: float) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.arange(len(groups)) % 2
    config = DataConfig(validation_size=max(1, int(held_out_share * len(labels))))
    train, held_out = split(config, labels, seed, groups=groups)
    assert not set(groups[train]) & set(groups[held_out])
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    assert set(labels[train]) == {0, 1}
    folds = [take_fold(DataConfig(folds=3, fold=n), labels, seed, groups=groups) for n in (1, 2, 3)]
    for rest, inside in folds:
        assert not set(groups[rest]) & set(groups[inside])
    inside = np.concatenate([inside for _, inside in folds])
    assert sorted(inside.tolist()) == list(range(len(labels)))


def test_the_divisions_are_stratified_and_depend_on_the_seed() -> None:
    groups = np.repeat(np.arange(100), 4)
    labels = np.where(groups < 70, 0, 1)
    _, one = split(DataConfig(), labels, 1, groups=groups)
    _, again = split(DataConfig(), labels, 1, groups=groups)
    _, other = split(DataConfig(), labels, 2, groups=groups)
    assert one.tolist() == again.tolist() != other.tolist()
    assert np.bincount(labels[one]).tolist() == [28, 12]


def test_many_groups_are_divided_as_evenly_in_little_time() -> None:
    """By scikit-learn 20,000 groups would take this test half a minute."""
    random = np.random.default_rng(0)
    groups = random.permutation(np.repeat(np.arange(20_000), random.geometric(0.3, 20_000)))
    labels = (groups * 7919) % 10 // 3
    folds = [
        take_fold(DataConfig(folds=10, fold=n + 1), labels, 3, groups=groups)[1] for n in range(10)
    ]
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(labels)))
    assert not set(groups[folds[0]]) & set(groups[np.concatenate(folds[1:])])
    wanted = np.bincount(labels) / 10
    for inside in folds:
        assert np.abs(np.bincount(labels[inside], minlength=4) - wanted).max() <= 2
    other = take_fold(DataConfig(folds=10, fold=1), labels, 4, groups=groups)[1]
    assert not np.array_equal(folds[0], other)
    rest, held_out = split(DataConfig(validation_size=200), labels, 3, groups=groups)
    assert not set(groups[rest]) & set(groups[held_out])
    assert 150 <= len(held_out) <= 250


def test_folders_are_divided_by_groups_in_every_way(tmp_path: Path) -> None:
    train, validation, test = divided(patients(tmp_path))
    assert len(train) + len(validation) + len(test) == 120
    assert len(test) == 24
    assert 6 <= len(validation) <= 18
    sides = [groups_of(names) for names in (train, validation, test)]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 20
    # Which are tested on does not depend on the seed; in a cross-validation a fold is.
    assert divided(tmp_path, seed=5)[2] == test
    rest, held_out, fold = divided(tmp_path, folds=4, fold=2)
    sides = [groups_of(names) for names in (rest, held_out, fold)]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 16


def test_groups_that_hold_equal_pictures_are_tested_on_together(tmp_path: Path) -> None:
    """Two patients of whom somebody has filed the same picture, a chain of ten of them."""
    patients(tmp_path / "data", count=30)
    for patient in range(9):
        source = tmp_path / f"data/train/ill/train{patient:02}_0.png"
        shutil.copy(source, source.with_name(f"train{patient + 1:02}_copy.png"))
    train, _, test = divided(tmp_path / "data")
    chain = {f"train{patient:02}" for patient in range(10)}
    assert not groups_of(train) & groups_of(test)
    assert chain <= groups_of(test) or not chain & groups_of(test)


def test_joined_groups_keep_the_others_apart() -> None:
    groups = np.array([0, 0, 1, 1, 2, 3, 3, 4])
    contents = np.array([7, 1, 2, 7, 3, 2, 9, 8], np.uint64)
    assert join_groups(groups, contents).tolist() == [0, 0, 0, 0, 2, 0, 0, 4]


@pytest.mark.parametrize("top", ["train/", ""])
def test_a_level_is_a_folder_below_the_class(tmp_path: Path, top: str) -> None:
    names = [
        f"{top}{kind}/p{patient}/day{day}/{number}.png"
        for kind in ("ill", "well")
        for patient in range(6)
        for day in (1, 2)
        for number in range(2)
    ]
    labels = np.repeat([0, 1], 24)
    listed = {"train": ListedPictures(Places(tmp_path, names), labels)}

    def at(level: int) -> list[str]:
        return list(name_groups(listed, ("ill", "well"), level)["train"].groups or ())

    assert at(1) == [f"p{number // 4 % 6}" for number in range(48)]
    assert at(2)[:3] == ["p0/day1", "p0/day1", "p0/day2"]
    with pytest.raises(
        UserError, match=r"data\.groups: (train/)?ill/p0/day1/0\.png lies in 2 fold"
    ):
        at(3)


def test_a_group_on_both_sides_of_given_parts_is_named_with_its_files(tmp_path: Path) -> None:
    patients(tmp_path, parts=("train", "test"), count=5)
    divided(tmp_path)
    shutil.copy(tmp_path / "test/ill/test03_0.png", tmp_path / "train/well/test03_9.png")
    with pytest.raises(
        UserError,
        match=r"1 groups are in two parts:\n- test03, with \S*train/well/test03_9.png in train and "
        r"\S*test/ill/test03_0.png in test",
    ):
        divided(tmp_path)


def one_without(root: Path) -> None:
    write(root, ["train/ill/scan.png"])


def one_class_one_patient(root: Path) -> None:
    for path in (root / "train/ill").iterdir():
        path.rename(path.with_name(f"p_{path.name}"))


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        (one_without, {}, r"matches not 1 of the names of 121 pictures: train/ill/scan\.png"),
        (None, {"groups": "^(x)"}, r"pattern \^\(x\) matches none of the names of 120 pictures"),
        (None, {"groups": "^s"}, r"data\.groups: must be a pattern with one pair of brackets"),
        (None, {"groups": "(a)(b)"}, r"data\.groups: must be null, a folder level"),
        (None, {"groups": "(a"}, r"data\.groups: must be null, a folder level"),
        (None, {"groups": 0}, r"data\.groups: must be null, a folder level"),
        (None, {"name": "npy"}, r"data\.groups: must be null unless data\.name is folder"),
        (None, {"validation": "first"}, r"data\.validation: must be stratified where"),
        (None, {"folds": 30, "fold": 1}, r"data\.folds: 30 folds need as many groups .* found 16"),
        (one_class_one_patient, {}, r"no folder test, and the groups cannot be .* class ill is on"),
    ],
)
def test_groups_that_do_not_work_are_named(
    tmp_path: Path, change: Callable[[Path], None] | None, keys: dict[str, Any], message: str
) -> None:
    patients(tmp_path)
    if change:
        change(tmp_path)
    with pytest.raises(UserError, match=message):
        divided(tmp_path, **keys)


def test_one_group_cannot_be_divided(tmp_path: Path) -> None:
    patients(tmp_path, parts=("train", "test"), count=1)
    with pytest.raises(UserError, match=r"all 6 training images are of one group"):
        divided(tmp_path)
    train, validation, _ = divided(tmp_path, validation_size=0)
    assert (len(train), len(validation)) == (6, 0)


def test_a_cross_validation_of_groups_is_gathered(tmp_path: Path, capsys: Capture) -> None:
    patients(tmp_path / "data", count=8)
    keys = of_folder(tmp_path / "data")
    keys += ["--data.groups", PATTERN, "--train.epochs", "1", "--data.validation_size", "0"]
    words = ["--config", str(DIGITS), "--output_dir", str(tmp_path / "folds"), *keys]
    code, _, errors = run_command(capsys, "crossval", *words, "--folds", "3", "--threads", "1")
    assert code == 0, errors
    found = json.loads((tmp_path / "folds/crossval.json").read_text())
    assert found["out_of_fold"]["samples"] == 36


def test_the_run_says_how_many_groups_there_are(tmp_path: Path, capsys: Capture) -> None:
    patients(tmp_path / "data", count=8)
    keys = of_folder(tmp_path / "data")
    run = tmp_path / "run"
    assert train_here(run, *keys, "--data.groups", PATTERN, "--train.epochs", "1") == 0
    assert "and not trained on), 8 groups\n" in capsys.readouterr().out
