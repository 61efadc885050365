"""Load images to evaluate a finished model on: those of its run, or others of the same classes.

The model knows classes by name. Other images may number them in another order, may have only some
of them, and may come without training images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig, RunConfig
from trainer.data import loading
from trainer.data.dataset import ImageSet
from trainer.data.label_matrix import Labels
from trainer.data.pictures.names import PARTS, join_some, normalize_class_name
from trainer.data.sources import reading
from trainer.data.sources.source_data import (
    LabelledImages,
    SourceData,
    SourceSplit,
    check_counts,
    check_range,
)
from trainer.data.split import take
from trainer.finished.run_record import are_images_of_run
from trainer.finished.trained_model import TrainedModel

By = Literal["name", "number", "position"]
"""how labels were matched with the model's classes"""


@dataclass(frozen=True, eq=False)
class EvaluationImages:
    """Images and what is known of them.

    Args:
        images: labelled with the model's numbers of their classes.
        classes_by: how these were found.
        fingerprint: `Dataset.fingerprint` of a run on this source; None if it has too little for a
            run.
        source: where the files came from, in words.
        labelled: the same images as they were read.
    """

    images: ImageSet
    classes_by: By
    fingerprint: str | None
    source: str
    labelled: LabelledImages


def load(stored: TrainedModel, config: RunConfig, split: str) -> EvaluationImages:
    """Load the images of a split; they are decoded or downloaded first if necessary.

    Args:
        config: its seed decides on what is held out of the training images.
        split: train, validation or test.

    Raises:
        UserError: there are no such images, or they do not fit the model's images or classes.
    """
    data = stored.fill_in(config.data)
    with reading.tables_kept():
        found, fingerprint = _read(data, config.seed, split)
        # Without parts a run keeps some pictures for the test; pictures of others are all for it.
        if split == "test" and not are_images_of_run(stored.file.parent, fingerprint, None):
            whole = reading.read_without_parts(data)
            found = _first(data, whole, split) if whole else found
    if not len(found.data.labels):
        raise UserError(f"--split: {split} has no images; data.validation_size is 0")
    return _fit(stored, found, fingerprint)


def load_parts(stored: TrainedModel, config: RunConfig) -> dict[str, EvaluationImages]:
    """Load the images of all parts that there are, by their names, as `load` does.

    Raises:
        UserError: as `load`.
    """
    data, seed = stored.fill_in(config.data), config.seed
    with reading.tables_kept():
        parts, fingerprint = _read_parts(data, seed)
    return {
        split: _fit(stored, found, fingerprint)
        for split, found in parts.items()
        if len(found.data.labels)
    }


def _read_parts(data: DataConfig, seed: int) -> tuple[dict[str, SourceSplit], str | None]:
    """Return all splits that there are, and the fingerprint as `_read` does."""
    try:
        source, fingerprint = _read_source(data, seed)
    except UserError:
        split_by_split = {split: reading.read_split(data, split) for split in PARTS}
        parts = {
            split: _first(data, found, split) for split, found in split_by_split.items() if found
        }
        if not parts:
            raise
        return parts, None
    subsets = loading.divide(data, source, seed, source.class_names)
    parts = {
        split: SourceSplit(subset.select(), source.class_names, source.origin)
        for split, subset in zip(PARTS, subsets, strict=True)
    }
    return parts, fingerprint


def _fit(stored: TrainedModel, found: SourceSplit, fingerprint: str | None) -> EvaluationImages:
    """Return images as a model takes them.

    Raises:
        UserError: they do not fit its images or classes.
    """
    if found.data.labels.ndim == 2 and stored.thresholds is None:
        raise UserError(
            f"data.multi_label: the images of {found.origin} may have several labels, and the "
            "model knows one class for each; it must be false"
        )
    if found.data.labels.ndim == 1 and stored.thresholds is not None:
        raise UserError(
            f"data.multi_label: the images of {found.origin} have one class each, and the model "
            "knows any number of labels; it must be true"
        )
    labels, by = match_labels(found, stored.class_names)
    images = loading.image_set(replace(found.data, labels=labels))
    shape, wanted = tuple(images.images.shape[1:]), (stored.channels, *stored.image_size)
    if shape != wanted:
        raise UserError(
            f"data.name, data.root: the images of {found.origin} are of (channels, height, width) "
            f"{shape}, and the model takes {wanted}"
        )
    return EvaluationImages(images, by, fingerprint, found.origin, found.data)


def _read(config: DataConfig, seed: int, split: str) -> tuple[SourceSplit, str | None]:
    """Return the split, and the fingerprint of the whole source if it is enough for a run."""
    try:
        source, fingerprint = _read_source(config, seed)
    except UserError:
        # Such a folder is not enough for a run, but the split may be there.
        found = reading.read_split(config, split)
        if found is None:
            raise
        return _first(config, found, split), None
    return _part(config, seed, source, split), fingerprint


