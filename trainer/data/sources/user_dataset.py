"""Read a user's data set: a function that returns arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.config import plugins
from trainer.config.schema import DataConfig
from trainer.data.sources import npy
from trainer.data.sources.source_data import LabelledImages, SourceData


@dataclass(frozen=True, eq=False)
class OwnImages:
    """What a registered data set returns; the trainer divides, scales and fingerprints it.

    Args:
        train_images: whole numbers 0 to 255, (n, height, width) or (n, height, width,
            channels).
        train_labels: integers (n,), classes counted from 0; with data.multi_label 0 or 1,
            (n, classes).
        test_images: likewise, of the same height and width.
        test_labels: likewise.
        class_names: None: the numbers.
    """

    train_images: npt.ArrayLike
    train_labels: npt.ArrayLike
    test_images: npt.ArrayLike
    test_labels: npt.ArrayLike
    class_names: Sequence[str] | None = None


def read(config: DataConfig) -> SourceData:
    """Call the function that `data.name` stands for and read the arrays that it returns.

    Raises:
        UserError: the function fails, or returns something other than images and labels.
    """
    plugin = plugins.find("dataset", config.name)
    with plugin.explain_errors():
        found = plugin.member(config.root)
    if not isinstance(found, OwnImages):
        raise plugin.error(f"must return trainer.api.OwnImages, found {type(found).__name__}")
    names = None if found.class_names is None else tuple(map(str, found.class_names))
    return SourceData(
        train=_part(config, "train", found.train_images, found.train_labels),
        test=_part(config, "test", found.test_images, found.test_labels),
        class_names=names,
        origin=f"the function {config.name}",
    )


def _part(
    config: DataConfig, part: str, images: npt.ArrayLike, labels: npt.ArrayLike
) -> LabelledImages:
    images_name, labels_name = (
        f"data.name: {config.name}, {part}_{what}" for what in ("images", "labels")
    )
    return LabelledImages(
        npy.to_images(_array(images, images_name), images_name),
        npy.to_labels(_array(labels, labels_name), labels_name, several=config.multi_label),
        images_name,
        labels_name,
    )


def _array(values: npt.ArrayLike, where: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:  # lists of unequal lengths
        raise UserError(f"{where}: not an array ({error})") from error
