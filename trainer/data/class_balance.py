"""Classes of unequal size: how frequent each is in training, and the weights that follow.

Three ways to give rare classes their due are built on it: weights of the classes in the loss, the
adjustment of the logits, and, in `sampling`, how often each class is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.base import portable_math
from trainer.base.errors import UserError
from trainer.config.schema import RunConfig
from trainer.data import label_matrix
from trainer.data.dataset import Dataset

Floats = npt.NDArray[np.float64]

BETA = 0.9999
"""of the effective number of images"""

RARE_SHARE = 0.1
"""of the images of the largest class: a class with fewer is said to be rare"""

_MOST_NAMES = 5


def expected_counts(dataset: Dataset) -> Floats:
    """Return how many images of each class an epoch trains on, float64 (classes,).

    Where images are drawn by weights, it is the mean over many epochs.
    """
    targets = dataset.train.targets.cpu().numpy()
    counts = np.bincount(targets, dataset.train_weights, len(dataset.class_names))
    expected: Floats = counts * (len(targets) / counts.sum())
    return expected


def class_weights(config: RunConfig, dataset: Dataset) -> Floats | None:
    """Return the weight of each class in the loss, float64 (classes,); None: all alike.

    The weights of `auto` are one over the effective number of the class's images,
    (1 - BETA^n) / (1 - BETA): Cui, Jia, Lin, Song, Belongie: Class-Balanced Loss Based on Effective
    Number of Samples, CVPR 2019, equation 2. Their scale does not matter.

    Raises:
        UserError: there are other classes than weights, or only such of weight 0 have images.
    """
    wanted = config.train.class_weights
    if wanted is None or config.data.multi_label:
        return None
    counts = expected_counts(dataset)
    if wanted == "auto":
        numbers = [1.0 - portable_math.power(BETA, max(count, 1.0)) for count in counts.tolist()]
        return np.array([numbers[0] / number for number in numbers])
    _check_number(wanted, dataset.class_names)
    weights = np.array(wanted, np.float64)
    if not weights[counts > 0].any():
        raise UserError(
            "train.class_weights: all classes with training images have the weight 0; some must be "
            "above"
        )
    return weights


def positive_weights(config: RunConfig, dataset: Dataset) -> list[float] | None:
    """Return what each label counts where an image has it; None: as much as where it has not.

    They are `train.class_weights` of images with several labels. Those of `auto` are the number of
    images without the label over that of images with it, as the documentation of torch's
    BCEWithLogitsLoss suggests for pos_weight; of a label that no image has it is 1.

    Raises:
        UserError: there are other labels than weights.
    """
    wanted = config.train.class_weights
    if wanted is None or not config.data.multi_label:
        return None
    if wanted == "auto":
        count = len(dataset.train)
        counts = label_matrix.count_images(dataset.train.targets.cpu().numpy(), 0).tolist()
        return [(count - one) / one if 0 < one < count else 1.0 for one in counts]
    _check_number(wanted, dataset.class_names)
    return [float(weight) for weight in wanted]


def _check_number(weights: Sequence[float], names: Sequence[str]) -> None:
    if len(weights) != len(names):
        raise UserError(
            f"train.class_weights: {len(weights)} weights for {len(names):,} classes; give one for "
            f"each, in the order {_join(names)}"
        )


def logit_adjustment(config: RunConfig, dataset: Dataset) -> list[float] | None:
    """Return what is added to each class's logit in training; None: nothing.

    It is the logarithm of the class's share of the training images, times train.logit_adjustment:
    Menon, Jayasumana, Rawat, Jain, Veit, Kumar: Long-Tail Learning via Logit Adjustment, ICLR 2021,
    equation 10. A class without images counts as if it had one.
    """
    strength = config.train.logit_adjustment
    if not strength:
        return None
    counts = expected_counts(dataset)
    total = counts.sum()
    return [strength * math.log(max(count, 1.0) / total) for count in counts.tolist()]


def find_warnings(config: RunConfig, dataset: Dataset) -> tuple[str, ...]:
    """Return a warning if a class is rare and the configuration does nothing about it."""
    attends = config.train.class_weights or config.train.logit_adjustment
    if attends or config.data.sampling != "uniform":
        return ()
    found = describe_imbalance(dataset)
    return () if found is None else (found,)


def describe_imbalance(dataset: Dataset) -> str | None:
    """Say which classes have less than a tenth of the largest one's images; None if none has."""
    class_names, targets = dataset.class_names, dataset.train.targets
    several = targets.ndim == 2  # labels of an image
    found_counts = targets.sum(0) if several else targets.bincount(minlength=len(class_names))
    counts: list[int] = found_counts.tolist()
    largest = max(counts)
    rare = [place for place, count in enumerate(counts) if 0 < count < RARE_SHARE * largest]
    if not rare:
        return None
    rare.sort(key=lambda place: counts[place])
    found = [f"{class_names[place]} {counts[place]:,}" for place in rare[:_MOST_NAMES]]
    more = f" and {len(rare) - _MOST_NAMES:,} other classes less than a tenth"
    keys = "train.class_weights: auto helps"
    if not several:
        keys = (
            "train.logit_adjustment: 1, train.class_weights: auto or data.sampling: balanced help"
        )
    return (
        f"rare classes: {class_names[counts.index(largest)]} has {largest:,} training images, "
        f"{', '.join(found)}{more if len(rare) > _MOST_NAMES else ''}; a network overlooks such "
        f"classes, and {keys} (docs/rare_classes.md)"
    )


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown}, ..."
