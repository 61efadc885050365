"""Compare two runs by the files in their folders: bit-identical, or where they diverge."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from trainer.base import numerics
from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, read_json
from trainer.base.tensor_files import Tensors, read_tensors
from trainer.checkpoint.reading import STATE, open_checkpoint
from trainer.checkpoint.writing import step_folders
from trainer.config import same_run, stored_config
from trainer.network.model_state import same_bits
from trainer.run.metrics_log import read_records
from trainer.run.run_folder import read_results
from trainer.training.observer import Record

MOST_TENSORS = 5

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class RunFiles:
    """What is compared of a run, finished or not."""

    folder: Path
    records: list[Record]
    """the lines of metrics.jsonl, in order"""
    results: dict[str, Any]
    """results.json; empty if the run has not ended"""

    def environment(self) -> numerics.Environment:
        """Return what decided how the run's numbers round, as far as known."""
        return self.results.get("environment") or self._newest_state("environment")

    def fingerprint(self) -> str | None:
        """Return the fingerprint of the run's images, if known."""
        found = self.results.get("data", {}).get("fingerprint")
        found = found or self._newest_state("fingerprints").get("data.root")
        check_type(found, str | None, f"{self.folder}: the fingerprint of its images")
        return found

    def _newest_state(self, key: str) -> dict[str, Any]:
        """Return a part of the newest checkpoint's state; empty if there is no checkpoint."""
        for checkpoint in step_folders(self.folder / "checkpoints")[-1:]:
            path = checkpoint / STATE
            found: dict[str, Any] = read_json(path).get(key, {})
            check_type(found, dict[str, str | None], f"{path}: {key}")
            return found
        return {}


def read(folder: Path) -> RunFiles:
    """Read the files of the run in a folder.

    Raises:
        UserError: the folder does not contain a run, or a file in it is damaged.
    """
    metrics, path = folder / "metrics.jsonl", folder / "results.json"
    if not metrics.exists():
        raise UserError(f"{folder}: not a run, there is no metrics.jsonl in it")
    records = list(read_records(metrics))
    results = read_results(folder) if path.exists() else {}
    check_type(results.get("environment", {}), dict[str, str], f"{path}: environment")
    for part in ("data", "test"):
        check_type(results.get(part, {}), dict[str, Any], f"{path}: {part}")
    return RunFiles(folder, records, results)


def compare(ours: RunFiles, theirs: RunFiles) -> dict[str, Any]:
    """Compare two runs.

    Returns:
        `identical`; `steps` compared; `weights_sha256` at the end, None if a run has none;
        `first_difference` in words, or None; `configuration`, the keys that could be the cause;
        `expected_because`, differences of machine, threads or versions that change the rounding;
        `images`, in words, where the runs were made from different ones;
        `tensors`, those that differ most in the first common checkpoint with any difference.

    Raises:
        UserError: neither run has done a step, or a file is damaged.
    """
    runs = (ours, theirs)
    steps = [sum(record["event"] == "step" for record in run.records) for run in runs]
    if steps == [0, 0]:
        raise UserError(
            f"{ours.folder}, {theirs.folder}: nothing to compare, neither has done a step yet"
        )
    first = _first_difference(ours, theirs)
    return {
        "identical": first is None,
        "steps": min(steps),
        "weights_sha256": ours.results.get("final_weights_sha256"),
        "first_difference": first,
        "configuration": [] if first is None else _configuration_differences(ours, theirs),
        "expected_because": numerics.differences(ours.environment(), theirs.environment()),
        "images": _image_differences(ours, theirs),
        "tensors": [] if first is None else _tensor_differences(ours.folder, theirs.folder),
    }


def _first_difference(ours: RunFiles, theirs: RunFiles) -> str | None:
    for mine, other in zip_longest(ours.records, theirs.records):
        if mine is None or other is None:
            return f"one run ends before {_position(mine or other)}"
        if mine["event"] != other["event"]:
            return f"{_position(mine)} against {_position(other)}"
        for key in ("step", "epoch", "lr", "loss", "weights_sha256", "validation_loss"):
            if mine.get(key) != other.get(key):
                return f"{_position(mine)}: {key} {mine.get(key)} against {other.get(key)}"
    for key, what in {
        "final_weights_sha256": "the last weights, though every recorded loss is equal",
        "weights_sha256": "the chosen weights, though the last ones are equal",
    }.items():
        if ours.results.get(key) != theirs.results.get(key):
            return f"{what}: {ours.results.get(key)} against {theirs.results.get(key)}"
    return None


def _position(record: Mapping[str, Any]) -> str:
    if record["event"] == "step":
        return f"step {record['step']} (epoch {record['epoch']})"
    return f"the end of epoch {record['epoch']}"


def _configuration_differences(ours: RunFiles, theirs: RunFiles) -> list[str]:
    paths = [run.folder / "config.yaml" for run in (ours, theirs)]
    if not all(path.exists() for path in paths):
        return []
    return same_run.differences(*map(stored_config.read, paths))


def _image_differences(ours: RunFiles, theirs: RunFiles) -> list[str]:
    found = []
    mine, other = ours.fingerprint(), theirs.fingerprint()
    if mine and other and mine != other:
        found.append(
            f"made from different images, or from the same ones divided differently: {mine[:12]} "
            f"in {ours.folder}, {other[:12]} in {theirs.folder}"
        )
    tested = [run.results.get("data", {}).get("test_fingerprint") for run in (ours, theirs)]
    if all(tested) and tested[0] != tested[1]:
        found.append("tested on different images: their test accuracies do not compare")
    return found


def _tensor_differences(ours: Path, theirs: Path) -> list[dict[str, Any]]:
    """Return the tensors that differ most in the first common checkpoint where any does.

    The checkpoints may all be older than the difference; model.safetensors is the last resort.
    """
    steps = [
        {folder.name for folder in step_folders(run / "checkpoints")} for run in (ours, theirs)
    ]
    for name in sorted(steps[0] & steps[1]):
        try:
            mine, other = (
                open_checkpoint(run / "checkpoints" / name).tensors("model")
                for run in (ours, theirs)
            )
        except UserError as error:
            log.warning("skipped: %s", error)
            continue
        if rows := _differing(mine, other, name):
            return rows
    models = [run / "model.safetensors" for run in (ours, theirs)]
    if all(model.exists() for model in models):
        return _differing(read_tensors(models[0]), read_tensors(models[1]), "model.safetensors")
    return []


def _differing(ours: Tensors, theirs: Tensors, where: str) -> list[dict[str, Any]]:
    """Return the tensors that differ most, those without a counterpart first."""
    rows: list[tuple[float, dict[str, Any]]] = []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        largest = None
        if mine is not None and other is not None and mine.shape == other.shape:
            if same_bits(mine, other):
                continue
            largest = _largest_difference(mine, other)
        row = {"name": name, "checkpoint": where, "largest_difference": largest}
        rows.append((float("inf") if largest is None else largest, row))
    rows.sort(key=lambda row: row[0], reverse=True)
    return [row for _, row in rows[:MOST_TENSORS]]


def _largest_difference(mine: torch.Tensor, other: torch.Tensor) -> float:
    """Return infinity where only one of two numbers is NaN."""
    difference = (mine.to(torch.complex128) - other.to(torch.complex128)).abs()
    equal = (mine == other) | (mine.isnan() & other.isnan())
    return float(difference.nan_to_num(nan=float("inf")).masked_fill(equal, 0.0).max())