def _read_source(config: DataConfig, seed: int) -> tuple[SourceData, str | None]:
    """Return the whole source, and its fingerprint if it is enough for a run."""
    reading.prepare(config, to_train=False)
    source = reading.read(config)
    for part in (source.train, source.validation, source.test):
        if part is not None:
            check_counts(part)
    try:
        fingerprint = loading.build_dataset(config, seed, source)[0].fingerprint
    except UserError:  # such as too few for a run, but enough to evaluate on
        fingerprint = None
    return source, fingerprint


def _first(config: DataConfig, found: SourceSplit, split: str) -> SourceSplit:
    """Return as many of a split's images as are asked for."""
    used = take(f"data.{split}_size", getattr(config, f"{split}_size"), len(found.data.labels))
    return replace(found, data=found.data.select(np.arange(used)))


def _part(config: DataConfig, seed: int, source: SourceData, split: str) -> SourceSplit:
    """Return a split of a source; for a test the source may be too small to be divided."""
    if split == "test" and config.folds is None:
        used = take("data.test_size", config.test_size, len(source.test.labels))
        chosen = source.test.select(np.arange(used))
    else:
        subsets = loading.divide(config, source, seed, source.class_names)
        chosen = subsets[PARTS.index(split)].select()
    return SourceSplit(chosen, source.class_names, source.origin)


# ---------------------------------------------------------------------- classes


def match_labels(found: SourceSplit, known: Sequence[str]) -> tuple[Labels, By]:
    """Return the labels of images as a model numbers its classes, and how they were matched.

    By name if the images have names for their classes. Otherwise a label is a number: it means the
    class whose name is that number or, if no class of the model is named by a number, the class at
    that position.

    Args:
        known: the model's classes, in its order.

    Raises:
        UserError: an image is of a class that the model does not know.
    """
    labels = found.data.labels
    several = labels.ndim == 2
    if found.class_names is not None:
        if not several:
            check_range(found.data, len(found.class_names))
        numbers = _by_name(found, known)
        by: By = "name"
    else:
        numbers, by = _by_number(known)
    distinct = np.flatnonzero(labels.any(0)) if several else np.unique(labels)
    ours = [numbers.get(label) for label in distinct.tolist()]
    if None in ours:
        unknown = [
            repr(found.class_names[label]) if found.class_names is not None else str(label)
            for label, number in zip(distinct.tolist(), ours, strict=True)
            if number is None
        ]
        raise UserError(_unknown(found, unknown, known, by))
    if several:
        matrix = np.zeros((len(labels), len(known)), np.uint8)
        matrix[:, np.array(ours, np.int64)] = labels[:, distinct]
        return matrix, by
    return np.array(ours, dtype=np.int64)[np.searchsorted(distinct, labels)], by


def _by_name(found: SourceSplit, known: Sequence[str]) -> dict[int, int]:
    """Return the model's numbers of the classes, by the images' numbers of them.

    One file system keeps a name as it was typed, another decomposes it: two Unicode forms are one
    name, and spaces at its ends do not count.
    """
    assert found.class_names is not None
    exact = {name: number for number, name in enumerate(known)}
    alike: dict[str, list[int]] = {}
    for name, number in exact.items():
        alike.setdefault(normalize_class_name(name), []).append(number)
    numbers = {}
    for label, name in enumerate(found.class_names):
        others = alike.get(normalize_class_name(name), [])
        if name in exact:
            numbers[label] = exact[name]
        elif len(others) == 1:
            numbers[label] = others[0]
    return numbers


def _by_number(known: Sequence[str]) -> tuple[dict[int, int], By]:
    """Return the model's numbers of the classes, by what a label without a name can mean."""
    named: dict[int, list[int]] = {}
    for number, name in enumerate(known):
        if re.fullmatch(r"-?[0-9]{1,18}", name):
            named.setdefault(int(name), []).append(number)
    if not named:
        return dict(enumerate(range(len(known)))), "position"
    exact = {name: number for number, name in enumerate(known)}
    # If classes are named 1 and 01, the label 1 means the former.
    numbers = {
        value: exact.get(str(value), numbers[0])
        for value, numbers in named.items()
        if len(numbers) == 1 or str(value) in exact
    }
    return numbers, "number"


def _unknown(found: SourceSplit, unknown: list[str], known: Sequence[str], by: By) -> str:
    some, several = join_some(unknown), len(unknown) > 1
    labels = f"has {'labels' if several else 'the label'} {some}"
    what = {
        "name": f"has images of {'classes' if several else 'the class'} {some}, which the model "
        "does not know",
        "number": f"{labels}, and no class of the model is that number",
        "position": f"{labels}, and the model's {len(known)} classes count from 0",
    }[by]
    return (
        f"data.name, data.root: {found.data.labels_file} {what}; it knows "
        f"{join_some([repr(name) for name in known])}"
    )
