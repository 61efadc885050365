"""What `compare` prints of the answers of two runs, of seeds and of folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.base.terminal import format_table
from trainer.run.report.figure_rows import label_of, show


def test_lines(test: Mapping[str, Any]) -> list[str]:
    """Return the lines about two runs that answered the same images."""
    mcnemar, differs = test["mcnemar"], test["differs"]
    head = ("figure", "first", "second", "difference", "95 % interval")
    rows = [
        (
            label_of(name),
            show(name, row["first"]),
            show(name, row["second"]),
            _signed(name, row["difference"]),
            " to ".join(_signed(name, end) for end in row["interval"] or ()) or "-",
        )
        for name, row in test["figures"].items()
    ]
    verdict = "more than chance" if differs else "no more than chance may give"
    return [
        f"on the same {test['samples']:,} images: {test['only_first_correct']:,} are right only in "
        f"the first, {test['only_second_correct']:,} only in the second",
        f"McNemar's test: p = {mcnemar['p_value']:.3g} (mid-p; exact {mcnemar['exact_p_value']:.3g}"
        f"): the difference is {verdict}",
        *format_table([head, *rows]),
    ]


def pair_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines about pairs of runs with the same seed."""
    head = ("seed", "first", "second", "difference", "McNemar's p")
    rows = []
    for pair in found["pairs"]:
        row = pair["figures"]["accuracy"]
        cells = (show("accuracy", row["first"]), show("accuracy", row["second"]))
        rows.append(
            (
                str(pair["seed"]),
                *cells,
                _signed("accuracy", row["difference"]),
                f"{pair['mcnemar']['p_value']:.3g}",
            )
        )
    return [*format_table([head, *rows]), "", *_mean_lines(found["mean"], "seeds")]


def fold_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines about two cross-validations."""
    rows = [
        (
            str(pair["fold"]),
            show("accuracy", pair["first"]),
            show("accuracy", pair["second"]),
            _signed("accuracy", pair["difference"]),
        )
        for pair in found["pairs"]
    ]
    return [
        *format_table([("fold", "first", "second", "difference"), *rows]),
        "",
        *_mean_lines(found["mean"], "folds, as their training images overlap"),
        "",
        "out of fold, each image once,",
        *test_lines(found["out_of_fold"]),
    ]


def _mean_lines(mean: Mapping[str, Any], what: str) -> list[str]:
    low, high = (_signed("accuracy", end) for end in mean["interval"])
    verdict = "more than chance" if mean["differs"] else "no more than chance may give"
    return [
        f"mean difference  {_signed('accuracy', mean['mean'])}  (95 %: {low} to {high}; p = "
        f"{mean['p_value']:.3g}): {verdict}",
        f"Student's t over {mean['pairs']} {what}",
    ]


def _signed(name: str, value: float) -> str:
    text = show(name, abs(value))
    return f"{'-' if value < 0 else '+'}{text}"
