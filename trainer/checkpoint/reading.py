"""Opening checkpoints: everything in one is checked before anything of it is used.

The manifest finds damage. It cannot find malice, as whoever writes a file can write its checksum
too; so what is inside is checked for itself, links are not followed, and memory is bounded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

from trainer.base.errors import FormatVersionError, UnreadableError, UserError
from trainer.base.files import open_regular, to_json
from trainer.base.strict_json import (
    check_type,
    describe_value,
    error_text,
    parse_json,
    read_json,
    read_text,
)
from trainer.base.tensor_files import Specs, Tensors, read_specs, read_tensors
from trainer.checkpoint.run_state import RunState

FORMAT_VERSION = 4
MANIFEST = "manifest.json"
STATE = "state.json"

_PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_OPTIMIZER_KEY = re.compile(r"[0-9]{1,9}\.\w+", re.ASCII)
_STATE_TYPES = {
    "files": list[str],
    "run": dict[str, Any],
    "optimizer": dict[str, int | float | bool | None],
    "scaler": dict[str, int | float] | None,
    "fingerprints": dict[str, str | None],
    "environment": dict[str, str],
}
_OBSERVER_TYPES = {"metrics_bytes": int, "wandb_run_id": str}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are what its manifest says, and of the form that we write."""

    folder: Path
    state: dict[str, Any]

    def path(self, name: str) -> Path:
        """Where `name`.safetensors is or would be."""
        return self.folder / f"{name}.safetensors"

    def specs(self, name: str) -> Specs:
        """Types and shapes of the tensors of `name`.safetensors; none where there is no such file.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path(name)
        return read_specs(path) if path.name in self.state["files"] else {}

    def tensors(self, name: str) -> Tensors:
        """The tensors of `name`.safetensors; none where there is no such file.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path(name)
        return read_tensors(path) if path.name in self.state["files"] else {}


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check every file of a checkpoint against its manifest, and what is in it.

    Raises:
        FormatVersionError: another version of Lockstep has written it.
        UserError: names the file that is missing, damaged or not what it should be.
    """
    if folder.is_symlink():
        raise UserError(f"{folder}: a link, and links are not followed; name the folder itself")
    entries = _read_manifest(folder / MANIFEST)
    for name, entry in entries.items():
        _check_file(folder, name, entry)
    path = folder / STATE
    if STATE not in entries:
        raise UserError(f"{path}: not in the manifest")
    state = read_json(path)
    _check_version(state, path)
    _check_state(state, path)
    _check_run(state["run"], path)
    for name in state["files"]:
        if name not in entries:
            raise UserError(f"{path}: files: {describe_value(name)} is not in the manifest")
        read_specs(folder / name)
    return Checkpoint(folder, state)


def describe(path: Path) -> dict[str, Any]:
    """A file's entry in the manifest; read piece by piece, however large it is.

    Raises:
        OSError: it is missing or no regular file.
    """
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256")
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def checksum(entries: dict[str, Any]) -> str:
    """The manifest's checksum of its entries."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    text = read_text(path)
    manifest = parse_json(text, path)
    check_type(manifest, dict[str, Any], str(path))
    entries: dict[str, Any] = manifest.get("files")
    check_type(entries, dict[str, dict[str, int | str]], f"{path}: files")
    # The one way to write it, as a stray blank or key is damage too.
    whole = {"files": entries, "checksum": checksum(entries)}
    if text != to_json(whole):
        raise UserError(f"{path}: damaged, its checksum does not hold")
    return entries


def _check_file(folder: Path, name: str, entry: dict[str, int | str]) -> None:
    if not _PLAIN_NAME.fullmatch(name):
        raise UserError(
            f"{folder / MANIFEST}: {describe_value(name)} is no plain file of the "
            "checkpoint's folder"
        )
    path = folder / name
    try:
        found = describe(path)
    except PermissionError as error:
        raise UnreadableError(f"{path}: may not be read ({error_text(error)})") from error
    except OSError as error:
        raise UserError(
            f"{path}: missing, or no plain file of the checkpoint's folder ({error_text(error)})"
        ) from error
    if found != entry:
        raise UserError(f"{path}: damaged, its size or SHA-256 differs from the manifest's")


def _check_version(state: Any, path: Path) -> None:
    check_type(state, dict[str, Any], str(path))
    version = state.get("format_version")
    check_type(version, int, f"{path}: format_version")
    if version != FORMAT_VERSION:
        age = "a later" if version > FORMAT_VERSION else "an earlier"
        raise FormatVersionError(
            f"{path.parent}: format_version {version} is from {age} version of Lockstep, this one "
            f"reads {FORMAT_VERSION}; go on with that version, or start anew in another output_dir"
        )


def _check_state(state: dict[str, Any], path: Path) -> None:
    for key, hint in _STATE_TYPES.items():
        if key not in state:
            raise UserError(f"{path}: lacks {key}")
        check_type(state[key], hint, f"{path}: {key}")
    for name in state["files"]:
        if not _PLAIN_NAME.fullmatch(name) or not name.endswith(".safetensors"):
            raise UserError(
                f"{path}: files: {describe_value(name)} is no plain name of a .safetensors file"
            )
    for key in state["optimizer"]:
        if not _OPTIMIZER_KEY.fullmatch(key):
            raise UserError(f"{path}: optimizer: {describe_value(key)} is no PARAMETER_INDEX.NAME")


def _check_run(run: dict[str, Any], path: Path) -> None:
    hints = get_type_hints(RunState)
    names = {field.name for field in dataclasses.fields(RunState)}
    for name in sorted(names ^ run.keys()):
        kind = "lacks" if name in names else "has the unknown"
        raise UserError(f"{path}: run {kind} {describe_value(name)}")
    for name in names:
        check_type(run[name], hints[name], f"{path}: run.{name}")
    observer = run["observer"]
    if not observer:  # there was none
        return
    for key, hint in _OBSERVER_TYPES.items():
        check_type(observer.get(key), hint, f"{path}: run.observer.{key}")
    if observer["metrics_bytes"] < 0:
        raise UserError(f"{path}: run.observer.metrics_bytes: must be 0 or more")
    # It becomes part of a folder's name.
    if not _PLAIN_NAME.fullmatch(observer["wandb_run_id"]):
        raise UserError(
            f"{path}: run.observer.wandb_run_id: {describe_value(observer['wandb_run_id'])}"
        )
