"""Compute a run again: the engine as it was, and nothing written to the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from models import timm_models
from trainer.base.errors import UserError
from trainer.base.strict_json import nan_to_null
from trainer.checkpoint.reading import Checkpoint
from trainer.checkpoint.writing import NoCheckpoints
from trainer.config import plugin_checks, plugins, stored_config
from trainer.config.rules import validate
from trainer.config.schema import RunConfig, replace
from trainer.data.environment import describe_environment
from trainer.finished import run_record
from trainer.finished.run_record import Position, RunRecord
from trainer.network import model_state
from trainer.network.model_state import same_bits
from trainer.ranks import collectives
from trainer.ranks.preemption import StopRequest
from trainer.run.engine_builder import build_engine
from trainer.training.engine import Engine
from trainer.training.observer import Record
from trainer.training.snapshot import Files

STEP_KEYS = ("lr", "loss")
EPOCH_KEYS = (
    "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "weights_sha256",
)  # fmt: skip
TOLERANT_KEYS = ("lr", "loss", "train_loss", "validation_loss")
"""compared to a tolerance if there is one: digests cannot be near each other, accuracies jump"""

POSITION_KEYS = (
    "epoch", "step", "loss_sum", "hits", "trained_samples",
    "last_accuracy", "best_accuracy", "best_epoch", "best_step",
)  # fmt: skip
"""of a checkpoint's state.json: without its times and the length of metrics.jsonl"""


@dataclass(frozen=True)
class Plan:
    """Which part of a run to compute again."""

    run: RunRecord
    start: Checkpoint | None
    """None: the start of the run"""
    stops: list[Checkpoint]
    """those on the way or, where there are none, the next one: they say how the run rounded"""
    end: Position


def configuration(folder: Path, changes: Mapping[str, Any]) -> RunConfig:
    """Read the configuration of the run in a folder, to compute it again.

    Args:
        changes: what is different here, by the keys: data.root, model.weights, threads, and the
            names of user-defined code, as the user has given them.

    Raises:
        UserError: there is no run, it would run code that the user has not named or that is not
            at hand, or load weights that timm would unpickle; or a value is out of range.
    """
    config, path = stored_config.read_folder(folder), folder / "config.yaml"
    if config.threads is None or config.train.microbatches is None:
        raise UserError(
            f"{path}: threads or train.microbatches is null; the first start of a run fills them "
            f"in, so no run has written this file"
        )
    plugin_checks.check_code(config, folder, changes, plugins.CODE)
    # Leaving the argument out would not do, as the run starts from these weights.
    for key in timm_models.WEIGHTS_ARGUMENTS:
        if config.model.name.startswith(timm_models.PREFIX) and config.model.args.get(key):
            raise UserError(
                f"{path}: model.args: {key} starts the run from weights that timm would load; a "
                f"run can be computed again where it starts from random ones or model.weights"
            )
    config = replace(config, {"processes": None, "train.max_seconds": None, **changes})
    validate(config)
    return config


def build(
    accelerator: Accelerator, config: RunConfig, plan: Plan, tolerance: float | None
) -> tuple[Engine, list[str]]:
    """Build the engine of a run where the plan starts; a collective.

    Returns:
        The engine, and why equal bits cannot be promised here, the same on all ranks.

    Raises:
        UserError: they cannot be promised and there is no tolerance; or images or network are not
            those of the run, or not at hand.
    """
    run, start = plan.run, plan.start
    here = describe_environment(accelerator.device, config)
    not_promised = collectives.run_on_main_rank(
        accelerator, lambda: run_record.rounding_differences(run, start, plan.stops, here)
    )
    not_promised += collectives.check_same_start(
        accelerator, weights="", images="", environment=here
    )
    if config.train.reduction == "fast":
        not_promised.append("train.reduction: fast, whose sums depend on the process count")
    not_promised = list(dict.fromkeys(not_promised))
    if not_promised and tolerance is None:
        raise UserError(
            f"{run.folder}: cannot be computed again in the same bits here (there against here): "
            f"{'; '.join(not_promised)}; use what it was made with, or add --tolerance 0.01 to "
            f"compare only losses, to that relative difference"
        )
    engine = build_engine(
        accelerator, config, NoCheckpoints(), StopRequest(), resumes=start is not None
    )

    def check_images_and_code() -> None:
        saved = start or next(run_record.checkpoints(run.folder), None)
        known = {"data.root": run.results["data"]["fingerprint"]} if run.results else {}
        known = saved.state["fingerprints"] if saved else known
        ours = engine.snapshot.fingerprints
        engine.snapshot.check_fingerprints({**ours, **known}, run.folder)

    # The other ranks have the same.
    collectives.run_on_main_rank(accelerator, check_images_and_code)
    if start:
        engine.load(start)
    engine.state.skipped_steps = run.skipped_steps
    collectives.check_same_start(
        accelerator,
        weights=model_state.digest(engine.module),
        images=engine.data.fingerprint,
        environment=engine.environment,
    )
    return engine, not_promised


