"""Choose the training images that are held out, for validation or as a fold.

Images that may have several labels are drawn by their strata, as `label_matrix` has them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data import label_matrix
from trainer.data.group_folds import divide_groups
from trainer.data.label_matrix import Labels

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
    labels: Labels,
    seed: int,
    class_names: Sequence[str] | None = None,
    groups: Indices | None = None,
) -> tuple[Indices, Indices]:
    """Return the positions of the images outside and inside of fold `data.fold`, in file order.

    Every image is in one fold, and each class is spread over the folds as evenly as possible. A
    group is in one fold too.

    Args:
        config: with `folds` and `fold`.
        labels: the classes of the images to divide, int64 (n,), or uint8 (n, classes).
        class_names: for messages; None: the numbers.
        groups: the numbers of their groups, int64 (n,); None: each image is its own.

    Raises:
        UserError: a class has fewer images than there are folds, or there are too few groups.
    """
    assert config.folds is not None and config.fold is not None
    counts = label_matrix.count_images(labels, 0)
    classes = np.flatnonzero(counts)
    counts = counts[classes]
    if len(counts) and counts.min() < config.folds:
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
    strata = label_matrix.strata(labels, least=config.folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a stratum with fewer images than folds
        rest, held_out = list(divided.split(strata, strata))[config.fold - 1]
    if (lost := label_matrix.first_lacking(labels, rest)) is not None:
        raise UserError(_lost_message(config.fold, lost, class_names))
    return rest, held_out


def split(
    config: DataConfig,
    labels: Labels,
    seed: int,
    class_names: Sequence[str] | None = None,
    groups: Indices | None = None,
) -> tuple[Indices, Indices]:
    """Return the positions of the training and of the validation images, both in file order.

    Without `data.validation_size` a tenth is held out. Where that is too few for a stratified draw
    of every class, it becomes enough for one of each class that has two. Of groups whole ones are
    held out, about as many images as that, stratified as far as possible.

    Args:
        labels: the classes of the images to divide, int64 (n,), or uint8 (n, classes).
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
    strata = label_matrix.strata(labels)
    counts = np.unique(strata, return_counts=True)[1]
    one_of_each = size is None and counts.max() > 1 and (counts.min() < 2 or held_out < len(counts))
    if not one_of_each and labels.ndim == 1:
        _check_stratified(strata, held_out, class_names)
    keep_single = labels.ndim == 2
    validation = _draw_stratified(
        strata, held_out, seed, one_of_each=one_of_each, keep_single=keep_single
    )
    return np.setdiff1d(positions, validation, assume_unique=True), validation


def _draw_stratified(
    labels: Indices, held_out: int, seed: int, *, one_of_each: bool, keep_single: bool
) -> Indices:
    """Draw `held_out` images, of each class by its share; return their positions in file order.

    Shares are rounded by largest remainders, and ties are broken at random. scikit-learn is not
    used, because its import takes as long as that of torch before the first step of every run.

    Args:
        one_of_each: draw at least one of every class, but none of a class with only one.
        keep_single: draw a class with only one image last.
    """
    generator = seeding.generator(seed, "split")
    classes, counts = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(counts * held_out, len(labels))
    shuffled = generator.permutation(len(classes))
    if keep_single:
        remainders = np.where(counts > 1, remainders, -1)
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
    labels: Labels,
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
    strata = label_matrix.strata(labels)
    fold_of = divide_groups(folds, strata, groups, seeding.integer(seed, "folds"))
    rest, held_out = np.flatnonzero(fold_of != fold - 1), np.flatnonzero(fold_of == fold - 1)
    if not len(held_out):
        raise UserError(
            f"data.folds: the {found} groups of training images cannot be divided into {folds} "
            f"folds, fold {fold} would be empty; use fewer folds"
        )
    if (lost := label_matrix.first_lacking(labels, rest)) is not None:
        raise UserError(
            f"{_lost_message(fold, lost, class_names)}; its images must be of more groups, best of "
            f"{folds}, the number of folds"
        )
    return rest, held_out


def _lost_message(fold: int, lost: int, class_names: Sequence[str] | None) -> str:
    return (
        f"data.folds: fold {fold} has all images of class {_name(lost, class_names)}, so that "
        "none are left to train on"
    )


def _hold_groups_out(
    config: DataConfig,
    held_out: int,
    labels: Labels,
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
    strata = label_matrix.strata(labels)
    fold_of = divide_groups(folds, strata, groups, seeding.integer(seed, "split"))
    inside = label_matrix.count_by_fold(labels, fold_of, folds)
    inside = inside[:, inside.any(0)]
    in_all, sizes = inside.sum(0), np.bincount(fold_of, minlength=folds)
    if not is_small:
        inside, sizes = in_all - inside, len(labels) - sizes
    usable = np.flatnonzero(inside.any(1) & (inside < in_all).all(1))
    if not len(usable):
        lost = label_matrix.first_lacking(labels, (fold_of != 0) == is_small)
        named = "some class" if lost is None else f"class {_name(lost, class_names)}"
        raise UserError(
            f"data.validation_size: none of the divisions by groups leaves images of {named} to "
            "train on; its images must be of at least 2 groups, or hold out 0"
        )
    # Of those that the seed has made, the one with most classes, then the nearest size.
    has = (inside[usable] > 0).sum(1)
    best = usable[np.lexsort((np.abs(sizes[usable] - held_out), -has))[0]]
    is_held_out = (fold_of == best) == is_small
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


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
