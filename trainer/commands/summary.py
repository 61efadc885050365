"""Show mean and spread over the finished runs of one recipe with several seeds.

example: python -m trainer summary runs/seed-0 runs/seed-1 runs/seed-2
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type
from trainer.base.terminal import format_table, percent, print_report
from trainer.commands.options import add_json_option
from trainer.config import stored_config
from trainer.config.run_status import read_status
from trainer.config.same_run import differences
from trainer.config.schema import RunConfig
from trainer.run.console import class_table
from trainer.run.run_folder import read_results

ACCURACIES = {"accuracy": "test", "lab_accuracy": "lab", "validation_accuracy": "validation"}
"""keys of a run's accuracies, and the heads of their columns"""

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its configuration and the figures that are summarised."""

    folder: Path
    config: RunConfig
    accuracies: dict[str, float | None]
    """by the keys of ACCURACIES, between 0 and 1"""
    per_class: dict[str, float]
    """accuracy on the test images of each class"""
    test_fingerprint: str | None
    """of the test images, where results.json has it"""
    results: dict[str, Any]
    """results.json, of which only the above is checked"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a finished run's folder")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the summary.

    Raises:
        UserError: a folder holds no finished run, or a file in it is damaged.
    """
    found = summarise([read_run(folder) for folder in arguments.runs])
    for warning in found["warnings"]:
        log.warning("%s", warning)
    print_report(found, _lines(found), as_json=arguments.json)


def read_run(folder: Path) -> FinishedRun:
    """Read the results of the run in a folder.

    Raises:
        UserError: it holds no run, the run is not finished, or a file in it is damaged.
    """
    config = stored_config.read_folder(folder)
    status = read_status(folder)
    if status.state != "finished":
        raise UserError(
            f"{folder}: its run is not finished, but {status.state} at step {status.step}; "
            f"leave it out, or finish it (the same command goes on)"
        )
    path = folder / "results.json"
    results = read_results(folder)
    data = results.get("data", {})
    for part in ("test", "validation"):
        check_type(results.get(part), dict[str, Any], f"{path}: {part}")
    check_type(data, dict[str, Any], f"{path}: data")
    check_type(data.get("test_fingerprint"), str | None, f"{path}: data.test_fingerprint")
    test = results["test"]
    accuracies = {
        "accuracy": test.get("accuracy"),
        "lab_accuracy": test.get("lab_accuracy"),
        "validation_accuracy": results["validation"].get("chosen_accuracy"),
    }
    check_type(accuracies, dict[str, float | None], f"{path}: the accuracies")
    check_type(accuracies["accuracy"], float, f"{path}: test.accuracy")
    per_class = _per_class(test.get("per_class"), f"{path}: test.per_class")
    return FinishedRun(folder, config, accuracies, per_class, data.get("test_fingerprint"), results)


def _per_class(rows: Any, where: str) -> dict[str, float]:
    check_type(rows, list[dict[str, Any]], where)
    for row in rows:
        check_type(row.get("name"), str, f"{where}: name")
        check_type(row.get("accuracy"), float, f"{where}: accuracy")
        check_type(row.get("support"), int, f"{where}: support")
    found = {row["name"]: row["accuracy"] for row in rows if row["support"]}
    if not found:
        raise UserError(f"{where}: names no class that has images")
    return found


def summarise(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Summarise the runs of one recipe; accuracies lie between 0 and 1.

    Returns:
        `runs`, each with its `seed` and accuracies; for each accuracy that all of them have its
        `mean` and `standard_deviation` (of a sample, None for one run); `per_class`, the mean
        accuracy of each class, and `worst_class` by it (ties go to the first); `warnings`, why
        they are not a sample of one recipe.

    Raises:
        UserError: they are about different classes.
    """
    for other in runs[1:]:
        if other.per_class.keys() != runs[0].per_class.keys():
            raise UserError(f"{other.folder}: has other classes than {runs[0].folder}")
    per_class = {
        name: statistics.fmean(one.per_class[name] for one in runs) for name in runs[0].per_class
    }
    return {
        "runs": [
            {"run": str(one.folder), "seed": one.config.seed, **one.accuracies} for one in runs
        ],
        **{name: _spread([one.accuracies[name] for one in runs]) for name in ACCURACIES},
        "per_class": [{"name": name, "accuracy": mean} for name, mean in per_class.items()],
        "worst_class": min(per_class, key=per_class.__getitem__),
        "warnings": _warnings(runs),
    }


def _spread(accuracies: Sequence[float | None]) -> dict[str, float | None] | None:
    values = [value for value in accuracies if value is not None]
    if len(values) < len(accuracies):
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "standard_deviation": deviation}


def _warnings(runs: Sequence[FinishedRun]) -> list[str]:
    found = []
    first_of: dict[int, Path] = {}
    for one in runs:
        differing = differences(runs[0].config, one.config)
        others = [line for line in differing if not line.startswith("seed:")]
        if others:
            found.append(
                f"not one recipe: {runs[0].folder} against {one.folder}: {'; '.join(others)}"
            )
        elif len({runs[0].test_fingerprint, one.test_fingerprint} - {None}) > 1:
            found.append(
                f"{runs[0].folder} and {one.folder} were tested on different images, though their "
                f"configurations name the same: these have changed in between"
            )
        first = first_of.setdefault(one.config.seed, one.folder)
        if first is not one.folder and not others:
            found.append(
                f"{first} and {one.folder} have the same seed, {one.config.seed}: "
                f"the deviation counts them as two runs"
            )
    return found


def _lines(found: dict[str, Any]) -> list[str]:
    columns = {
        name: head
        for name, head in ACCURACIES.items()
        if any(one[name] is not None for one in found["runs"])
    }
    rows = [("run", "seed", *columns.values())]
    for one in found["runs"]:
        rows.append((one["run"], str(one["seed"]), *(percent(one[name]) for name in columns)))
    for key in ("mean", "standard_deviation"):
        spread = (percent((found[name] or {}).get(key)) for name in columns)
        rows.append((key.replace("_", " "), "", *spread))
    classes = class_table(
        found["per_class"],
        found["worst_class"],
        ("mean accuracy",),
        lambda row: (percent(row["accuracy"]),),
    )
    return [*format_table(rows), "", *classes]
