"""The weights of a file as the first ones of a model.

Those of other programs may have names with a prefix, or be a pickle, which is not read.
"""

from __future__ import annotations

import itertools
import json
import logging
import shlex
import zipfile
from collections.abc import Collection
from pathlib import Path

from torch import nn

from trainer.base.errors import UserError
from trainer.base.tensor_files import Specs, Tensors, describe_mismatch, read_specs, read_tensors
from trainer.data.scaling import network_tensors
from trainer.network import model_state
from trainer.ranks import processes

log = logging.getLogger("lockstep")

_ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
"""of files that torch.save writes, by convention"""
_OLD_START = b"\x80\x02\x8a\x0a"
"""of its files before they were archives"""


def load_weights(model: nn.Module, path: Path) -> Tensors:
    """Fill a model from a .safetensors file that names its parameters and buffers.

    A prefix that all names have, where they fit without it, is removed, and a warning says so.

    Returns:
        The tensors of the file, by their names in the model.

    Raises:
        UserError: the file is missing or no safetensors file, or it does not fit the model.
    """
    try:
        file = path.resolve()  # a link that the user names is followed
        specs = network_tensors(_read_specs(file))
        expected = model_state.expected_specs(model, specs)
        prefix = _find_surplus_prefix(specs, expected)
        # Before the values, so that a file of another size costs no memory; types are converted.
        if difference := _mismatch(prefix, specs, expected):
            hint = _prefix_hint(specs, expected)
            raise UserError(f"does not fit the model: it {difference}{hint}")
        tensors = read_tensors(file, specs)
        weights = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        model_state.load(model, weights)
    except (UserError, RuntimeError) as error:
        raise UserError(f"model.weights: {path}: {error}") from error
    if prefix and processes.launched_rank() == 0:
        log.warning("model.weights: %s: its names are taken without their prefix %r", path, prefix)
    return weights


def _read_specs(file: Path) -> Specs:
    try:
        return read_specs(file)
    except UserError as error:
        advice = _how_to_convert(file) if file.is_file() else None
        if advice is None:
            raise
        raise UserError(advice) from error


def _find_surplus_prefix(found: Specs, expected: Specs) -> str:
    """Return the prefix of all names found without which they are those expected, or "".

    Such names come from torch.compile (`_orig_mod.`), from DistributedDataParallel (`module.`), and
    from programs that keep their network in an attribute.
    """
    parts = _shared_prefix(found).split(".")[:-1]
    for prefix in itertools.accumulate(f"{part}." for part in parts):
        if _mismatch(prefix, found, expected) is None:
            return prefix
    return ""


def _mismatch(prefix: str, found: Specs, expected: Specs) -> str | None:
    """Return how specs differ from those expected, whatever their types, without a prefix."""
    named = {name.removeprefix(prefix): spec for name, spec in found.items()}
    return describe_mismatch(named, expected, any_dtype=True)


def _prefix_hint(found: Specs, expected: Specs) -> str:
    """Return what a prefix has to do with names that do not fit; "" where it has nothing."""
    theirs, ours = _shared_prefix(found), _shared_prefix(expected)
    if theirs and not ours.startswith(theirs):
        rest = _mismatch(theirs, found, expected)
        return f"; all its names have the prefix {theirs!r}, and without it, it {rest}"
    longer = {f"{ours}{name}": spec for name, spec in found.items()}
    if ours and _mismatch("", longer, expected) is None:
        return f"; all names of the model have the prefix {ours!r}, which those of the file lack"
    return ""


def _how_to_convert(path: Path) -> str | None:
    """Return what to do with an existing file of torch.save; None for any other."""
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
