"""The folder of a run: its lock, its configuration and its status."""

from __future__ import annotations

import errno
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.base import locks
from trainer.base.errors import UserError
from trainer.base.files import write_file, write_json, write_text
from trainer.base.locks import Lock
from trainer.base.strict_json import read_json
from trainer.config import command_line, stored_config
from trainer.config.rules import validate
from trainer.config.run_status import RunStatus, State, read_status
from trainer.config.same_run import PINNED_KEYS, differences, extends
from trainer.config.schema import RunConfig, flatten, replace
from trainer.run.metrics_log import check_records

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class OpenedRun:
    """What is known of a run when its folder has been opened."""

    config: RunConfig
    """with the values filled in that the run was started with"""
    finished: bool
    """whether nothing is left to do"""
    status: RunStatus
    """as the last process left it"""
    may_divide: bool = False
    """whether nobody has said into how many micro-batches a batch is divided"""


class RunFolder:
    """A run's `output_dir`, used on rank 0 only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Lock | None = None

    def open(self, config: RunConfig, pins: dict[str, Any]) -> OpenedRun:
        """Lock the folder for a run; nothing of an earlier run is changed.

        Args:
            config: as asked for.
            pins: values for the pinned keys where neither the configuration nor an earlier start
                has set them.

        Raises:
            UserError: it cannot be written, is in use, or holds another run.
        """
        self._acquire_lock()
        return self.inspect(config, pins)

    def inspect(self, config: RunConfig, pins: dict[str, Any]) -> OpenedRun:
        """Do what `open` does, without locking the folder."""
        stored = _stored_config(self.path)
        known = self._match(config, stored)
        config = fill_pinned(known, pins)
        validate(config)
        status = self._stored_status() if stored else RunStatus()
        longer = stored is not None and extends(config, stored)
        finished = status.state == "finished" and not longer
        return OpenedRun(config, finished, status, known.train.microbatches is None)

    def complete(self, config: RunConfig) -> RunConfig:
        """Return `config` with what an earlier start has filled in, if there was one.

        Raises:
            UserError: the folder holds another run.
        """
        # False too where nobody may look, which is an error when the folder is opened.
        is_run = os.access(self.path / "config.yaml", os.F_OK)
        return self._match(config, _stored_config(self.path) if is_run else None)

    def _match(self, config: RunConfig, stored: RunConfig | None) -> RunConfig:
        if stored and config.resume == "none":
            raise UserError(
                f"resume: none, but {self.path} holds a run; choose another output_dir, "
                f"or resume: auto to go on with it"
            )
        if config.resume not in ("auto", "none"):
            config = _match_stored_run(config, run_folder_of(Path(config.resume)), "resume")
        if stored:
            config = _match_stored_run(config, self.path, "output_dir")
        return config

    def remove_leftovers(self) -> None:
        """Remove the files that a killed process was writing."""
        for path in self.path.glob(".*.*.*"):
            if re.fullmatch(r"\.\w+\.[0-9]+\.\w+", path.name) and not path.is_dir():
                path.unlink()

    def take_metrics(self, saved: Path, length_bytes: int) -> None:
        """Begin metrics.jsonl with the records up to a checkpoint of a run in another folder.

        Raises:
            UserError: the other run's file is damaged, shorter or not a regular file.
        """
        run = run_folder_of(saved)
        if run != self.path.resolve():
            source, target = run / "metrics.jsonl", self.path / "metrics.jsonl"
            check_records(source, length_bytes)

            def copy(temporary: Path) -> None:
                with source.open("rb") as file:
                    temporary.write_bytes(file.read(length_bytes))

            write_file(target, copy)

    def write_config(self, config: RunConfig) -> None:
        """Write config.yaml, from which the run resumes with its own checkpoints."""
        text = command_line.to_yaml(replace(config, {"resume": "auto"}))
        write_text(self.path / "config.yaml", text)

    def write_status(self, state: State, exit_code: int | None, step: int) -> None:
        """Write status.json, for scripts that see only a launcher's exit code."""
        value = {"state": state, "exit_code": exit_code, "step": step}
        write_json(self.path / "status.json", value)

    def release(self) -> None:
        """Unlock the folder, for runs in the same process; the end of a process does it too."""
        if self._lock:
            self._lock.release()

    def check_access(self) -> None:
        """Check that a run could lock the folder now, and leave nothing behind.

        Raises:
            UserError: it cannot be written, or is in use.
        """
        if os.access(self.path / ".lock", os.F_OK):
            try:
                self._acquire_lock()
            finally:
                self.release()
            return
        nearest = nearest_folder(self.path)
        if not nearest.is_dir():
            raise _not_writable(nearest, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise _not_writable(nearest, os.strerror(errno.EACCES))

    def _acquire_lock(self) -> None:
        path = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = locks.try_lock(
                path, "nothing keeps a second run out of this folder, so do not start one"
            )
        except OSError as error:
            raise _not_writable(error.filename, error.strerror) from error
        if self._lock is None:
            raise UserError(
                f"output_dir: {self.path} is in use by another run: "
                f"{locks.describe_holder(path)} has the lock {path}; "
                "wait for it, or choose another output_dir"
            )

    def _stored_status(self) -> RunStatus:
        try:
            return read_status(self.path)
        except UserError as error:
            # It only saves work: a finished run that goes on ends at once, with the same result.
            log.warning("%s; going on as if the run had been killed", error)
            return RunStatus("running")


def read_results(folder: Path) -> dict[str, Any]:
    """Read a run's results.json.

    Raises:
        UserError: the file is missing or damaged.
    """
    return read_json(folder / "results.json")


def nearest_folder(path: Path) -> Path:
    """Return the folder, or the nearest one above it that exists and this user can see."""
    return next(place for place in (path, *path.parents) if os.access(place, os.F_OK))


def run_folder_of(saved: Path) -> Path:
    """Return the run's folder of a checkpoint, which is checkpoints/step-N in it."""
    return saved.resolve().parent.parent


def _stored_config(folder: Path) -> RunConfig | None:
    path = folder / "config.yaml"
    return stored_config.read(path) if path.exists() else None


def _not_writable(path: Path | str, why: str | None) -> UserError:
    return UserError(
        f"output_dir: {path} cannot be written ({why}); choose a folder that you may write to"
    )


def _match_stored_run(config: RunConfig, folder: Path, key: str) -> RunConfig:
    """Return `config` with the pinned values of the run in `folder`.

    Raises:
        UserError: `folder` holds no run, or another one.
    """
    stored = _stored_config(folder)
    if stored is None:
        raise UserError(f"{key}: {folder} holds no run, there is no config.yaml in it")
    config = fill_pinned(config, pinned_values(stored))
    if (stored.model.weights or "").startswith(f"{config.model.weights}@"):
        # Of a repository without a revision: the one that was the newest at the first start.
        config = replace(config, {"model.weights": stored.model.weights})
    # A machine with less memory may resume the run with another value: the engine notes it.
    key_of_memory = "train.evaluation_batch_size"
    stored = replace(stored, {key_of_memory: config.train.evaluation_batch_size})
    if extends(config, stored):
        stored = replace(stored, {"train.epochs": config.train.epochs})
    differing = differences(config, stored)
    if differing:
        hint = ""
        if config.train.epochs > stored.train.epochs and config.train.average_epochs is not None:
            hint = " (train.average_epochs counts from the end of a run, which cannot be moved)"
        elif config.train.epochs > stored.train.epochs:
            hint = (
                f" (a {config.schedule.name} schedule spreads over all epochs, so more of them "
                f"would change every step; constant, piecewise, restarts and plateau can go on)"
            )
        raise UserError(
            f"{key}: {folder} holds a run of another configuration; choose another folder, or the "
            f"same values (asked for against there): {'; '.join(differing)}{hint}"
        )
    return config


def pinned_values(config: RunConfig) -> dict[str, Any]:
    """Return the values of the pinned keys."""
    values = flatten(config)
    return {key: values[key] for key in PINNED_KEYS}


def fill_pinned(config: RunConfig, pins: dict[str, Any]) -> RunConfig:
    """Return `config` with values for the pinned keys that are null in it."""
    values = flatten(config)
    return replace(config, {key: value for key, value in pins.items() if values[key] is None})
