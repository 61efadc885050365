"""Files of torch.save: known by their looks, and read by torch's weights-only loader."""

from __future__ import annotations

import contextlib
import json
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainer.base.errors import UserError
from trainer.base.strict_json import error_text
from trainer.base.tensor_files import Tensors

_OLD_START = b"\x80\x02\x8a\x0a"
"""of its files before they were archives"""

NESTED = ("model_ema", "state_dict_ema", "ema_state_dict", "state_dict", "model", "module", "net")
"""keys under which programs keep their weights, those of an average of the weights first"""


def how_to_convert(path: Path) -> str | None:
    """Return what to do with an existing file of torch.save; None for any other."""
    if not path.is_file() or not is_from_torch_save(path):
        return None
    command = f"python -m trainer convert-weights {shlex.quote(str(path))}"
    return (
        f"is a file of torch.save, a pickle, which could run code and is not read; convert it to "
        f"safetensors once: {command}"
    )


def is_from_torch_save(path: Path) -> bool:
    """Return whether a file looks like one of torch.save, by its content."""
    with contextlib.suppress(zipfile.BadZipFile):  # damaged, or other bytes that look like its end
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("/data.pkl") for name in archive.namelist())
    with path.open("rb") as file:
        return file.read(len(_OLD_START)) == _OLD_START


def read(path: Path, key: str | None = None) -> tuple[Tensors, str]:
    """Read the tensors of a file of torch.save, by the loader that runs no code.

    Args:
        key: where in the file they are, with dots; None: at its top, or where they usually are.

    Returns:
        The tensors by their names, and the key where they were; "" for the top.

    Raises:
        UserError: it is missing or damaged, has more than tensors and plain values in it, or no
            tensors at that place.
    """
    try:
        with warnings.catch_warnings():  # of pickles that torch has not written
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: {error_text(error)}") from error
    except Exception as error:  # pickle's, zipfile's and torch's, whatever the bytes are
        what = str(error)
        refused = "Weights only load failed" in what or "Unsupported" in what
        reason = (
            "it is damaged, or has objects in it that only running its code could make; save only "
            "the state_dict where it came from"
            if refused
            else " ".join(what.split())[:200] or type(error).__name__
        )
        raise UserError(f"{path}: torch's weights-only loader refuses it: {reason}") from error
    return _tensors_in(content, path, key)


def _tensors_in(content: Any, path: Path, key: str | None) -> tuple[Tensors, str]:
    place = ""
    for part in key.split(".") if key else ():
        if not isinstance(content, Mapping) or part not in content:
            where = f"in {place}" if place else "at its top"
            raise UserError(f"{path}: has no {key}; {where}: {_names(content)}")
        content, place = content[part], f"{place}.{part}".removeprefix(".")
    while key is None and isinstance(content, Mapping):
        inner = next((one for one in NESTED if isinstance(content.get(one), Mapping)), None)
        if inner is None or any(map(torch.is_tensor, content.values())):
            break
        content, place = content[inner], f"{place}.{inner}".removeprefix(".")
    tensors = (
        {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise UserError(
                f"{path}: {name} is a sparse or quantized tensor, which is not converted"
            )
    if not tensors:
        raise UserError(
            f"{path}: has no tensors by their names{f' in {place}' if place else ''}, but "
            f"{_names(content)}; name their place with --key"
        )
    return tensors, place


def _names(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return json.dumps([str(name)[:40] for name in list(content)[:10]])
