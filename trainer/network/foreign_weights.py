"""Weights from other programs: under names with a prefix, or as a pickle, which is not read."""

from __future__ import annotations

import itertools
import json
import shlex
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

from trainer.base.tensor_files import Specs, describe_mismatch

Value = TypeVar("Value")

_ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
"""of files that torch.save writes, by convention"""
_OLD_START = b"\x80\x02\x8a\x0a"
"""of its files before they were archives"""


def find_surplus_prefix(found: Specs, expected: Specs) -> str:
    """Return the prefix of all names found without which they are those expected, or "".

    Such names come from torch.compile (`_orig_mod.`), from DistributedDataParallel (`module.`), and
    from programs that keep their network in an attribute.
    """
    parts = _shared_prefix(found).split(".")[:-1]
    for prefix in itertools.accumulate(f"{part}." for part in parts):
        if describe_mismatch(remove_prefix(prefix, found), expected, any_dtype=True) is None:
            return prefix
    return ""


def remove_prefix(prefix: str, found: Mapping[str, Value]) -> dict[str, Value]:
    """Return specs or tensors under their names without a prefix that all of them have."""
    return {name.removeprefix(prefix): value for name, value in found.items()}


def prefix_hint(found: Specs, expected: Specs) -> str:
    """Return what a prefix has to do with names that do not fit; "" where it has nothing."""
    theirs, ours = _shared_prefix(found), _shared_prefix(expected)
    if theirs and not ours.startswith(theirs):
        rest = describe_mismatch(remove_prefix(theirs, found), expected, any_dtype=True)
        return f"; all its names have the prefix {theirs!r}, and without it, it {rest}"
    longer = {f"{ours}{name}": spec for name, spec in found.items()}
    if ours and describe_mismatch(longer, expected, any_dtype=True) is None:
        return f"; all names of the model have the prefix {ours!r}, which those of the file lack"
    return ""


def how_to_convert(path: Path) -> str | None:
    """Return what to do with a file of torch.save; None where the file is something else.

    Args:
        path: of an existing file.
    """
    if not _is_from_torch_save(path):
        return None
    source, target = (json.dumps(str(one)) for one in (path, path.with_suffix(".safetensors")))
    code = (
        f"import torch; from safetensors.torch import save_file; "
        f'w = torch.load({source}, map_location="cpu", weights_only=True); '
        f'w = w.get("state_dict", w.get("model", w)); '
        f"save_file({{k: v.clone().contiguous() for k, v in w.items() if torch.is_tensor(v)}}, "
        f"{target})"
    )
    return (
        f"is a file of torch.save, a pickle, which could run code and is not read; convert it to "
        f"safetensors once: python -c {shlex.quote(code)}"
    )


def _is_from_torch_save(path: Path) -> bool:
    if path.suffix in _ENDINGS:
        return True
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    with path.open("rb") as file:
        return file.read(len(_OLD_START)) == _OLD_START


def _shared_prefix(names: Collection[str]) -> str:
    """Return the longest prefix of whole parts."""
    first, last = min(names, default=""), max(names, default="")
    parts = zip(first.split(".")[:-1], last.split(".")[:-1], strict=False)
    return "".join(
        f"{one}." for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], parts)
    )
