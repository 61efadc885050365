"""Read and write tensors in safetensors files.

With `read_specs` and `describe_mismatch` the tensors of another network are refused before any of
them takes memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file

from trainer.base.errors import UserError
from trainer.base.files import write_file
from trainer.base.strict_json import error_text

Tensors = dict[str, torch.Tensor]

_MOST_NAMES = 3
_LONGEST_NAME = 60


class TensorSpec(NamedTuple):
    """Type and shape of a tensor."""

    dtype: str
    """as safetensors names it"""
    shape: tuple[int, ...]


Specs = dict[str, TensorSpec]


def read_specs(path: Path) -> Specs:
    """Return types and shapes of the tensors in a file; their values are not read.

    Raises:
        UserError: it is missing, or not a valid safetensors file.
    """
    # torch's way of opening reserves memory for the whole file, numpy's does not.
    with _open(path, "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
        return {
            name: TensorSpec(one.get_dtype(), tuple(one.get_shape()))
            for name, one in slices.items()
        }


def read_tensors(path: Path, names: Collection[str] | None = None) -> Tensors:
    """Return the tensors of a file.

    Args:
        names: which to read; None: all.

    Raises:
        UserError: as `read_specs`, or a tensor is of a type or shape that torch lacks.
    """
    with _open(path, "pt") as file:
        every = file.keys()
        return {name: file.get_tensor(name) for name in (every if names is None else names)}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts in a file's metadata by their keys.

    Raises:
        UserError: as `read_specs`.
    """
    with _open(path, "np") as file:
        return dict(file.metadata() or {})


def tensor_specs(tensors: Mapping[str, torch.Tensor]) -> Specs:
    """Return types and shapes of tensors in memory."""
    return {
        name: TensorSpec(_dtype_name(tensor.dtype), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def describe_mismatch(found: Specs, expected: Specs, *, any_dtype: bool = False) -> str | None:
    """Return in words how tensors differ from those expected; None if they do not."""
    differences = []
    if missing := sorted(expected.keys() - found.keys()):
        differences.append(f"lacks {_list(missing)}")
    if extra := sorted(found.keys() - expected.keys()):
        differences.append(f"has {_list(extra)}, which nothing here takes")
    for name in sorted(found.keys() & expected.keys()):
        ours, theirs = found[name], expected[name]
        if ours.shape != theirs.shape or (ours.dtype != theirs.dtype and not any_dtype):
            differences.append(
                f"{_list([name])} is {_words(ours)}, where {_words(theirs)} is expected"
            )
            break
    return "; ".join(differences) or None


def weights_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of the floating-point tensors' bytes, in name order.

    The bytes are little-endian and C-contiguous.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if tensors[name].is_floating_point():
            digest.update(bytes_of(tensors[name]))
    return digest.hexdigest()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor, little-endian and C-contiguous; a copy only if it must be."""
    whole = tensor.detach().cpu().contiguous()
    # One element, or none, counts as contiguous with any stride, which `view` refuses.
    flat = whole.as_strided((whole.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all."""
    write_cpu_tensors(
        path, {name: copy_to_cpu(tensor) for name, tensor in tensors.items()}, metadata
    )


def write_cpu_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write tensors that are copied to the CPU already.

    Raises:
        OSError: the disk is full or the like.
    """

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            # It hides the system's errors, such as a full disk, in a text.
            code = re.search(r"\bos error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error

    write_file(path, write)


def copy_to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to the CPU, C-contiguous and in its own memory, as safetensors wants it."""
    return tensor.detach().to("cpu", copy=True).contiguous()


@contextmanager
def _open(path: Path, framework: str) -> Iterator[Any]:
    """Open a file by the library, whose errors become ours."""
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{path}: not a valid safetensors file ({error_text(error)[:200]})"
        ) from error


@functools.cache
def _dtype_name(dtype: torch.dtype) -> str:
    """Return the library's name of a type, from what it writes."""
    content = save({"x": torch.empty(0, dtype=dtype)})
    name: str = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["x"]["dtype"]
    return name


def _list(names: list[str]) -> str:
    listed = ", ".join(ascii(name[:_LONGEST_NAME]) for name in names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return listed + (f" and {more} more" if more > 0 else "")


def _words(spec: TensorSpec) -> str:
    shape = " x ".join(map(str, spec.shape[:8])) or "a single value"
    return f"{spec.dtype} of {shape}"
