"""Choose the training images that are held out, for validation or as a fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.group_folds import divide_groups

Indices = npt.NDArray[np.int64]

_MOST_FOLDS = 1000
"""of which one is held out: fewer groups than a thousandth of the images never are"""


def take(key: str, size: int | None, found: int) -> int:
    """Return how many images to use of those found; null means all.

    Raises:
        UserError: there are fewer than asked for.
    """
    if size is None:
        return found
    if not 1 <= size <= found:
        raise UserError(f"{key}: {size} images asked for; there are {found}, so 1 to {found}")
    return size


def take_fold(
    config: DataConfig,
    labels: Indices,
    seed: int,
    class_names: Sequence[str] | None = None,
    groups: Indices | None = None,
) -> tuple[Indices, Indices]:
    """Return the positions of the images outside and inside of fold `data.fold`, in file order.

    Every image is in one fold, and each class is spread over the folds as evenly as possible. A
    group is in one fold too.

    Args:
        config: with `folds` and `fold`.
        labels: the classes of the images to divide, int64 (n,).
        class_names: for messages; None: the numbers.
        groups: the numbers of their groups, int64 (n,); None: each image is its own.

    Raises:
        UserError: a class has fewer images than there are folds, or there are too few groups.
    """
    assert config.folds is not None and config.fold is not None
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < config.folds:
        raise UserError(
            f"data.folds: {config.folds} folds need as many training images of every class, found "
            f"{counts.min()} of class {_name(classes[counts.argmin()], class_names)}; use fewer "
            "folds, or more images"
        )
    if groups is not None:
        return _take_group_fold(config.folds, config.fold, labels, groups, seed, class_names)
    from sklearn.model_selection import StratifiedKFold  # as slow to import as torch

    state = seeding.integer(seed, "folds") % 2**32  # scikit-learn takes no larger one
    divided = StratifiedKFold(config.folds, shuffle=True, random_state=state)
    rest, held_out = list(divided.split(labels, labels))[config.fold - 1]
    return rest, held_out


def split(
    config: DataConfig,
    labels: Indices,
    seed: int,
    class_names: Sequence[str] | None = None,
    groups: Indices | None = None,
) -> tuple[Indices, Indices]:
    """Return the positions of the training and of the validation images, both in file order.

    Without `data.validation_size` a tenth is held out. Where that is too few for a stratified draw
    of every class, it becomes enough for one of each class that has two. Of groups whole ones are
    held out, about as many images as that, stratified as far as possible.

    Args:
        labels: the classes of the images to divide, int64 (n,).
        class_names: for messages; None: the numbers.
        groups: the numbers of their groups, int64 (n,); None: each image is its own.

    Raises:
        UserError: the validation set cannot be of this size.
    """
    count = len(labels)
    size = config.validation_size
    # 10 % in whole numbers, half up.
    held_out = (count + 5) // 10 if size is None else size
    if not 0 <= held_out < count:
        raise UserError(
            f"data.validation_size: {held_out} of {count} training images leave none to train on; "
            f"0 to {count - 1} can be held out"
        )
    positions = np.arange(count, dtype=np.int64)
    if groups is not None and held_out > 0:
        return _hold_groups_out(config, held_out, labels, groups, seed, class_names)
    if config.validation == "first" or held_out == 0:
        return positions[held_out:], positions[:held_out]
    counts = np.unique(labels, return_counts=True)[1]
    one_of_each = size is None and counts.max() > 1 and (counts.min() < 2 or held_out < len(counts))
    if not one_of_each:
        _check_stratified(labels, held_out, class_names)
    validation = _draw_stratified(labels, held_out, seed, one_of_each=one_of_each)
    return np.setdiff1d(positions, validation, assume_unique=True), validation


def _draw_stratified(labels: Indices, held_out: int, seed: int, *, one_of_each: bool) -> Indices:
    """Draw `held_out` images, of each class by its share; return their positions in file order.

    Shares are rounded by largest remainders, and ties are broken at random. scikit-learn is not
    used, because its import takes as long as that of torch before the first step of every run.

    Args:
        one_of_each: draw at least one of every class, but none of a class with only one.
    """
    generator = seeding.generator(seed, "split")
    classes, counts = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(counts * held_out, len(labels))
    shuffled = generator.permutation(len(classes))
    fullest = shuffled[np.argsort(-remainders[shuffled], kind="stable")]
    quotas[fullest[: held_out - quotas.sum()]] += 1
    if one_of_each:
        quotas = np.where(counts > 1, quotas.clip(min=1), 0)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    drawn = [
        generator.permutation(positions)[:quota]
        for positions, quota in zip(by_class, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _take_group_fold(
    folds: int,
    fold: int,
    labels: Indices,
    groups: Indices,
    seed: int,
    class_names: Sequence[str] | None,
) -> tuple[Indices, Indices]:
    """Return the positions outside and inside of a fold of whole groups."""
    found = len(np.unique(groups))
    if found < folds:
        raise UserError(
            f"data.folds: {folds} folds need as many groups of training images, found {found}; use "
            "fewer folds"
        )
    fold_of = divide_groups(folds, labels, groups, seeding.integer(seed, "folds"))
    rest, held_out = np.flatnonzero(fold_of != fold - 1), np.flatnonzero(fold_of == fold - 1)
    if not len(held_out):
        raise UserError(
            f"data.folds: the {found} groups of training images cannot be divided into {folds} "
            f"folds, fold {fold} would be empty; use fewer folds"
        )
    if (lost := _first_lost(labels, rest)) is not None:
        raise UserError(
            f"data.folds: fold {fold} has all images of class {_name(lost, class_names)}, so that "
            f"none are left to train on; its images must be of more groups, best of {folds}, the "
            "number of folds"
        )
    return rest, held_out


def _hold_groups_out(
    config: DataConfig,
    held_out: int,
    labels: Indices,
    groups: Indices,
    seed: int,
    class_names: Sequence[str] | None,
) -> tuple[Indices, Indices]:
    """Return the positions of the training and of the validation images, of whole groups."""
    if config.validation == "first":
        raise UserError(
            "data.validation: must be stratified where data.groups or the table has groups; the "
            "first images need not be whole groups"
        )
    found = len(np.unique(groups))
    if found < 2:
        raise UserError(
            f"data.validation_size: all {len(labels):,} training images are of one group, so none "
            "can be held out but 0"
        )
    is_small = 2 * held_out <= len(labels)
    share = min(held_out, len(labels) - held_out) / len(labels)
    folds = min(found, max(2, round(1 / share)), _MOST_FOLDS)
    fold_of = divide_groups(folds, labels, groups, seeding.integer(seed, "split"))
    numbers, in_all = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    classes = len(in_all)
    in_folds = np.bincount(fold_of * classes + numbers, minlength=folds * classes)
    inside = in_folds.reshape(folds, classes)
    inside = inside if is_small else in_all - inside
    usable = np.flatnonzero(inside.any(1) & (inside < in_all).all(1))
    if not len(usable):
        lost = _first_lost(labels, np.flatnonzero((fold_of != 0) == is_small))
        named = "some class" if lost is None else f"class {_name(lost, class_names)}"
        raise UserError(
            f"data.validation_size: none of the divisions by groups leaves images of {named} to "
            "train on; its images must be of at least 2 groups, or hold out 0"
        )
    # Of those that the seed has made, the one with most classes, then the nearest size.
    sizes, has = inside[usable].sum(1), (inside[usable] > 0).sum(1)
    best = usable[np.lexsort((np.abs(sizes - held_out), -has))[0]]
    is_held_out = (fold_of == best) == is_small
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _first_lost(labels: Indices, kept: Indices) -> int | None:
    """Return the first class that has no image among those that are kept; None if all have."""
    lost = np.setdiff1d(labels, labels[kept])
    return int(lost[0]) if len(lost) else None


def _check_stratified(labels: Indices, held_out: int, class_names: Sequence[str] | None) -> None:
    """Check that a stratified draw has room for every class on both sides."""
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise UserError(
            f"data.validation: a stratified draw needs at least 2 training images of every class, "
            f"found {counts.min()} of class {_name(classes[counts.argmin()], class_names)}; use "
            "more training images, or data.validation: first"
        )
    most = len(labels) - len(classes)
    if not len(classes) <= held_out <= most:
        raise UserError(
            f"data.validation_size: a stratified draw of {held_out} out of {len(labels)} training "
            f"images of {len(classes)} classes is not possible; hold out 0"
            + (f" or {len(classes)} to {most}" if most >= len(classes) else "")
            + ", or use data.validation: first"
        )


def _name(label: int, class_names: Sequence[str] | None) -> str:
    return class_names[label] if class_names else str(label)
