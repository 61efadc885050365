"""Make a data set of a source: check it and divide it, and let it be measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data import contamination, measurements, near_copies
from trainer.data.augment.policy import check_channels
from trainer.data.dataset import Dataset, Images, ImageSet
from trainer.data.scaling import choose_scaling, fixed_scaling
from trainer.data.sources import reading
from trainer.data.sources.source_data import Cached, LabelledImages, SourceData, Subset, check
from trainer.data.split import Indices, split, take, take_fold
from trainer.ranks import processes


def load(config: DataConfig, seed: int) -> Dataset:
    """Read the data set, divide it and fit the scaling.

    Args:
        seed: the run's; the folds and the stratified draw of the validation images depend on it.

    Raises:
        UserError: a file is missing, damaged or not what it should be, or a size is impossible.
    """
    return build_dataset(config, seed, reading.read(config))[0]


def build_dataset(
    config: DataConfig, seed: int, source: SourceData
) -> tuple[Dataset, tuple[Subset, Subset, Subset]]:
    """Make a data set from a source; return it with the images of its train, validation and test.

    Raises:
        UserError: as `load`.
    """
    class_names = check(source)
    subsets = divide(config, source, seed, class_names)
    sets = tuple(image_set(subset.select()) for subset in subsets)
    channels = sets[0].images.shape[1]
    check_channels(config.augment, channels)
    kind = choose_scaling(config.scaling, channels)
    fixed = fixed_scaling(kind, config.mean, config.deviation, channels)
    found = measurements.measure(sets, kind, seed, name_choice(subsets), fixed)
    fingerprint, weights = found.fingerprint, _weights_to_draw_by(config, subsets[0])
    if weights is not None:
        content = fingerprint.encode() + weights.astype("<f8").tobytes()
        fingerprint = hashlib.sha256(content).hexdigest()
    dataset = Dataset(
        name=config.name,
        class_names=class_names,
        train=sets[0],
        validation=sets[1],
        test=sets[2],
        scaling=found.scaling,
        fingerprint=fingerprint,
        source=source.origin
        + (f", fold {config.fold} of {config.folds} for the test" if config.folds else ""),
        grey_range=source.grey_range,
        train_weights=weights,
        warnings=_warnings(subsets),
    )
    return dataset, subsets


def _warnings(subsets: tuple[Subset, Subset, Subset]) -> tuple[str, ...]:
    """Return what the user should know of the images, which one process says for all."""
    if processes.launched_rank() > 0:
        return ()
    cached = name_choice(subsets)
    looks = near_copies.load(cached) if cached else None
    near = () if looks is None else contamination.describe_near(*subsets, looks)
    return (*contamination.describe(*subsets), *near)


def _weights_to_draw_by(config: DataConfig, train: Subset) -> npt.NDArray[np.float64] | None:
    """Return the weights of the training images; None where each comes once in an epoch."""
    if config.sampling != "weights":
        return None
    if train.data.weights is None:
        raise UserError(
            f"data.sampling: {config.sampling} needs a table with a column of weights "
            f"(data.weight_column); {config.root} has none"
        )
    weights = train.data.weights[train.positions]
    if not weights.any():
        raise UserError(
            f"data.sampling: all weights of the {len(weights):,} training images are 0; some must "
            "be above"
        )
    return weights


def divide(
    config: DataConfig, source: SourceData, seed: int, class_names: Sequence[str] | None
) -> tuple[Subset, Subset, Subset]:
    """Choose the images to train on, to validate on and to test on.

    Args:
        class_names: for messages; None: the numbers.

    Raises:
        UserError: there are fewer images than asked for, or they cannot be divided like this.
    """
    labels, groups = source.train.labels, source.train.groups
    if labels.ndim == 1:
        labels = labels.astype(np.int64)
    used = take("data.train_size", config.train_size, len(labels))
    if config.folds is None:
        size = take("data.test_size", config.test_size, len(source.test.labels))
        rest, test = np.arange(used), Subset("test", source.test, np.arange(size))
    else:
        chosen_groups = None if groups is None else groups[:used]
        rest, fold = take_fold(config, labels[:used], seed, class_names, chosen_groups)
        test = Subset("train", source.train, fold)
    if source.validation is None:
        chosen_groups = None if groups is None else groups[rest]
        train, validation = split(config, labels[rest], seed, class_names, chosen_groups)
        held_out = Subset("train", source.train, rest[validation])
        return Subset("train", source.train, rest[train]), held_out, test
    wanted, found = config.validation_size, len(source.validation.labels)
    chosen = 0 if wanted == 0 else take("data.validation_size", wanted, found)
    held_out = Subset("validation", source.validation, np.arange(chosen))
    return Subset("train", source.train, rest), held_out, test


def load_training(config: DataConfig) -> tuple[ImageSet, Indices | None]:
    """Read all training images that are used, in file order, before they are divided.

    Returns:
        The images, and the numbers of their groups, int64 (n,); None if there are no groups.

    Raises:
        UserError: as `load`.
    """
    source = reading.read(config)
    check(source)
    used = take("data.train_size", config.train_size, len(source.train.labels))
    chosen = source.train.select(np.arange(used))
    return image_set(chosen), chosen.groups


def image_set(data: LabelledImages) -> ImageSet:
    """Convert images and labels to what a model is trained or evaluated on."""
    kind = np.int64 if data.labels.ndim == 1 else np.uint8
    targets = torch.from_numpy(data.labels.astype(kind))
    if not isinstance(data.images, np.ndarray):
        return ImageSet(cast("Images", data.images), targets)
    images = torch.from_numpy(data.images)
    # A single channel leaves the strides open, and torch takes one choice for channels_last.
    return ImageSet(images.flatten().view(images.shape), targets)


def name_choice(subsets: Sequence[Subset]) -> Cached | None:
    """Return where the cache has the chosen images; None if it has not all of them."""
    digest, first = hashlib.sha256(), subsets[0].data.cached
    for subset in subsets:
        cached = subset.data.cached
        if cached is None:
            return None
        digest.update(f"{subset.split}/{cached.name}/{len(subset.positions)}/".encode())
        digest.update(subset.positions.astype("<i8").data)
    return first and Cached(digest.hexdigest(), first.notes)
