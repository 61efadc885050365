"""Write checkpoints: folders of safetensors and JSON that are whole, or do not exist.

    checkpoints/step-00001234/
        model.safetensors       weights and buffers
        optimizer.safetensors   the optimiser's tensors, named PARAMETER_INDEX.NAME
        best.safetensors        the best weights on validation so far, if there are any
        average.safetensors     the averaged weights, if there are any
        state.json              everything small: position, best, optimiser's numbers, configuration
        manifest.json           size and SHA-256 of each file, and a checksum of itself

A checkpoint is written into a hidden sibling, flushed to the disk and renamed; the manifest is
written last. Nothing is pickled, so opening a checkpoint runs no code.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer.base.errors import FormatVersionError, UnreadableError, UserError
from trainer.base.files import sync, write_json
from trainer.base.tensor_files import Tensors, copy_to_cpu, write_cpu_tensors
from trainer.checkpoint.reading import (
    FORMAT_VERSION,
    MANIFEST,
    STATE,
    Checkpoint,
    checksum,
    describe,
    open_checkpoint,
)
from trainer.config.schema import CheckpointConfig

SUPERSEDED = "superseded-"
"""the start of the names of checkpoints that a run which went back will save again"""

log = logging.getLogger("lockstep")


class Checkpoints:
    """The checkpoints of a run, written one at a time by a thread in the background.

    Args:
        folder: `checkpoints` of the run's output_dir.
        config: how many to keep, and whether a failed save ends the run.
    """

    saves_any = True

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self.folder = folder
        self.config = config
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._saving: Future[None] | None = None
        self.lost = False
        """whether the last save has failed"""

    def save(
        self,
        step: int,
        files: Mapping[str, Tensors],
        state: dict[str, Any],
        *,
        best_step: int | None = None,
        first: Callable[[], None] | None = None,
    ) -> None:
        """Copy the tensors and begin to write a checkpoint; called on rank 0 only.

        An existing checkpoint of this step stays: the run is the same, so it leads to the same end.

        Args:
            step: names the folder.
            files: tensors of each safetensors file, by the file's name without its ending.
            state: small values, as JSON takes them.
            best_step: of the best epoch, whose checkpoint is to stay.
            first: what has to be on the disk before the checkpoint counts.

        Raises:
            UserError: the save before failed, and `checkpoint.on_error` is stop.
        """
        self.wait()
        copies = {
            name: {key: copy_to_cpu(tensor) for key, tensor in tensors.items()}
            for name, tensors in files.items()
        }

        def write() -> None:
            try:
                if first:
                    first()
                self._write(step, copies, state)
            except OSError as error:
                raise UserError(self._explain(step, copies, error)) from error
            self._prune(best_step)

        self._saving = self._writer.submit(write)

    def close(self) -> None:
        """Wait for the last save, before another program may use the folder."""
        try:
            self.wait(needed=True)
        except UserError as error:
            log.warning("%s", error)
        finally:
            self._writer.shutdown()

    def contains(self, saved: Checkpoint) -> bool:
        """Return whether a checkpoint is in this folder."""
        own = [folder.resolve() for folder in step_folders(self.folder)]
        return saved.folder.resolve() in own

    @property
    def failed(self) -> bool:
        """Whether the last save is known to have failed."""
        saving = self._saving
        return saving is not None and saving.done() and saving.exception() is not None

    def wait(self, *, needed: bool = False) -> None:
        """Wait until the last save is on the disk.

        Args:
            needed: a failure is an error even where `checkpoint.on_error` is continue.

        Raises:
            UserError: it could not be written; gives the space that is free and the space it takes.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        self.lost = saving.exception() is not None
        try:
            saving.result()
        except UserError as error:
            if needed or self.config.on_error == "stop":
                raise
            log.warning("%s; the training goes on", error)

    def _write(self, step: int, files: Mapping[str, Tensors], state: dict[str, Any]) -> None:
        final = self.folder / f"step-{step:08d}"
        if final.exists():
            return
        temporary = self.folder / f".{final.name}"
        remove(temporary)
        temporary.mkdir(parents=True)
        try:
            names = []
            for name, tensors in files.items():
                path = temporary / f"{name}.safetensors"
                write_cpu_tensors(path, tensors)
                names.append(path.name)
            state = {"format_version": FORMAT_VERSION, "files": names, **state}
            write_json(temporary / STATE, state)
            entries = {name: describe(temporary / name) for name in [*names, STATE]}
            write_json(temporary / MANIFEST, {"files": entries, "checksum": checksum(entries)})
            temporary.rename(final)
        except OSError:
            remove(temporary)  # to free its space
            raise
        sync(self.folder)
        sync(self.folder.parent)  # the folder itself may be new
        # The run has reached the place again from which it went back to an older one.
        for aside in step_folders(self.folder, SUPERSEDED):
            if step_of(aside) <= step:
                remove(aside)

    def _prune(self, best_step: int | None) -> None:
        try:
            for old in step_folders(self.folder)[: -self.config.keep]:
                if step_of(old) != best_step:
                    # A half-removed one must not look like a damaged checkpoint.
                    remove(old.rename(old.with_name(f".{old.name}")))
        except OSError as error:
            log.warning("%s: an old checkpoint could not be removed: %s", self.folder, error)

    def _explain(self, step: int, files: Mapping[str, Tensors], error: OSError) -> str:
        wanted = sum(tensor.nbytes for tensors in files.values() for tensor in tensors.values())
        newest = step_folders(self.folder)[-1:]
        return (
            f"{self.folder}: the checkpoint of step {step} could not be saved "
            f"({error.strerror}): it takes {_megabytes(wanted)}, and "
            f"{_megabytes(shutil.disk_usage(self.folder.parent).free)} are free; "
            f"the newest one is {newest[0].name if newest else 'none'}"
        )

    def remove_leftovers(self) -> None:
        """Remove what a killed save left, before anything is saved."""
        for path in self.folder.glob(".step-*"):
            remove(path)

    def supersede_after(self, step: int) -> None:
        """Rename the checkpoints after `step`, from which a run goes on, to SUPERSEDED names.

        Their part of metrics.jsonl is cut off; the run will reach them again.
        """
        for folder in step_folders(self.folder):
            if step_of(folder) > step:
                aside = folder.with_name(f"{SUPERSEDED}{folder.name}")
                remove(aside)
                folder.rename(aside)

    def newest(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint; damaged ones are renamed, with a warning."""
        for folder in reversed(step_folders(self.folder)):
            try:
                return open_checkpoint(folder)
            except (FormatVersionError, UnreadableError):
                raise
            except UserError as error:
                aside = rename_damaged(folder, "damaged")
                log.warning("%s; it is now %s, going back to the one before", error, aside.name)
        return None


class NoCheckpoints(Checkpoints):
    """For an engine that saves nothing, as its run is recomputed, tried or measured."""

    saves_any = False

    def __init__(self) -> None:
        super().__init__(Path(), CheckpointConfig())

    def newest(self) -> Checkpoint | None:
        """Return None: there is nothing to go back to."""
        return None

    def contains(self, saved: Checkpoint) -> bool:
        """Return False."""
        return False


def step_folders(folder: Path, prefix: str = "") -> list[Path]:
    """Return the folders named as a checkpoint, from the oldest, without copies of other names."""
    paths = folder.glob(f"{prefix}step-*")
    found = [path for path in paths if re.fullmatch(rf"{prefix}step-[0-9]+", path.name)]
    return sorted(found, key=lambda path: (step_of(path), path.name))


def rename_damaged(folder: Path, why: str) -> Path:
    """Rename a checkpoint to WHY-step-N, with a number if there is one already."""
    aside = folder.with_name(f"{why}-{folder.name}")
    number = 1
    while aside.exists() or aside.is_symlink():
        number += 1
        aside = folder.with_name(f"{why}-{folder.name}-{number}")
    return folder.rename(aside)


def remove(path: Path) -> None:
    """Remove a folder with its content, or a file or link, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def step_of(folder: Path) -> int:
    """Return the step that a checkpoint's folder is named after."""
    return int(folder.name.rpartition("-")[2])


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
