"""The folder of a run: who may write into it, what it was configured as, and how it stands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from trainer import command_line
from trainer.config import PINNED_KEYS, RunConfig, differences, flatten, replace, validate
from trainer.errors import UserError
from trainer.files import write_json, write_text

State = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Opening:
    """What a run's folder said when it was opened."""

    config: RunConfig
    """the configuration with everything filled in that belongs to the run"""
    state: State | None
    """as the last process left it; None where there was no run"""


class RunFolder:
    """A run's `output_dir`, used on rank 0 alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def open(self, config: RunConfig, pins: dict[str, int]) -> Opening:
        """Take the folder for a run; nothing of an earlier run is changed.

        Args:
            config: as asked for.
            pins: values for the pinned keys where neither the configuration nor the folder, at an
                earlier start, has set them.

        Raises:
            UserError: it cannot be written, is in use, or holds a run that is another.
        """
        self._take()
        stored = _stored_config(self.path)
        if stored and config.resume == "none":
            raise UserError(
                f"resume: none, but {self.path} holds a run; choose another output_dir, "
                f"or resume: auto to go on with it"
            )
        if config.resume not in ("auto", "none"):
            config = _as_there(config, _run_of(Path(config.resume)), "resume")
        if stored:
            config = _as_there(config, self.path, "output_dir")
        config = _pin(config, pins)
        validate(config)
        return Opening(config, self._stored_state() if stored else None)

    def take_metrics(self, saved: Path, length_bytes: int) -> None:
        """Begin metrics.jsonl with what led to a checkpoint of a run in another folder."""
        source = _run_of(saved) / "metrics.jsonl"
        target = self.path / "metrics.jsonl"
        if source.resolve() != target.resolve():
            with source.open("rb") as file:
                write_text(target, file.read(length_bytes).decode("utf-8"))

    def write_config(self, config: RunConfig) -> None:
        """Write config.yaml; from now on the run goes on from its own checkpoints."""
        text = command_line.to_yaml(replace(config, {"resume": "auto"}))
        write_text(self.path / "config.yaml", text)

    def write_status(self, state: State, exit_code: int | None, step: int) -> None:
        """Write status.json, for scripts that see only a launcher's exit code."""
        value = {"state": state, "exit_code": exit_code, "step": step}
        write_json(self.path / "status.json", value)

    def release(self) -> None:
        """Give up the folder, for runs in the same process; the end of a process does it too."""
        if self._lock:
            self._lock.close()

    def _take(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(
                f"output_dir: {self.path} cannot be written ({error.strerror}); "
                f"choose a folder that you may write to"
            ) from error
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            return
        try:
            # The kernel releases the lock with the process, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"output_dir: {self.path} is in use by another run; wait for it, or choose "
                f"another output_dir"
            ) from error

    def _stored_state(self) -> State | None:
        path = self.path / "status.json"
        if not path.exists():
            return "running"  # killed between config.yaml and status.json
        state: State = json.loads(path.read_text(encoding="utf-8"))["state"]
        return state


def _run_of(saved: Path) -> Path:
    """The run's folder of a checkpoint, which stands at checkpoints/step-N in it."""
    return saved.resolve().parent.parent


def _stored_config(folder: Path) -> RunConfig | None:
    path = folder / "config.yaml"
    return command_line.read(path) if path.exists() else None


def _as_there(config: RunConfig, folder: Path, key: str) -> RunConfig:
    """`config` with the pins of the run in `folder`, which must be the same run."""
    stored = _stored_config(folder)
    if stored is None:
        raise UserError(f"{key}: {folder} holds no run, there is no config.yaml in it")
    config = _pin(config, {name: flatten(stored)[name] for name in PINNED_KEYS})
    differing = differences(config, stored)
    if differing:
        raise UserError(
            f"{key}: {folder} holds a run of another configuration; choose another folder, or the "
            f"same values (asked for against there): {'; '.join(differing)}"
        )
    return config


def _pin(config: RunConfig, pins: dict[str, int]) -> RunConfig:
    values = flatten(config)
    return replace(config, {key: pin for key, pin in pins.items() if values[key] is None})
