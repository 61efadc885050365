"""Make checkpoints for tests, and forge them: changed, with a manifest that fits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.base.files import to_json
from trainer.checkpoint.reading import MANIFEST, STATE, checksum, describe
from trainer.training.run_state import RunState


def small_state(step: int = 1) -> dict[str, Any]:
    """Return what state.json of a checkpoint must have, as `Checkpoints.save` takes it."""
    observer = {"metrics_bytes": 0, "wandb_run_id": "0123456789ab"}
    return {
        "run": dataclasses.asdict(RunState(step=step, observer=observer)),
        "optimizer": {},
        "scaler": None,
        "fingerprints": {"data.root": "0" * 64, "model.name": None},
        "environment": {},
    }


def forge(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a checkpoint, and seal what is there now."""
    (folder / name).write_bytes(content)
    seal(folder)


def forge_state(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change state.json, and seal it."""
    state = json.loads((folder / STATE).read_text())
    change(state)
    forge(folder, STATE, json.dumps(state).encode())


def seal(folder: Path, **more: dict[str, Any]) -> None:
    """Write a manifest that fits the files in a folder."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    entries = {name: describe(folder / name) for name in names if name != MANIFEST} | more
    write_manifest(folder, entries)


def write_manifest(folder: Path, entries: dict[str, Any]) -> None:
    """Write a manifest with these entries, with a right checksum."""
    text = to_json({"files": entries, "checksum": checksum(entries)})
    (folder / MANIFEST).write_text(text)
