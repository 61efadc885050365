"""The scaling of the pixels in a model.safetensors: in its metadata, or in tensors beside weights.

One mean and deviation for all pixels stand in the metadata. One for each pixel may be too long for
a header, so those are tensors. They hold the bits of float32 numbers as int32, because the digest
of the weights is over the floating-point tensors of the file, and is to be of the weights alone.
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


def to_file(scaling: Scaling) -> tuple[dict[str, Any], Tensors]:
    """What stands of it in the metadata, null where it is in tensors, and the tensors."""
    values = {"mean": scaling.mean, "deviation": scaling.deviation}
    if scaling.mean.shape[1:] == (1, 1):
        return {key: value.tolist() for key, value in values.items()}, {}
    bits = {TENSORS[key]: value.cpu().view(torch.int32) for key, value in values.items()}
    return dict.fromkeys(values), bits


def network_alone(found: Mapping[str, T]) -> dict[str, T]:
    """Of what a file holds, by name, what belongs to the network."""
    return {name: one for name, one in found.items() if name not in TENSORS.values()}


def read(found: Mapping[str, Any], file: Path, pixel_shape: tuple[int, int, int]) -> Scaling:
    """The scaling of a model.

    Args:
        found: the metadata; mean and deviation are nested lists, in older files also of each pixel.
        pixel_shape: channels, height and width.

    Raises:
        UserError: it is not there, of a wrong shape, or not of finite numbers and positive
            deviations.
    """
    values = {key: _read_one(key, found[key], file, pixel_shape) for key in TENSORS}
    if not bool(values["mean"].isfinite().all()):
        raise UserError(f"{file}: model.mean: must be finite")
    if not bool((values["deviation"] > 0).all() and values["deviation"].isfinite().all()):
        raise UserError(f"{file}: model.deviation: must be positive and finite")
    return Scaling(**values)


def _read_one(
    key: str, numbers: list[Any] | None, file: Path, pixel_shape: tuple[int, int, int]
) -> torch.Tensor:
    if numbers is None:
        name, wanted = TENSORS[key], TensorSpec("I32", pixel_shape)
        if read_specs(file).get(name) != wanted:
            raise UserError(
                f"{file}: model.{key}: stands neither in the metadata nor, as {wanted.dtype} of "
                f"{pixel_shape}, in the tensor {name}"
            )
        return read_tensors(file, [name])[name].view(torch.float32)
    try:
        value = torch.tensor(numbers, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{file}: model.{key}: no numbers ({error})") from error
    if tuple(value.shape) not in ((1, 1, 1), pixel_shape):
        raise UserError(
            f"{file}: model.{key}: must be of shape (1, 1, 1) or {pixel_shape}, found "
            f"{tuple(value.shape)}"
        )
    return value
