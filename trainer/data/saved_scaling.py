"""Encode the scaling of the pixels for a model.safetensors, and decode it.

One mean and deviation for all pixels go into the metadata. One for each pixel may be too long for
a header, so those become tensors, of int32 with the bits of the float32 numbers: the digest of the
weights covers the file's floating-point tensors, and must cover nothing but weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from trainer.base.errors import UserError
from trainer.base.tensor_files import Tensors, TensorSpec, read_specs, read_tensors
from trainer.data.scaling import Scaling

TENSORS = {"mean": "lockstep/pixel_mean", "deviation": "lockstep/pixel_deviation"}

T = TypeVar("T")


def encode(scaling: Scaling) -> tuple[dict[str, Any], Tensors]:
    """Return the metadata, with null for numbers that are in tensors, and these tensors."""
    values = {"mean": scaling.mean, "deviation": scaling.deviation}
    if scaling.mean.shape[1:] == (1, 1):
        return {key: value.tolist() for key, value in values.items()}, {}
    bits = {TENSORS[key]: value.cpu().view(torch.int32) for key, value in values.items()}
    return dict.fromkeys(values), bits


def network_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """Leave out the tensors of the scaling from those of a file, by name."""
    return {name: one for name, one in tensors.items() if name not in TENSORS.values()}


def decode(found: Mapping[str, Any], file: Path, pixel_shape: tuple[int, int, int]) -> Scaling:
    """Read the scaling of a model.

    Args:
        found: the metadata; mean and deviation are nested lists, in older files also of each pixel.
        pixel_shape: channels, height and width.

    Raises:
        UserError: it is missing, of a wrong shape, or has numbers that are not finite or
            deviations that are not positive.
    """
    values = {key: _decode_one(key, found[key], file, pixel_shape) for key in TENSORS}
    if not bool(values["mean"].isfinite().all()):
        raise UserError(f"{file}: model.mean: must be finite")
    if not bool((values["deviation"] > 0).all() and values["deviation"].isfinite().all()):
        raise UserError(f"{file}: model.deviation: must be positive and finite")
    return Scaling(**values)


def _decode_one(
    key: str, numbers: list[Any] | None, file: Path, pixel_shape: tuple[int, int, int]
) -> torch.Tensor:
    if numbers is None:
        name, wanted = TENSORS[key], TensorSpec("I32", pixel_shape)
        if read_specs(file).get(name) != wanted:
            raise UserError(
                f"{file}: model.{key}: is neither in the metadata nor, as {wanted.dtype} of "
                f"{pixel_shape}, in the tensor {name}"
            )
        return read_tensors(file, [name])[name].view(torch.float32)
    try:
        value = torch.tensor(numbers, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{file}: model.{key}: must be numbers ({error})") from error
    if tuple(value.shape) not in ((1, 1, 1), pixel_shape):
        raise UserError(
            f"{file}: model.{key}: must be of shape (1, 1, 1) or {pixel_shape}, found "
            f"{tuple(value.shape)}"
        )
    return value
