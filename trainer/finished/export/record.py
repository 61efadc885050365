"""exports.json in a run's folder: what was written of its model, and what it lost by that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.base import locks
from trainer.base.files import write_json
from trainer.base.strict_json import check_type, read_json

NAME = "exports.json"
_LOCK = ".exports.lock"


def key_of(form: str, *, with_preprocessing: bool) -> str:
    """Return the name of an export among those of its run."""
    return form + "_with_preprocessing" * with_preprocessing


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of a run's exports, by `key_of`; empty where nothing was exported.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    found = read_json(path)
    check_type(found, dict[str, dict[str, Any]], str(path))
    return found


def add(folder: Path, key: str, facts: dict[str, Any]) -> None:
    """Note an export; an earlier one of its format is forgotten.

    Raises:
        UserError: the file is damaged.
        OSError: it cannot be written.
    """
    # Two exports at once may end at once.
    with locks.lock_file(folder / _LOCK, "notes an export", "export one format after the other"):
        write_json(folder / NAME, read(folder) | {key: facts})
