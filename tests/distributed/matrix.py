"""Build a set of small runs in which every pair of the parts of a run occurs together."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

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


def changes(combination: Combination) -> dict[str, Any]:
    """Return the configuration keys of a combination."""
    keys = dict(combination)
    arguments, has_dropout = FAMILIES[keys["model.name"]]
    dropout = keys.pop("dropout")
    keys["model.args"] = arguments | ({"dropout": dropout} if has_dropout else {})
    return keys
