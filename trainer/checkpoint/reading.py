"""Open checkpoints: every file is checked against the manifest before anything of it is used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import torch

from trainer.base.errors import FormatVersionError, UnreadableError, UserError
from trainer.base.files import to_json
from trainer.base.strict_json import (
    check_type,
    error_text,
    parse_json,
    read_json,
    read_text,
)
from trainer.base.tensor_files import Specs, Tensors, TensorSpec, read_specs, read_tensors

FORMAT_VERSION = 4
OLDEST_FORMAT_VERSION = 3
"""differs in the names of the optimiser's tensors, which are torch's now"""
MANIFEST = "manifest.json"
STATE = "state.json"

_TORCH_NAMES = {"mean": "exp_avg", "square": "exp_avg_sq"}

Value = TypeVar("Value", TensorSpec, torch.Tensor)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files match its manifest."""

    folder: Path
    state: dict[str, Any]

    def path(self, name: str) -> Path:
        """Return where `name`.safetensors is or would be."""
        return self.folder / f"{name}.safetensors"

    def specs(self, name: str) -> Specs:
        """Return types and shapes of the tensors of `name`.safetensors; {} without such a file.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path(name)
        specs = read_specs(path) if path.name in self.state["files"] else {}
        return self._translate(name, specs, TensorSpec("F32", ()))

    def tensors(self, name: str) -> Tensors:
        """Return the tensors of `name`.safetensors; {} without such a file.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path(name)
        tensors = read_tensors(path) if path.name in self.state["files"] else {}
        return self._translate(name, tensors, torch.zeros(()))

    def _translate(self, name: str, values: dict[str, Value], step: Value) -> dict[str, Value]:
        """Give the values of our own optimisers the names that they have in the newest format."""
        is_old = self.state["format_version"] == OLDEST_FORMAT_VERSION
        is_user_defined = self.state["fingerprints"].get("optimizer.name") is not None
        if name != "optimizer" or not is_old or is_user_defined:
            return values
        found: dict[str, Value] = {}
        for key, value in values.items():
            index, kind = key.split(".", 1)
            found[f"{index}.{_TORCH_NAMES.get(kind, kind)}"] = value
            if kind == "momentum":  # Muon's, to which torch's AdamW adds a step
                found[f"{index}.step"] = step
        return found


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check every file of a checkpoint against its manifest, and what is in it.

    Raises:
        FormatVersionError: another version of Lockstep has written it.
        UserError: names the file that is missing, damaged or not what it should be.
    """
    entries = _read_manifest(folder / MANIFEST)
    for name, entry in entries.items():
        _check_file(folder, name, entry)
    path = folder / STATE
    if STATE not in entries:
        raise UserError(f"{path}: not in the manifest")
    state = read_json(path)
    _check_version(state, path)
    check_type(state.get("files"), list[str], f"{path}: files")
    for name in state["files"]:
        if name not in entries:
            raise UserError(f"{path}: files: {name!r} is not in the manifest")
        read_specs(folder / name)
    return Checkpoint(folder, state)


def describe(path: Path) -> dict[str, Any]:
    """Return a file's entry in the manifest; a large file is read piece by piece.

    Raises:
        OSError: it is missing.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def checksum(entries: dict[str, Any]) -> str:
    """Return the manifest's checksum of its entries."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    text = read_text(path)
    manifest = parse_json(text, path)
    check_type(manifest, dict[str, Any], str(path))
    entries: dict[str, Any] = manifest.get("files")
    check_type(entries, dict[str, dict[str, int | str]], f"{path}: files")
    # Compared as text, as an extra blank or key is damage too.
    whole = {"files": entries, "checksum": checksum(entries)}
    if text != to_json(whole):
        raise UserError(f"{path}: damaged, its checksum is wrong")
    for name in entries:
        if name != Path(name).name or name == "..":
            raise UserError(f"{path}: {name!r} must be the name of a file in this folder")
    return entries


def _check_file(folder: Path, name: str, entry: dict[str, int | str]) -> None:
    path = folder / name
    try:
        found = describe(path)
    except PermissionError as error:
        raise UnreadableError(f"{path}: may not be read ({error_text(error)})") from error
    except OSError as error:
        raise UserError(f"{path}: missing or damaged ({error_text(error)})") from error
    if found != entry:
        raise UserError(f"{path}: damaged, its size or SHA-256 differs from the manifest's")


def _check_version(state: Any, path: Path) -> None:
    check_type(state, dict[str, Any], str(path))
    version = state.get("format_version")
    check_type(version, int, f"{path}: format_version")
    if not OLDEST_FORMAT_VERSION <= version <= FORMAT_VERSION:
        age = "a later" if version > FORMAT_VERSION else "an earlier"
        raise FormatVersionError(
            f"{path.parent}: format_version {version} is from {age} version of Lockstep, this one "
            f"reads {OLDEST_FORMAT_VERSION} to {FORMAT_VERSION}; go on with that version, or start "
            "again in another output_dir"
        )
