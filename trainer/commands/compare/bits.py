"""Whether two runs are bit-identical, or where they part."""

from __future__ import annotations

import logging
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, read_json
from trainer.config import schema, stored_config
from trainer.run import run_folder
from trainer.run.metrics_log import read_records

if TYPE_CHECKING:
    import torch

    from trainer.base.numerics import Environment
    from trainer.base.tensor_files import Tensors

MOST_TENSORS = 5

log = logging.getLogger("lockstep")


def compare(run_a: Path, run_b: Path) -> dict[str, Any]:
    """What two runs have in common.

    Returns:
        `identical`; `steps` compared; `weights_sha256` at their end, None where a run has none;
        `first_difference` in words, or None; `configuration`, the keys that could be the cause;
        `expected_because`, differences of machine, threads or versions that change the rounding;
        `images`, in words, where they were made from different ones;
        `tensors`, those that differ most in the first common checkpoint with any difference.

    Raises:
        UserError: a folder holds no run, or a file in it is damaged.
    """
    runs = (run_a, run_b)
    records = [read_metrics(run) for run in runs]
    steps = [sum(record["event"] == "step" for record in lines) for lines in records]
    if steps == [0, 0]:
        raise UserError(f"{run_a}, {run_b}: there is nothing to compare, both are before step 1")
    results = [read_results(run) for run in runs]
    first = _first_difference(*records) or _difference_at_the_end(*results)
    return {
        "identical": first is None,
        "steps": min(steps),
        "weights_sha256": results[0].get("final_weights_sha256"),
        "first_difference": first,
        "configuration": [] if first is None else _configuration_differences(*runs),
        "expected_because": _environment_differences(*runs),
        "images": _image_differences(*runs),
        "tensors": [] if first is None else _tensor_differences(*runs),
    }


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run, in order.

    Raises:
        UserError: a folder holds no run, or the file is damaged.
    """
    path = run / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{run}: no run, there is no metrics.jsonl in it")
    return list(read_records(path))


def read_results(run: Path) -> dict[str, Any]:
    """What is in a run's results.json; nothing where the run has not ended.

    Raises:
        UserError: the file is damaged.
    """
    path = run / "results.json"
    found = run_folder.read_results(run) if path.exists() or path.is_symlink() else {}
    check_type(found.get("environment", {}), dict[str, str], f"{path}: environment")
    check_type(found.get("data", {}), dict[str, Any], f"{path}: data")
    return found


def _first_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str | None:
    for mine, other in zip_longest(ours, theirs):
        if mine is None or other is None:
            return f"one run ends before {_place(mine or other)}"
        if mine["event"] != other["event"]:
            return f"{_place(mine)} against {_place(other)}"
        for key in ("step", "epoch", "lr", "loss", "weights_sha256", "validation_loss"):
            if mine.get(key) != other.get(key):
                return f"{_place(mine)}: {key} {mine.get(key)} against {other.get(key)}"
    return None


def _difference_at_the_end(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    for key, what in {
        "final_weights_sha256": "the last weights, though every recorded loss is equal",
        "weights_sha256": "the chosen weights, though the last ones are equal",
    }.items():
        if ours.get(key) != theirs.get(key):
            return f"{what}: {ours.get(key)} against {theirs.get(key)}"
    return None


def _place(record: dict[str, Any]) -> str:
    if record["event"] == "step":
        return f"step {record['step']} (epoch {record['epoch']})"
    return f"the end of epoch {record['epoch']}"


def _configuration_differences(run_a: Path, run_b: Path) -> list[str]:
    paths = [run / "config.yaml" for run in (run_a, run_b)]
    if not all(path.exists() for path in paths):
        return []
    return schema.differences(stored_config.read(paths[0]), stored_config.read(paths[1]))


def _environment_differences(run_a: Path, run_b: Path) -> list[str]:
    from trainer.base.numerics import differences

    return differences(_environment(run_a), _environment(run_b))


def _environment(run: Path) -> Environment:
    """Where a run was done: from its results or, where it has not ended, its newest checkpoint."""
    found: Environment = read_results(run).get("environment") or _newest_state(run, "environment")
    return found


def _image_differences(run_a: Path, run_b: Path) -> list[str]:
    """What figures of different images are not to be taken for."""
    found = []
    ours, theirs = map(_fingerprint, (run_a, run_b))
    if ours and theirs and ours != theirs:
        found.append(
            f"made from different images, or from the same divided otherwise: {ours[:12]} in "
            f"{run_a}, {theirs[:12]} in {run_b}"
        )
    mine, others = (read_results(run).get("data", {}) for run in (run_a, run_b))
    tested = [data.get("test_fingerprint") for data in (mine, others)]
    if all(tested) and tested[0] != tested[1]:
        found.append("tested on different images: their test accuracies do not compare")
    return found


def _fingerprint(run: Path) -> str | None:
    """Of a run's images, as far as it is known."""
    found = read_results(run).get("data", {}).get("fingerprint")
    found = found or _newest_state(run, "fingerprints").get("data.root")
    check_type(found, str | None, f"{run}: the fingerprint of its images")
    return found


