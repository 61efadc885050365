"""Say whether two runs are bit-identical, or where they part.

example: python -m trainer compare runs/one runs/two
"""

from __future__ import annotations

import argparse
import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

from trainer.errors import UserError

MOST_TENSORS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("run_a", type=Path, help="a run's folder")
    parser.add_argument("run_b", type=Path, help="another run's folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison.

    Raises:
        UserError: a folder holds no run.
    """
    found = compare(arguments.run_a, arguments.run_b)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    if found["identical"]:
        print(f"bit-identical: {found['steps']} steps, weights {found['weights_sha256']}")
    else:
        print(f"different: {found['first_difference']}")
    for difference in found["expected_because"]:
        print(f"equal at best to rounding, not in bits: {difference}")
    for tensor in found["tensors"]:
        print(f"  {tensor['name']}: largest difference {tensor['largest_difference']:.3g}")


def compare(run_a: Path, run_b: Path) -> dict[str, Any]:
    """What two runs have in common.

    Returns:
        `identical`; `steps` compared; `weights_sha256` at their end, None where a run has none;
        `first_difference` in words, or None; `expected_because`, differences of machine, threads
        or versions that change the rounding; `tensors`, those of the newest common checkpoint
        that differ most.
    """
    records = [_records(run) for run in (run_a, run_b)]
    first = _first_difference(*records)
    digests = [_results(run).get("final_weights_sha256") for run in (run_a, run_b)]
    if first is None and digests[0] != digests[1]:
        first = "the final weights, though every recorded loss is equal"
    return {
        "identical": first is None,
        "steps": sum(record["event"] == "step" for record in records[0]),
        "weights_sha256": digests[0],
        "first_difference": first,
        "expected_because": _environment_differences(run_a, run_b),
        "tensors": [] if first is None else _tensor_differences(run_a, run_b),
    }


def _records(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{run}: no run, there is no metrics.jsonl in it")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _results(run: Path) -> dict[str, Any]:
    path = run / "results.json"
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return results


def _first_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str | None:
    for mine, other in zip_longest(ours, theirs):
        if mine is None or other is None:
            longer = mine or other
            return f"one run ends before {_place(longer)}"
        if mine["event"] != other["event"]:
            return f"{_place(mine)} against {_place(other)}"
        for key in ("step", "epoch", "lr", "loss", "weights_sha256", "validation_loss"):
            if mine.get(key) != other.get(key):
                return f"{_place(mine)}: {key} {mine.get(key)} against {other.get(key)}"
    return None


def _place(record: dict[str, Any]) -> str:
    if record["event"] == "step":
        return f"step {record['step']} (epoch {record['epoch']})"
    return f"the end of epoch {record['epoch']}"


def _environment_differences(run_a: Path, run_b: Path) -> list[str]:
    from trainer.environment import differences

    ours, theirs = (_results(run).get("environment", {}) for run in (run_a, run_b))
    return differences(ours, theirs)


def _tensor_differences(run_a: Path, run_b: Path) -> list[dict[str, Any]]:
    """Of the newest checkpoint that both have, the tensors that differ most."""
    from trainer.checkpoint import open_checkpoint

    steps = [{path.name for path in run.glob("checkpoints/step-*")} for run in (run_a, run_b)]
    common = sorted(steps[0] & steps[1])
    if not common:
        return []
    ours, theirs = (
        open_checkpoint(run / "checkpoints" / common[-1]).tensors("model") for run in (run_a, run_b)
    )
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "checkpoint": common[-1],
            "largest_difference": float((ours[name].double() - theirs[name].double()).abs().max()),
        }
        for name in ours
        if name in theirs and ours[name].shape == theirs[name].shape
    ]
    differing = [row for row in rows if row["largest_difference"] != 0]
    return sorted(differing, key=lambda row: -row["largest_difference"])[:MOST_TENSORS]
