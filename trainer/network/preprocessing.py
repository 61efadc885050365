"""Read how weights want their images from the files that other programs keep beside them.

Those of timm are its `pretrained_cfg`, also in config.json on the Hugging Face hub; those of
transformers are preprocessor_config.json. Anybody may have written them: what is not of the right
type or out of range is a `UserError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, describe_value
from trainer.config.data_rules import LARGEST_SIDE
from trainer.data.scaling import decode_scaling
from trainer.network.pretrained import Preprocessing

INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""by the numbers that Pillow has for them, `PIL.Image.Resampling`, and transformers writes"""

_WARPED_FROM = 384
"""in transformers' ConvNextImageProcessor: from this side on, nothing is cut off"""


def of_timm(settings: Mapping[str, Any], where: str) -> Preprocessing:
    """Read timm's `pretrained_cfg`.

    Args:
        where: it stands, for messages.

    Raises:
        UserError: a value cannot be right.
    """
    size = _get(settings, "input_size", list[int] | None, where)
    interpolation = _get(settings, "interpolation", str | None, where)
    return _check(
        Preprocessing(
            mean=_floats(settings, "mean", where),
            deviation=_floats(settings, "std", where),
            image_size=(size[1], size[2]) if size and len(size) == 3 else None,
            crop_share=_get(settings, "crop_pct", float | None, where),
            interpolation=interpolation if interpolation in INTERPOLATIONS else None,
        ),
        where,
    )


def of_transformers(settings: Mapping[str, Any], where: str) -> Preprocessing:
    """Read transformers' preprocessor_config.json.

    It multiplies a pixel by a factor, may subtract 1, and then takes off the mean.

    Raises:
        UserError: a value cannot be right.
    """
    mean, deviation = _floats(settings, "image_mean", where), _floats(settings, "image_std", where)
    rescaled = _get(settings, "do_rescale", bool | None, where) is not False
    factor = _get(settings, "rescale_factor", float | None, where) or 1 / 255
    per_unit = 255 * factor if rescaled else 255.0
    offset = 1.0 if _get(settings, "rescale_offset", bool | None, where) else 0.0
    if settings.get("do_normalize") is False:
        mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if mean and deviation and per_unit > 0:
        mean = tuple((value + offset) / per_unit for value in mean)
        deviation = tuple(value / per_unit for value in deviation)
    size = _size(settings, "size", where)
    cut = _size(settings, "crop_size", where) if settings.get("do_center_crop") else None
    share = _get(settings, "crop_pct", float | None, where)
    if cut and size:
        share = min(1.0, min(cut) / min(size))
    elif size and (share is None or min(size) >= _WARPED_FROM):
        share = 1.0
    number = _get(settings, "resample", int | None, where)
    known = number is not None and 0 <= number < len(INTERPOLATIONS)
    return _check(
        Preprocessing(
            mean=mean,
            deviation=deviation,
            image_size=cut or size,
            crop_share=share,
            interpolation=INTERPOLATIONS[number] if known and number is not None else None,
        ),
        where,
    )


def of_run(found: Mapping[str, Any], file: Path) -> Preprocessing:
    """Read what a run has written about its images into the metadata of its model.safetensors.

    Raises:
        UserError: a value cannot be right.
    """
    where = f"{file}: model"
    sides = _get(found, "image_size", list[int], where)
    channels = _get(found, "in_channels", int, where)
    mean = deviation = None
    if found.get("mean") is not None and found.get("deviation") is not None:  # not of each pixel
        scaling = decode_scaling(found, file, (channels, *sides[:2]))
        if scaling.mean.shape[1:] == (1, 1):
            both = (scaling.mean, scaling.deviation)
            mean, deviation = (
                tuple((value.double() / 255).flatten().expand(channels).tolist()) for value in both
            )
    return _check(
        Preprocessing(
            mean=mean,
            deviation=deviation,
            image_size=(sides[0], sides[1]) if len(sides) == 2 else None,
            crop_share=_get(found, "crop_share", float | None, where),
            interpolation=_get(found, "interpolation", str | None, where),
        ),
        where,
    )


def _check(found: Preprocessing, where: str) -> Preprocessing:
    """Return what was read if it can be right."""
    mean, deviation = found.mean or (), found.deviation or ()
    rules = {
        "mean and deviation": (
            len(mean) == len(deviation)
            and all(map(math.isfinite, (*mean, *deviation)))
            and all(value > 0 for value in deviation),
            (mean, deviation),
        ),
        "input size": (
            found.image_size is None or all(1 <= side <= LARGEST_SIDE for side in found.image_size),
            found.image_size,
        ),
        "crop share": (
            found.crop_share is None or 0 < found.crop_share <= 1,
            found.crop_share,
        ),
        "interpolation": (
            found.interpolation is None or found.interpolation in INTERPOLATIONS,
            found.interpolation,
        ),
    }
    for what, (holds, value) in rules.items():
        if not holds:
            raise UserError(f"{where}: its {what} cannot be {describe_value(value)}")
    return found


def _get(settings: Mapping[str, Any], key: str, hint: Any, where: str) -> Any:
    value = settings.get(key)
    value = list(value) if isinstance(value, tuple) else value
    check_type(value, hint, f"{where}: {key}")
    return value


def _floats(settings: Mapping[str, Any], key: str, where: str) -> tuple[float, ...] | None:
    values = _get(settings, key, list[float] | None, where)
    return None if values is None else tuple(map(float, values))


def _size(settings: Mapping[str, Any], key: str, where: str) -> tuple[int, int] | None:
    """Return height and width of a size, which is a number or has sides by name."""
    value = _get(settings, key, int | dict[str, Any] | None, where)
    sides: list[Any] = [value, value]
    if isinstance(value, dict):
        sides = [value.get(name, value.get("shortest_edge")) for name in ("height", "width")]
    for side in sides:
        check_type(side, int | None, f"{where}: {key}")
        if side is not None and side < 1:
            raise UserError(f"{where}: {key}: must be at least 1 pixel, found {side}")
    return None if None in sides else (sides[0], sides[1])
