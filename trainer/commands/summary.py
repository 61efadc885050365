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
from trainer.run.main_figure import main_figure
from trainer.run.run_folder import read_results

ACCURACIES = {"accuracy": "test", "lab_accuracy": "lab", "validation_accuracy": "validation"}
"""keys of a run's accuracies, and the heads of their columns"""
LABEL_FIGURES = {
    "average_precision": "test mAP",
    "accuracy": "all labels",
    "validation_average_precision": "validation mAP",
}
"""of runs on images that may have several labels: the mean average precision, and the share of the
images of which every label is right"""

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its configuration and the figures that are summarised."""

    folder: Path
    config: RunConfig
    accuracies: dict[str, float | None]
    """by the keys of ACCURACIES or LABEL_FIGURES, between 0 and 1"""
    per_class: dict[str, float]
    """accuracy on the test images of each class, of several labels their average precision"""
    test_fingerprint: str | None
    """of the test images, where results.json has it"""
    results: dict[str, Any]
    """results.json, of which only the above is checked"""

    @property
    def class_figure(self) -> str:
        """The name of what `per_class` has."""
        return "average_precision" if "average_precision" in self.accuracies else "accuracy"


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
    figure = main_figure(test)
    accuracies = {
        name: results["validation"].get(name.replace("validation", "chosen"))
        if name.startswith("validation")
        else test.get(name)
        for name in (ACCURACIES if figure == "accuracy" else LABEL_FIGURES)
    }
    check_type(accuracies, dict[str, float | None], f"{path}: the accuracies")
    check_type(accuracies[figure], float, f"{path}: test.{figure}")
    per_class = _per_class(test.get("per_class"), figure, f"{path}: test.per_class")
    return FinishedRun(folder, config, accuracies, per_class, data.get("test_fingerprint"), results)


def _per_class(rows: Any, figure: str, where: str) -> dict[str, float]:
    check_type(rows, list[dict[str, Any]], where)
    for row in rows:
        check_type(row.get("name"), str, f"{where}: name")
        check_type(row.get("support"), int, f"{where}: support")
        if row["support"]:
            check_type(row.get(figure), float, f"{where}: {figure}")
    found = {row["name"]: row[figure] for row in rows if row["support"]}
    if not found:
        raise UserError(f"{where}: names no class that has images")
    return found


def summarise(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Summarise the runs of one recipe; accuracies lie between 0 and 1.

    Returns:
        `runs`, each with its `seed` and accuracies; for each accuracy that all of them have its
        `mean` and `standard_deviation` (of a sample, None for one run); `per_class`, the mean
        accuracy of each class, and `worst_class` by it (ties go to the first); `warnings`, why
        they are not a sample of one recipe. Of images that may have several labels LABEL_FIGURES
        stand in the place of the accuracies, and the average precision of each label.

    Raises:
        UserError: they are about different classes.
    """
    figure = runs[0].class_figure
    for other in runs[1:]:
        kind = other.per_class.keys(), other.class_figure
        if kind != (runs[0].per_class.keys(), figure):
            raise UserError(f"{other.folder}: has other classes than {runs[0].folder}")
    per_class = {
        name: statistics.fmean(one.per_class[name] for one in runs) for name in runs[0].per_class
    }
    return {
        "runs": [
            {"run": str(one.folder), "seed": one.config.seed, **one.accuracies} for one in runs
        ],
        **{name: _spread([one.accuracies[name] for one in runs]) for name in runs[0].accuracies},
        "per_class": [{"name": name, figure: mean} for name, mean in per_class.items()],
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
    several = "average_precision" in found
    heads = LABEL_FIGURES if several else ACCURACIES
    columns = {
        name: head
        for name, head in heads.items()
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
        ("mean AP" if several else "mean accuracy",),
        lambda row: (percent(row["average_precision" if several else "accuracy"]),),
        figure="average_precision" if several else "accuracy",
    )
    return [*format_table(rows), "", *classes]
