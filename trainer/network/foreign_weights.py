"""Weights that others have saved: under names with a prefix, or as a pickle, which is not read."""

from __future__ import annotations

import json
import shlex
import zipfile
from collections.abc import Iterable
from pathlib import Path

from trainer.base.files import open_regular
from trainer.base.tensor_files import Specs, describe_mismatch

_ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
"""of files that torch.save writes, by habit"""
_OLD_START = b"\x80\x02\x8a\x0a"
"""of what it wrote before it wrote archives"""


def surplus_prefix(found: Specs, expected: Specs) -> str:
    """What all names found begin with where without it they are those expected; else nothing.

    Such names come from torch.compile (`_orig_mod.`), from DistributedDataParallel (`module.`), and
    from programs that keep their network in an attribute.
    """
    prefix = ""
    for part in min(found, default="").split(".")[:-1]:
        prefix += f"{part}."
        if not all(name.startswith(prefix) for name in found):
            break
        if describe_mismatch(without(prefix, found), expected, any_dtype=True) is None:
            return prefix
    return ""


def without(prefix: str, found: Specs) -> Specs:
    """The same under names that lack the prefix which all of them have."""
    return {name.removeprefix(prefix): spec for name, spec in found.items()}


def prefix_hint(found: Specs, expected: Specs) -> str:
    """What a prefix has to do with it that names do not fit; empty where it has nothing."""
    theirs, ours = _shared_prefix(found), _shared_prefix(expected)
    if theirs and not ours.startswith(theirs):
        rest = describe_mismatch(without(theirs, found), expected, any_dtype=True)
        return f"; all its names have the prefix {theirs!r}, and without it, it {rest}"
    longer = {f"{ours}{name}": spec for name, spec in found.items()}
    if ours and describe_mismatch(longer, expected, any_dtype=True) is None:
        return f"; all names of the model have the prefix {ours!r}, which those of the file lack"
    return ""


def how_to_convert(path: Path) -> str | None:
    """What to do with a file of torch.save; None where the file is something else.

    Args:
        path: of a file that is there.
    """
    if not _is_of_torch_save(path):
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


def _is_of_torch_save(path: Path) -> bool:
    if path.suffix in _ENDINGS:
        return True
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    with open_regular(path) as file:
        return file.read(len(_OLD_START)) == _OLD_START


def _shared_prefix(names: Iterable[str]) -> str:
    """The longest one, of whole parts."""
    first, last = min(names, default=""), max(names, default="")
    shared = ""
    for one, other in zip(first.split(".")[:-1], last.split(".")[:-1], strict=False):
        if one != other:
            break
        shared += f"{one}."
    return shared
