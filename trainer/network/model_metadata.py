"""Read the metadata of a model.safetensors, which anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, describe_value, parse_json
from trainer.base.tensor_files import read_metadata
from trainer.config.data_rules import LARGEST_QUALITY, LARGEST_SIDE
from trainer.config.rules import LARGEST_EVALUATION_BATCH
from trainer.config.schema import Interpolation, ResizeRule

LARGEST_ARGUMENT = 100_000
"""of a network's integers: a larger width or depth would only eat memory"""

OLD_EVALUATION_BATCH = 500
"""of versions that have not written evaluation_batch_size"""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
"""by which logits are divided"""

_TYPES = {
    "name": str,
    "args": dict[str, Any],
    "num_classes": int,
    "in_channels": int,
    "image_size": list[int],
    "class_names": list[str],
    "mean": list[Any] | None,
    "deviation": list[Any] | None,
    "test_augment": str,
    "evaluation_batch_size": int,
    "grey_range": list[float] | None,
    "resize": ResizeRule,
    "crop_share": float,
    "interpolation": Interpolation,
    "store_size": int | None,
    "store_quality": int | None,
}

_OPTIONAL_TYPES = {
    "seed": int,
    "temperature": float,
    "thresholds": list[float],
    "set_parameters": list[str],
    "reshaped_buffers": list[str],
    "passing_buffers": list[str],
}
"""what `model_state.effects_to_metadata` says; earlier versions have not written it"""


def read(file: Path) -> tuple[str, dict[str, Any]]:
    """Read the metadata of the model in a file.

    Returns:
        The text, and the values that it holds, of the right types and in their bounds.

    Raises:
        UserError: there are no metadata, or names the value that is wrong.
    """
    text = read_metadata(file).get("model")
    if text is None:
        raise UserError(f"{file}: does not describe its model, as a run's model.safetensors does")
    found = parse_json(text, file)
    if isinstance(found, dict):  # older versions have not written it
        found.setdefault("evaluation_batch_size", OLD_EVALUATION_BATCH)
        found.setdefault("resize", "stretch")
        found.setdefault("crop_share", 1.0)
        found.setdefault("interpolation", "bilinear")
        found.setdefault("store_size", None)
        found.setdefault("store_quality", None)
    _check(found, file)
    return text, found


def _check(found: Any, file: Path) -> None:
    check_type(found, dict[str, Any], f"{file}: model")
    for key, hint in _TYPES.items():
        check_type(found.get(key), hint, f"{file}: model.{key}")
    for key, optional in _OPTIONAL_TYPES.items():
        if key in found:
            check_type(found[key], optional, f"{file}: model.{key}")
    sides, names, limits = found["image_size"], found["class_names"], found.get("grey_range")
    rules = {
        "image_size": (
            len(sides) == 2 and all(1 <= side <= LARGEST_SIDE for side in sides),
            f"height and width, from 1 to {LARGEST_SIDE:,} pixels",
        ),
        "in_channels": (
            1 <= found["in_channels"] <= LARGEST_ARGUMENT,
            f"from 1 to {LARGEST_ARGUMENT:,}",
        ),
        "evaluation_batch_size": (
            1 <= found["evaluation_batch_size"] <= LARGEST_EVALUATION_BATCH,
            f"from 1 to {LARGEST_EVALUATION_BATCH:,}",
        ),
        "class_names": (names and len(set(names)) == len(names), "a name for each class"),
        "num_classes": (found["num_classes"] == len(names), f"{len(names)}, as class_names"),
        "grey_range": (
            limits is None or (len(limits) == 2 and limits[0] <= limits[1]),
            "the values of black and of white",
        ),
        "crop_share": (0.1 <= found["crop_share"] <= 1, "from 0.1 to 1"),
        "store_size": (
            found["store_size"] is None or 1 <= found["store_size"] <= LARGEST_SIDE,
            f"null or from 1 to {LARGEST_SIDE:,}",
        ),
        "store_quality": (
            found["store_quality"] is None or 1 <= found["store_quality"] <= LARGEST_QUALITY,
            f"null or from 1 to {LARGEST_QUALITY}",
        ),
        "temperature": (
            LOWEST_TEMPERATURE <= found.get("temperature", 1.0) <= HIGHEST_TEMPERATURE,
            f"from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}",
        ),
        "thresholds": (
            all(0 <= one <= 1 for one in found.get("thresholds", ()))
            and len(found.get("thresholds", names)) == len(names),
            "a probability for each class",
        ),
        "args": (_are_in_bounds(found["args"]), f"numbers of at most {LARGEST_ARGUMENT:,}"),
    }
    for key, (holds, rule) in rules.items():
        if not holds:
            raise UserError(
                f"{file}: model.{key}: must be {rule}, found {describe_value(found[key])}"
            )


def _are_in_bounds(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_are_in_bounds, value.values()))
    if isinstance(value, list):
        return all(map(_are_in_bounds, value))
    return not isinstance(value, (int, float)) or abs(value) <= LARGEST_ARGUMENT
