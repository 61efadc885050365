"""The cases: every family with every optimiser, and each feature of a run by itself.

A case is named after its group and its parts; `test_golden` checks that none is missing.
"""

from __future__ import annotations

from typing import Any, get_args

from tests.distributed.matrix import FAMILIES as MATRIX_FAMILIES
from trainer.config.augmentations import TRANSFORMS
from trainer.config.schema import OptimizerName, ScheduleName

Changes = dict[str, Any]

# The arguments that make each family small, and whether it has dropout.
FAMILIES: dict[str, tuple[Changes, bool]] = {**MATRIX_FAMILIES, "efficientnet_lite0": ({}, True)}
OPTIMIZERS = [name for name in get_args(OptimizerName) if name != "rmsprop"]

COMMON: Changes = {
    "data.name": "golden_images",
    "data.validation_size": 10,
    "train.kernels": "portable",
    "train.epochs": 1,
    "train.batch_size": 24,
    "train.microbatches": 4,
    "optimizer.lr": 0.01,
    "optimizer.weight_decay": 0.01,
    "threads": 1,
}
SMALL: Changes = {
    "model.name": "quicknet",
    "model.args": {"widths": [8, 16]},
    "optimizer.name": "muon",
}

FEATURES: dict[str, Changes] = {
    "agc": {"train.clip_norm": 0.01, "train.clip_mode": "agc"},
    "amsgrad": {"optimizer.name": "adam", "optimizer.args": {"amsgrad": True}},
    "average": {"train.average_epochs": 1, "train.epochs": 2},
    "cached_features": {"train.freeze": "backbone", "train.cache_features": True},
    "clip_norm": {"train.clip_norm": 0.1},
    "clip_value": {"train.clip_norm": 0.01, "train.clip_mode": "value"},
    "contiguous": {"train.memory_format": "contiguous"},
    "cutmix": {"data.cutmix": 1.0},
    "dampening": {
        "optimizer.name": "sgd",
        "optimizer.nesterov": False,
        "optimizer.args": {"dampening": 0.1},
    },
    "ema": {"train.ema_decay": 0.9},
    "evaluation_batch_size": {"train.evaluation_batch_size": 7},
    "freeze": {"train.freeze": "backbone", "train.unfreeze_epoch": 2, "train.epochs": 2},
    "groups": {
        "optimizer.layer_decay": 0.7,
        "optimizer.groups": {"backbone": {"lr_factor": 0.5, "weight_decay": 0.1}},
    },
    "microbatches": {"train.microbatches": 6},
    "mixup": {"data.mixup": 0.4},
    "radam": {"optimizer.name": "torch:RAdam"},
    "sam": {"train.sam_rho": 0.05},
    "scaling_global": {"data.scaling": "global"},
    "scaling_imagenet": {"data.scaling": "imagenet"},
    "scaling_per_pixel": {"data.scaling": "per_pixel"},
    "smoothing": {"train.label_smoothing": 0.1},
    "test_augment": {"data.test_augment": "flip"},
}

SEVERAL_LABELS: Changes = {"data.name": "golden_labels", "data.multi_label": True}

# Each loss, and what is done about classes of unequal size.
LOSSES: dict[str, Changes] = {
    "cross_entropy": {"train.label_smoothing": 0.1, "data.mixup": 0.4},
    "focal": {"train.loss_args": {"gamma": 1.5}, "train.label_smoothing": 0.1},
    "bce": {"train.label_smoothing": 0.1},
    "asymmetric": {"train.loss_args": {"gamma_positive": 0.5, "gamma_negative": 3.5}},
}
UNEQUAL_CLASSES: dict[str, Changes] = {
    "auto_weights": {"train.class_weights": "auto"},
    "weights": {"train.class_weights": [1.0, 4.5, 0.3, 2.0], "train.loss": "focal"},
    "adjustment": {"train.logit_adjustment": 1.3},
    "adjustment_by_auc": {"train.logit_adjustment": 1.0, "train.choose_by": "auc"},
    "balanced": {"data.sampling": "balanced", "train.choose_by": "macro_f1"},
    "calibrated": {"train.class_weights": "auto", "train.calibrate": True},
    "labels_bce": SEVERAL_LABELS | {"train.loss": "bce", "train.class_weights": "auto"},
    "labels_asymmetric": SEVERAL_LABELS
    | {"train.loss": "asymmetric", "train.label_smoothing": 0.1, "data.mixup": 0.4},
}

SCHEDULES: dict[str, Changes] = {
    "constant": {},
    "cosine": {"final_fraction": 0.01},
    "linear": {"final_fraction": 0.1},
    "one_cycle": {},
    "piecewise": {"milestones": [4, 5.5], "factor": 0.2},
    "plateau": {"plateau_epochs": 1, "factor": 0.3},
    "polynomial": {"power": 0.9},
    "restarts": {"cycle_epochs": 1.5, "cycle_factor": 1.3},
}
assert set(SCHEDULES) == set(get_args(ScheduleName))

LIST_TRANSFORMS = (
    "random_resized_crop crop flip vertical_flip alternating_flip shift rotate colour_jitter grey "
    "blur trivial_augment_wide rand_augment aug_mix cutout erase"
).split()

ORDERS = "uniform balanced weights".split()
"""of the samples of an epoch: the values of data.sampling"""

FIGURES = "classes many_classes labels".split()
"""of test images, with their intervals"""

INTERPOLATIONS = "nearest box bilinear hamming bicubic lanczos".split()


def training_cases() -> dict[str, Changes]:
    """Return the configuration of each case that trains a network for a few steps."""
    found: dict[str, Changes] = {}
    for family, (arguments, has_dropout) in FAMILIES.items():
        for optimizer in OPTIMIZERS:
            found[f"train.{family}.{optimizer}"] = {
                "model.name": family,
                "model.args": arguments | ({"dropout": 0.3} if has_dropout else {}),
                "optimizer.name": optimizer,
                "data.augment": "flip_shift_cutout",
                "schedule.name": "cosine",
            }
    found |= {f"feature.{name}": SMALL | changes for name, changes in FEATURES.items()}
    found |= {
        f"loss.{name}": SMALL | {"train.loss": name} | changes for name, changes in LOSSES.items()
    }
    unequal = SMALL | {"data.name": "golden_rare", "train.epochs": 2}
    found |= {f"classes.{name}": unequal | changes for name, changes in UNEQUAL_CLASSES.items()}
    return {name: COMMON | changes for name, changes in found.items()}


def names() -> list[str]:
    """Return the names of all cases."""
    return [
        *training_cases(),
        *(f"schedule.{name}" for name in SCHEDULES),
        *(f"transform.{name}" for name in TRANSFORMS),
        *(f"list.{name}" for name in LIST_TRANSFORMS),
        *(f"picture.{name}" for name in INTERPOLATIONS),
        "distillation",
        *(f"order.{name}" for name in ORDERS),
        *(f"figures.{name}" for name in FIGURES),
    ]
