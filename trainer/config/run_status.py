"""Read what a run's status.json says: how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.base.strict_json import check_type, read_json

State = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class RunStatus:
    """What the next start needs from status.json."""

    state: State | None = None
    """None if there was no run"""
    step: int = 0


def read_status(folder: Path) -> RunStatus:
    """Read the status of the run in a folder from its status.json.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / "status.json"
    if not path.exists():
        return RunStatus("running")  # killed between config.yaml and status.json
    status = read_json(path)
    check_type(status.get("state"), State, f"{path}: state")
    check_type(status.get("step"), int, f"{path}: step")
    return RunStatus(status["state"], status["step"])


def describe_unfinished(folder: Path, status: RunStatus) -> str:
    """Say that a command needs a finished run."""
    return (
        f"{folder}: its run is not finished, but {status.state} at step {status.step}; let it come "
        "to its end (the same command goes on)"
    )
