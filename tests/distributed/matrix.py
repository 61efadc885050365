"""Build a set of small runs in which every pair of the parts of a run occurs together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

Combination = dict[str, Any]

# The arguments that make each family small, and whether it has dropout to vary.
FAMILIES: dict[str, tuple[Combination, bool]] = {
    "lab_cnn": ({}, False),
    "lenet5": ({}, False),
    "alexnet_small": ({}, True),
    "vgg_small": ({"widths": [8, 16]}, True),
    "preact_resnet": ({"depth": 8, "width": 8}, False),
    "wide_resnet": (
        {"depth": 10, "widen_factor": 1, "drop_path": 0.3, "squeeze_excitation": True},
        True,
    ),
    "quicknet": ({"widths": [8, 16, 16]}, True),
    "airbench": ({"widths": [8, 16], "residual": True}, False),
    "resnet_d": (
        {"widths": [8, 16], "blocks": [1, 1], "drop_path": 0.3, "squeeze_excitation": True},
        True,
    ),
}
OPTIMIZERS = ["sgd", "adam", "adamw", "rmsprop", "muon"]
PARTS: dict[str, list[Any]] = {
    "dropout": [0.0, 0.3],
    "data.augment": ["none", "shift", "flip_shift_cutout", "rotate_crop_erase"],
    "data.mixup": [0.0, 0.4],
    "data.cutmix": [0.0, 1.0],
    "train.microbatches": [4, 8],
    "schedule.name": ["constant", "linear", "cosine"],
    "train.clip_norm": [None, 1.0],
    "train.ema_decay": [None, 0.9],
    "train.label_smoothing": [0.0, 0.1],
}


def pairs(combination: Combination) -> set[Any]:
    """Return every two of its values, with their names."""
    return set(combinations(sorted(combination.items()), 2))


def matrix() -> list[Combination]:
    """Combine every family with every optimiser; each takes the parts that add most new pairs."""
    covered: set[Any] = set()
    chosen = []
    for family, optimizer in product(FAMILIES, OPTIMIZERS):
        base = {"model.name": family, "optimizer.name": optimizer}
        candidates = [
            base | dict(zip(PARTS, values, strict=True))
            for values in product(*PARTS.values())
            if FAMILIES[family][1] or not values[0]
        ]
        best = max(candidates, key=lambda candidate: len(pairs(candidate) - covered))
        covered |= pairs(best)
        chosen.append(best)
    return chosen


def runs_of(combinations: Sequence[Combination], folder: Path) -> list[dict[str, Any]]:
    """Return the configuration keys of each combination.

    Args:
        folder: where images are put for a family that needs larger ones.
    """
    larger = _save_larger_digits(folder)
    return [
        _changes(each) | (larger if each["model.name"] == "lenet5" else {}) for each in combinations
    ]


def _save_larger_digits(folder: Path) -> dict[str, Any]:
    """Save the digits at 16 x 16 pixels, as LeNet-5 needs more than 8 x 8; return its keys."""
    digits = load_digits()
    images = np.kron(digits.images * 15, np.ones((1, 2, 2))).astype(np.uint8)
    for part, place in (("train", slice(300)), ("test", slice(300, 400))):
        np.save(folder / f"digits_{part}_features.npy", images[place])
        np.save(folder / f"digits_{part}_targets.npy", digits.target[place])
    return {"data.name": "npy", "data.root": str(folder)}


def _changes(combination: Combination) -> dict[str, Any]:
    keys = dict(combination)
    arguments, has_dropout = FAMILIES[keys["model.name"]]
    dropout = keys.pop("dropout")
    keys["model.args"] = arguments | ({"dropout": dropout} if has_dropout else {})
    return keys
