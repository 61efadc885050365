"""The training images are divided into folds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.loading import load
from trainer.data.split import take_fold


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(4, 30), min_size=2, max_size=6),
    folds=st.integers(2, 4),
    seed=st.integers(0, 2**62),
)
def test_every_image_is_in_one_fold_and_every_class_in_all(
    counts: list[int], folds: int, seed: int
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    held_out = []
    for fold in range(1, folds + 1):
        rest, inside = take_fold(DataConfig(folds=folds, fold=fold), labels, seed)
        assert sorted([*rest.tolist(), *inside.tolist()]) == list(range(len(labels)))
        assert np.all(np.diff(rest) > 0)
        assert np.all(np.diff(inside) > 0)
        held_out.append(inside)
    assert sorted(np.concatenate(held_out).tolist()) == list(range(len(labels)))
    per_class = np.array([np.bincount(labels[one], minlength=len(counts)) for one in held_out])
    assert np.all(per_class.max(0) - per_class.min(0) <= 1)


def test_the_folds_depend_on_the_seed_only() -> None:
    labels = np.arange(200) % 4
    config = DataConfig(folds=5, fold=2)
    first, again, other = (take_fold(config, labels, seed)[1].tolist() for seed in (1, 1, 2**62))
    assert first == again
    assert first != other


def test_a_rare_class_must_reach_every_fold() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    with pytest.raises(UserError, match=r"data\.folds: 4 folds need .* found 3 of class 1"):
        take_fold(DataConfig(folds=4, fold=1), labels, 0)


def test_a_fold_takes_the_place_of_the_test_images() -> None:
    whole = load(DataConfig(name="digits", validation_size=0), 0)
    fold = load(DataConfig(name="digits", validation_size=0, folds=4, fold=3), 0)
    labels = whole.train.targets.numpy()
    rest, inside = take_fold(DataConfig(folds=4, fold=3), labels, 0)
    assert np.array_equal(fold.test.pictures(np.arange(len(inside))), whole.train.pictures(inside))
    assert np.array_equal(fold.train.targets.numpy(), labels[rest])
    # The scaling must not know the fold.
    scaled = whole.train.pictures(rest)
    assert fold.scaling.mean.item() == pytest.approx(scaled.mean(), rel=1e-6)


def test_validation_images_come_from_the_other_folds() -> None:
    fold = load(DataConfig(name="digits", train_size=400, folds=4, fold=1), 0)
    assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [270, 30, 100]