class RecordComparison:
    """The observer that compares the figures of a recomputation with metrics.jsonl.

    Args:
        run: as it was.
        tolerance: relative, for losses; None: everything has to be equal.
        bar: tqdm's, moved on by each step.
    """

    def __init__(self, run: RunRecord, tolerance: float | None, bar: Any) -> None:
        self.run = run
        self.tolerance = tolerance
        self.bar = bar
        self.first_difference: str | None = None
        self.steps = 0
        """compared so far"""
        self.epochs = 0
        """compared so far"""
        self.largest = 0.0
        """relative difference of a loss"""
        self.last_step: Record = {}
        """the line of the step that was computed last"""

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """Do nothing: there is nothing to compare yet."""

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Compare the steps since the last call."""
        for record in records:
            stored = self.run.steps.get(record["step"])
            where = f"step {record['step']} (epoch {record['epoch']})"
            self._compare(where, STEP_KEYS, record, stored)
            self.last_step = record
        self.steps += len(records)
        self.bar.update(len(records))

    def epoch_done(self, record: Record) -> None:
        """Compare an epoch that was trained and validated."""
        stored = self.run.epochs.get(record["epoch"])
        self._compare(f"the end of epoch {record['epoch']}", EPOCH_KEYS, record, stored)
        self.epochs += 1

    def position(self) -> Record:
        """Return nothing to remember: no checkpoint is written."""
        return {}

    def sync(self) -> None:
        """Do nothing: nothing is written."""

    def go_back(self, position: Record) -> None:
        """Do nothing: there is no checkpoint to go back to."""

    def note(self, difference: str | None) -> None:
        """Remember a difference, in words, if it is the first."""
        self.first_difference = self.first_difference or difference

    def agrees(self, key: str, found: Any, stored: Any) -> bool:
        """Return whether a figure is the run's; what JSON has no number for is null there."""
        found, stored = nan_to_null(found), nan_to_null(stored)
        if self.tolerance is None or found == stored:
            return bool(found == stored)
        if key not in TOLERANT_KEYS:
            return True
        if found is None or stored is None:
            return False
        difference = abs(found - stored) / max(abs(found), abs(stored))
        self.largest = max(self.largest, difference)
        return bool(difference <= self.tolerance)

    def _compare(
        self, where: str, keys: Sequence[str], found: Record, stored: Record | None
    ) -> None:
        if stored is None:
            self.note(f"{where} has no line in metrics.jsonl")
            return
        for key in keys:
            if not self.agrees(key, found[key], stored.get(key)):
                self.note(
                    f"{where}: {key} {stored.get(key)} in the run, {nan_to_null(found[key])} here"
                )


def checkpoint_difference(files: Files, small: Mapping[str, Any], saved: Checkpoint) -> str | None:
    """Say how what would be saved differs from a checkpoint; None if it does not.

    Args:
        files: tensors of each file, as `Snapshot.collect` gives them.
        small: the small values, likewise.
    """
    where = saved.folder.name
    for key in POSITION_KEYS:
        if small["run"][key] != saved.state["run"][key]:
            return f"{where}: {key} {saved.state['run'][key]} in the run, {small['run'][key]} here"
    for name, tensors in files.items():
        stored = saved.tensors(name)
        if tensors.keys() != stored.keys():
            return f"{where}: other tensors in {name}.safetensors"
        for key in sorted(tensors):
            if not same_bits(tensors[key], stored[key]):
                return f"{where}: {key} in {name}.safetensors"
    for key in ("optimizer", "scaler"):
        if small[key] != saved.state[key]:
            return f"{where}: {key} in state.json"
    return None
