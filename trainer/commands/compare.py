"""Say whether runs are bit-identical, where they diverge, and which one is better; draw curves.

Of finished runs that were tested on the same images it says whether they differ by more than chance
(McNemar's test; a bootstrap of the differences). --against compares two recipes by several seeds,
in pairs; two folders of crossval are compared fold by fold.

With --operators the two are files of `replay --operators`, of one step of one run on two machines,
and the first operator is named that gives other bits.

example: python -m trainer compare runs/one runs/two --output comparison.html
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.files import write_text
from trainer.base.strict_json import check_type
from trainer.base.terminal import format_table, percent, print_report
from trainer.commands.options import add_json_option, check_output, report_write_errors
from trainer.run.main_figure import has_several_labels
from trainer.run.metrics_log import by_event

if TYPE_CHECKING:
    from trainer.finished.comparison import RunFiles
    from trainer.training.observer import Record

HEAD = ("epochs", "steps", "train loss", "best validation", "test", "seconds")
LABEL_HEAD = ("epochs", "steps", "train loss", "best validation mAP", "test mAP", "seconds")
"""where images may have several labels"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "others", type=Path, nargs="*", metavar="RUN", help="another, to compare with the first"
    )
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="runs of another recipe with the same seeds as those before it: compares in pairs",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write the curves of all runs over each other: .png, a picture, or .html, "
        "a page with the table too",
    )
    parser.add_argument(
        "--operators",
        action="store_true",
        help="the two RUN are files of replay --operators: name the first operator that differs",
    )
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison.

    Raises:
        UserError: a folder does not contain a run, a file in it is damaged, or --output cannot be
            written.
    """
    check_output("--output", arguments.output, ".html", ".png")
    if arguments.operators:
        _compare_operators(arguments)
        return
    from trainer.commands import compare_lines
    from trainer.finished import comparison, paired_runs

    folders = (arguments.run, *arguments.others)
    if arguments.against:
        if arguments.output:
            raise UserError("--output: draws no pairs; leave it out, or leave --against out")
        firsts, seconds = map(comparison.read, folders), map(comparison.read, arguments.against)
        pairs = paired_runs.compare_seeds(list(firsts), list(seconds))
        print_report(pairs, compare_lines.pair_lines(pairs), as_json=arguments.json)
        return
    if not arguments.others:
        raise UserError(f"RUN: name another one to compare {arguments.run} with")
    if paired_runs.are_cross_validations(folders):
        if len(folders) > 2 or arguments.output:
            raise UserError("RUN: of cross-validations compare two, without --output")
        folds = paired_runs.compare_folds(*folders)
        print_report(folds, compare_lines.fold_lines(folds), as_json=arguments.json)
        return
    runs = [comparison.read(folder) for folder in folders]
    found = compare_all(runs)
    if arguments.output:
        write(arguments.output, runs, found)
    print_report(found, _lines(found), as_json=arguments.json)


def _compare_operators(arguments: argparse.Namespace) -> None:
    from trainer.finished import operator_records

    if len(arguments.others) != 1 or arguments.output or arguments.against:
        raise UserError("--operators: compares two files, and draws nothing")
    paths = (arguments.run, arguments.others[0])
    found = operator_records.compare(*map(operator_records.read, paths))
    print_report(found, operator_records.lines_of(found), as_json=arguments.json)


def compare_all(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """Compare several runs with the first.

    Returns:
        `runs`, how far each has come and what it has found; `comparisons`, for each of the others
        its folder `run`, what `comparison.compare` gives, and `test`, what
        `paired_runs.compare_tests` gives, None where that cannot be; at the top `identical`,
        whether they all are, and the other keys of the first comparison that finds a difference,
        or of the first one.

    Raises:
        UserError: a file is damaged.
    """
    from trainer.finished.comparison import compare

    comparisons = [
        {
            "run": str(other.folder),
            **compare(runs[0], other),
            "test": _compare_tests(runs[0], other),
        }
        for other in runs[1:]
    ]
    decisive = next((one for one in comparisons if not one["identical"]), comparisons[0])
    return {
        **{key: value for key, value in decisive.items() if key != "run"},
        "runs": [_row(one) for one in runs],
        "comparisons": comparisons,
    }


def _compare_tests(first: RunFiles, other: RunFiles) -> dict[str, Any] | None:
    """Compare what two runs say of the same test images; None where they have not or are equal."""
    from trainer.finished import paired_runs

    digests = [run.results.get("weights_sha256") for run in (first, other)]
    tested = [run.results.get("data", {}).get("test_fingerprint") for run in (first, other)]
    kept = all((run.folder / "predictions.npz").is_file() for run in (first, other))
    if not (kept and all(digests) and digests[0] != digests[1] and tested[0] == tested[1]):
        return None
    return paired_runs.compare_tests(first, other)


def _row(run: RunFiles) -> dict[str, Any]:
    """Return what a run has done and found so far; None if it has not.

    Accuracies lie between 0 and 1, `seconds` are those of training. The mean average precisions
    are those of images that may have several labels.
    """
    steps, epochs = by_event(run.records)
    test = run.results.get("test", {})
    check_type(test.get("accuracy"), float | None, f"{run.folder / 'results.json'}: test.accuracy")
    precision = test.get("average_precision") if has_several_labels(test) else None
    return {
        "run": str(run.folder),
        "epochs": len(epochs),
        "steps": len(steps),
        "train_loss": epochs[-1].get("train_loss") if epochs else None,
        "best_validation_accuracy": _best(epochs, "validation_accuracy"),
        "test_accuracy": test.get("accuracy"),
        "best_validation_average_precision": _best(epochs, "validation_average_precision"),
        "test_average_precision": precision,
        "seconds": sum(record.get("seconds") or 0.0 for record in epochs),
    }


def _best(epochs: Sequence[Record], key: str) -> float | None:
    values = (record.get(key) for record in epochs)
    return max((value for value in values if value is not None), default=None)


def _head(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return LABEL_HEAD if any(map(_has_several_labels, rows)) else HEAD


def _has_several_labels(row: dict[str, Any]) -> bool:
    found = (row["best_validation_average_precision"], row["test_average_precision"])
    return found != (None, None)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    loss = row["train_loss"]
    figure = "average_precision" if _has_several_labels(row) else "accuracy"
    return (
        f"{row['epochs']:,}",
        f"{row['steps']:,}",
        "-" if loss is None else f"{loss:.4f}",
        percent(row[f"best_validation_{figure}"]),
        percent(row[f"test_{figure}"]),
        f"{row['seconds']:,.1f}",
    )


def _lines(found: dict[str, Any]) -> list[str]:
    from trainer.commands import compare_lines

    lines = []
    first, *others = found["runs"]
    for one in found["comparisons"]:
        if len(others) > 1:
            lines.append(f"{first['run']} against {one['run']}:")
        lines += _words(one)
        if one["test"]:
            lines += ["", *compare_lines.test_lines(one["test"])]
    rows = [(row["run"], *_cells(row)) for row in found["runs"]]
    return [*lines, "", *format_table([("run", *_head(found["runs"])), *rows])]


def _words(comparison: dict[str, Any]) -> list[str]:
    sha256 = comparison["weights_sha256"]
    if comparison["identical"]:
        end = f"weights {sha256}" if sha256 else "both unfinished"
        lines = [f"bit-identical: {comparison['steps']} steps, {end}"]
    else:
        lines = [f"different: {comparison['first_difference']}"]
    lines += [f"configured differently: {line}" for line in comparison["configuration"]]
    lines += [
        f"equal at best to rounding, not in bits: {difference}"
        for difference in comparison["expected_because"]
    ]
    lines += comparison["images"]
    for tensor in comparison["tensors"]:
        largest = tensor["largest_difference"]
        how = "only in one run, or of another shape"
        how = how if largest is None else f"largest difference {largest:.3g}"
        lines.append(f"  {tensor['name']}: {how} ({tensor['checkpoint']})")
    return lines


def write(path: Path, runs: Sequence[RunFiles], found: dict[str, Any]) -> None:
    """Write the curves over each other: a picture, or by its suffix a page with the table too.

    Args:
        found: from `compare_all`.

    Raises:
        UserError: the file cannot be written.
    """
    from trainer.commands import compare_lines
    from trainer.run.report import curves, pages, plots

    figures = curves.draw_overlaid(
        [curves.RunCurves(str(run.folder), *by_event(run.records)) for run in runs]
    )
    with report_write_errors("--output", path):
        if path.suffix == ".png":
            plots.save_row(figures, path)
            return
        page = pages.render(
            "compare.html",
            found=found,
            head=_head(found["runs"]),
            difference_head=compare_lines.DIFFERENCE_HEAD,
            differences=[
                compare_lines.difference_rows(one["test"]) if one["test"] else []
                for one in found["comparisons"]
            ],
            rows=[
                {"run": row["run"], "colour": curves.colour(place), "cells": _cells(row)}
                for place, row in enumerate(found["runs"])
            ],
            curves=[pages.image_uri(picture) for picture in plots.draw_row(figures)],
        )
        write_text(path, page)
