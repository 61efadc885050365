"""What `compare` prints of the answers of two runs, of seeds and of folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.base.terminal import format_table
from trainer.run.report.figure_rows import label_of, show

DIFFERENCE_HEAD = ("figure", "first", "second", "difference", "95 % interval")


def test_lines(test: Mapping[str, Any]) -> list[str]:
    """Return the lines about two runs that answered the same images."""
    mcnemar, differs = test["mcnemar"], test["differs"]
    verdict = "more than chance" if differs else "no more than chance may give"
    return [
        f"on the same {test['samples']:,} images: {test['only_first_correct']:,} are right only in "
        f"the first, {test['only_second_correct']:,} only in the second",
        f"McNemar's test: p = {mcnemar['p_value']:.3g} (mid-p; exact {mcnemar['exact_p_value']:.3g}"
        f"): the difference is {verdict}",
        *format_table([DIFFERENCE_HEAD, *difference_rows(test)]),
    ]


def difference_rows(test: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of each figure of two runs, as DIFFERENCE_HEAD names them."""
    return [
        (
            label_of(name),
            show(name, row["first"]),
            show(name, row["second"]),
            _signed(name, row["difference"]),
            " to ".join(_signed(name, end) for end in row["interval"] or ()) or "-",
        )
        for name, row in test["figures"].items()
    ]


def pair_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines about pairs of runs with the same seed."""
    figure = found["figure"]
    head = ("seed", "first", "second", "difference", "McNemar's p")
    rows = []
    for pair in found["pairs"]:
        row = pair["figures"][figure]
        rows.append(
            (
                str(pair["seed"]),
                *_pair_cells(figure, row),
                f"{pair['mcnemar']['p_value']:.3g}",
            )
        )
    lines = [*format_table([head, *rows]), "", *_mean_lines(found, "seeds")]
    return [f"{label_of(figure)}:", *lines]


def fold_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines about two cross-validations."""
    figure = found["figure"]
    rows = [(str(pair["fold"]), *_pair_cells(figure, pair)) for pair in found["pairs"]]
    return [
        f"{label_of(figure)}:",
        *format_table([("fold", "first", "second", "difference"), *rows]),
        "",
        *_mean_lines(found, "folds, as their training images overlap"),
        "",
        "out of fold, each image once,",
        *test_lines(found["out_of_fold"]),
    ]


def _pair_cells(figure: str, pair: Mapping[str, Any]) -> tuple[str, ...]:
    both = (show(figure, pair[side]) for side in ("first", "second"))
    return (*both, _signed(figure, pair["difference"]))


def _mean_lines(found: Mapping[str, Any], what: str) -> list[str]:
    mean, figure = found["mean"], found["figure"]
    low, high = (_signed(figure, end) for end in mean["interval"])
    verdict = "more than chance" if mean["differs"] else "no more than chance may give"
    return [
        f"mean difference  {_signed(figure, mean['mean'])}  (95 %: {low} to {high}; p = "
        f"{mean['p_value']:.3g}): {verdict}",
        f"Student's t over {mean['pairs']} {what}",
    ]


def _signed(name: str, value: float) -> str:
    text = show(name, abs(value))
    return f"{'-' if value < 0 else '+'}{text}"