def _newest_state(run: Path, key: str) -> dict[str, Any]:
    """What the newest checkpoint says of a key; nothing where there is no checkpoint."""
    for path in sorted(run.glob("checkpoints/step-*/state.json"), reverse=True):
        if not _is_linked(path, run):
            found: dict[str, Any] = read_json(path).get(key, {})
            check_type(found, dict[str, str | None], f"{path}: {key}")
            return found
    return {}


def _is_linked(path: Path, run: Path) -> bool:
    """Whether a link leads from the run's folder to a file."""
    return path.resolve() != run.resolve() / path.relative_to(run)


def _tensor_differences(run_a: Path, run_b: Path) -> list[dict[str, Any]]:
    """The tensors that differ most in the first common checkpoint where any does.

    The kept checkpoints may all be older than the difference; model.safetensors is the last resort.
    """
    from trainer.base.tensor_files import read_tensors
    from trainer.checkpoint.reading import open_checkpoint

    steps = [
        {path.name for path in run.glob("checkpoints/step-*") if not _is_linked(path, run)}
        for run in (run_a, run_b)
    ]
    for name in sorted(steps[0] & steps[1]):
        try:
            ours, theirs = (
                open_checkpoint(run / "checkpoints" / name).tensors("model")
                for run in (run_a, run_b)
            )
        except UserError as error:
            log.warning("passed over: %s", error)
            continue
        if rows := _differing(ours, theirs, name):
            return rows
    models = [run / "model.safetensors" for run in (run_a, run_b)]
    if all(model.exists() for model in models):
        return _differing(read_tensors(models[0]), read_tensors(models[1]), "model.safetensors")
    return []


def _differing(ours: Tensors, theirs: Tensors, where: str) -> list[dict[str, Any]]:
    """The tensors that differ most, those without a counterpart first."""
    from trainer.base.tensor_files import weights_sha256

    rows: list[dict[str, Any]] = []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if mine is None or other is None or mine.shape != other.shape:
            largest = None
        elif weights_sha256({name: mine}) == weights_sha256({name: other}):
            continue
        else:
            largest = _largest_difference(mine, other)
        rows.append({"name": name, "checkpoint": where, "largest_difference": largest})
    rows.sort(key=lambda row: _worst(row["largest_difference"]), reverse=True)
    return rows[:MOST_TENSORS]


def _worst(difference: float | None) -> float:
    return float("inf") if difference is None else difference


def _largest_difference(mine: torch.Tensor, other: torch.Tensor) -> float:
    """Infinite where one alone is not a number."""
    import torch

    difference = (mine.to(torch.complex128) - other.to(torch.complex128)).abs()
    equal = (mine == other) | (mine.isnan() & other.isnan())
    return float(difference.nan_to_num(nan=float("inf")).masked_fill(equal, 0.0).max())
