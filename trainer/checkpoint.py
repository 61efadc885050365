"""Checkpoints: folders of safetensors and JSON that are there whole, or not at all.

    checkpoints/step-00001234/
        model.safetensors       weights and buffers
        optimizer.safetensors   the optimiser's tensors, named PARAMETER_INDEX.NAME
        best.safetensors        the best weights on validation so far, where there are any
        ema.safetensors         the moving average of the weights, where one is kept
        state.json              everything small: position, best, optimiser's numbers, configuration
        manifest.json           size and SHA-256 of each file, and a checksum of itself

A checkpoint is written into a hidden sibling, flushed to the disk and renamed; the manifest is
written last. Nothing is pickled, so opening a checkpoint runs no code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trainer.errors import LaterFormatError, UserError
from trainer.files import sync, to_json, write_file, write_json

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

Tensors = dict[str, torch.Tensor]

log = logging.getLogger("lockstep")


@dataclasses.dataclass
class RunState:
    """Where a run stands: all that resume needs to know besides the tensors."""

    epoch: int = 1
    """the current epoch, from 1; one more than the last when all are done"""
    step: int = 0
    """optimiser steps done in the whole run"""
    loss_sum: float = 0.0
    """sum of the losses of the current epoch's samples"""
    hits: float = 0.0
    """how many of them were classified rightly"""
    epoch_seconds: float = 0.0
    """time spent training in the current epoch"""
    train_seconds: float = 0.0
    """time spent training in the epochs before"""
    best_accuracy: float | None = None
    """best validation accuracy so far"""
    best_epoch: int | None = None
    """its epoch; of equals the first"""
    rounding: list[str] = dataclasses.field(default_factory=list)
    """why the run is equal to rounding alone and not in bits"""
    observer: dict[str, Any] = dataclasses.field(default_factory=dict)
    """what the observer wants back on resume"""

    def note_rounding(self, reasons: Iterable[str]) -> None:
        """Remember why the run is not equal in bits, each reason once."""
        self.rounding += [reason for reason in reasons if reason not in self.rounding]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are what its manifest says."""

    folder: Path
    state: dict[str, Any]

    def tensors(self, name: str) -> Tensors:
        """The tensors of `name`.safetensors; none where there is no such file."""
        path = self.folder / f"{name}.safetensors"
        return load_file(path) if path.name in self.state["files"] else {}


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: `checkpoints` of the run's output_dir.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self.saved_step: int | None = None

    def save(self, step: int, files: Mapping[str, Tensors], state: dict[str, Any]) -> Path:
        """Write a checkpoint and only then remove the oldest; called on rank 0 alone.

        Args:
            step: names the folder.
            files: tensors of each safetensors file, by the file's name without its ending.
            state: small values, as JSON takes them.
        """
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        names = []
        for name, tensors in files.items():
            path = temporary / f"{name}.safetensors"
            write_tensors(path, tensors)
            names.append(path.name)
        state = {"format_version": FORMAT_VERSION, "files": names, **state}
        write_json(temporary / "state.json", state)
        entries = {name: _describe(temporary / name) for name in [*names, "state.json"]}
        write_json(temporary / MANIFEST, {"files": entries, "checksum": _checksum(entries)})
        if final.exists():  # from before a resume at an older one: the same step of the same run
            shutil.rmtree(final)
        temporary.rename(final)
        sync(self.folder)
        for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
            shutil.rmtree(old)
        return final

    def set_aside_after(self, step: int) -> None:
        """Take the checkpoints after `step` out of the way of a run that goes on from there.

        What metrics.jsonl held at them is cut off; the run will come by there again.
        """
        for folder in sorted(self.folder.glob("step-*")):
            if int(folder.name.removeprefix("step-")) > step:
                aside = folder.with_name(f"superseded-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are named and set aside."""
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                return open_checkpoint(folder)
            except LaterFormatError:
                raise
            except UserError as error:
                aside = folder.with_name(f"damaged-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                log.warning("%s; it is now %s, going back to the one before", error, aside.name)
        return None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check every file of a checkpoint against its manifest.

    Raises:
        UserError: names the file that is missing or damaged, or a format of a later version.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
        entries = dict(manifest["files"])
        whole = manifest["checksum"] == _checksum(entries) and text == to_json(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST}: missing or damaged ({error})") from error
    if not whole:
        raise UserError(f"{folder / MANIFEST}: damaged, its checksum does not hold")
    for name, entry in entries.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise UserError(f"{path}: missing, or no plain file of the checkpoint's folder")
        if _describe(path) != entry:
            raise UserError(f"{path}: damaged, its size or SHA-256 differs from the manifest's")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if state["format_version"] > FORMAT_VERSION:
        raise LaterFormatError(
            f"{folder}: format_version {state['format_version']} is from a later version of "
            f"Lockstep; this one reads up to {FORMAT_VERSION}"
        )
    return Checkpoint(folder, state)


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """An optimiser's state as tensors, and as JSON values for what is no tensor."""
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            kind: dict[str, Any] = tensors if isinstance(value, torch.Tensor) else numbers
            kind[f"{index}.{name}"] = value
    return tensors, numbers


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Tensors, numbers: dict[str, Any]
) -> None:
    """Put a state of `optimizer_state` back; tensors take the memory layout of their parameters."""
    groups = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def weights_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the floating-point tensors' little-endian C-contiguous bytes, in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if tensors[name].is_floating_point():
            digest.update(_packed(tensors[name]).reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all."""
    packed = {name: _packed(tensor) for name, tensor in tensors.items()}
    write_file(path, lambda temporary: save_file(packed, temporary, metadata))


def _packed(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU, C-contiguous and in memory of its own, as safetensors wants them."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _checksum(entries: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
