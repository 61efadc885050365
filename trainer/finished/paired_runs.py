"""Compare two recipes by runs of several seeds, or by the folds of two cross-validations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, read_json
from trainer.finished import significance, stored_predictions
from trainer.finished.comparison import RunFiles
from trainer.finished.significance import Answers

FOLDS = "crossval.json"
ACCURACY, MAP = "accuracy", "average_precision"
"""by which two recipes are compared, the latter where images may have several labels"""


def compare_tests(first: RunFiles, second: RunFiles) -> dict[str, Any]:
    """Compare what two finished runs say of their test images, as `significance.compare_answers`.

    Raises:
        UserError: one is not finished, or they were tested on different images.
    """
    answers = []
    for run in (first, second):
        if not run.results:
            raise UserError(f"{run.folder}: is not finished, so it has no test to compare")
        several = run.results["test"].get("subset_accuracy") is not None
        answers.append(_read(run.folder / "predictions.npz", several=several))
    tested = [run.results.get("data", {}).get("test_fingerprint") for run in (first, second)]
    if tested[0] != tested[1] or not np.array_equal(answers[0].target, answers[1].target):
        raise UserError(
            f"{first.folder} and {second.folder} were tested on different images "
            f"({len(answers[0]):,} and {len(answers[1]):,}): nothing says which one is better"
        )
    _check_classes(answers, first.folder, second.folder)
    return significance.compare_answers(*answers)


def compare_seeds(firsts: Sequence[RunFiles], seconds: Sequence[RunFiles]) -> dict[str, Any]:
    """Compare two recipes by pairs of runs with the same seed.

    Returns:
        `pairs`: of each `seed`, the folders `first` and `second`, their accuracies, and what
        `compare_tests` gives; `figure`, the name of the one that is judged by, of several labels
        that of the mAP; and `mean` of its differences, from `significance.compare_pairs`.

    Raises:
        UserError: the runs cannot be paired, or one cannot be compared.
    """
    sides = [_by_seed(runs) for runs in (firsts, seconds)]
    if sides[0].keys() != sides[1].keys() or len(sides[0]) < 2:
        seeds = [", ".join(map(str, sorted(side))) or "none" for side in sides]
        raise UserError(
            f"--against: runs are compared in pairs of one seed, at least two of them; found seeds "
            f"{seeds[0]} before it and {seeds[1]} after it"
        )
    pairs, tests = [], []
    for seed in sorted(sides[0]):
        first, second = (side[seed] for side in sides)
        found = compare_tests(first, second)
        tests.append(found)
        pairs.append(
            {"seed": seed, "first": str(first.folder), "second": str(second.folder)} | found
        )
    figure = ACCURACY if ACCURACY in tests[0]["figures"] else MAP
    if any(figure not in found["figures"] for found in tests):
        raise UserError(f"--against: no test image of {firsts[0].folder} has a label to compare by")
    differences = [found["figures"][figure]["difference"] for found in tests]
    return {"pairs": pairs, "figure": figure, "mean": significance.compare_pairs(differences)}


def are_cross_validations(folders: Sequence[Path]) -> bool:
    """Return whether all folders are of finished cross-validations."""
    return all((folder / FOLDS).is_file() for folder in folders)


def compare_folds(first: Path, second: Path) -> dict[str, Any]:
    """Compare two cross-validations with the same folds.

    Returns:
        `pairs`: of each `fold` the `figure` (as of `compare_seeds`) of the `first` and `second` and
        their `difference`; `mean`, from `significance.compare_pairs`, for training images that
        overlap; and `out_of_fold`, from `significance.compare_answers`: each image once.

    Raises:
        UserError: a file is damaged, or the folds are not the same.
    """
    found, answers, figures = [], [], []
    for folder in (first, second):
        path = folder / FOLDS
        values = read_json(path)
        check_type(values, dict[str, Any], str(path))
        check_type(values.get("runs"), list[dict[str, Any]], f"{path}: runs")
        figures.append(MAP if MAP in values else ACCURACY)
        for row in values["runs"]:
            check_type(row.get("fold"), int, f"{path}: runs: fold")
            for key in (figures[-1], "samples", "train_samples"):
                check_type(row.get(key), float, f"{path}: runs: {key}")
        found.append({row["fold"]: row for row in values["runs"]})
        answers.append(_read(folder / "out_of_fold.npz", several=figures[-1] == MAP))
    divided = [_division(folder / "out_of_fold.npz") for folder in (first, second)]
    if not np.array_equal(divided[0], divided[1]):
        raise UserError(
            f"{first} and {second} have other folds or other images: give both the same data, "
            "--folds and seed"
        )
    _check_classes(answers, first, second)
    pairs, figure = [], figures[0]
    for fold, row in sorted(found[0].items()):
        other = found[1][fold]
        pair = {"fold": fold, "first": row[figure], "second": other[figure]}
        pairs.append(pair | {"difference": pair["second"] - pair["first"]})
    rows = found[0].values()
    overlap = float(np.mean([row["samples"] / row["train_samples"] for row in rows]))
    return {
        "pairs": pairs,
        "figure": figure,
        "mean": significance.compare_pairs([pair["difference"] for pair in pairs], overlap),
        "out_of_fold": significance.compare_answers(*answers),
    }


def _read(path: Path, *, several: bool) -> Answers:
    return stored_predictions.read_labels(path) if several else stored_predictions.read(path)


def _division(path: Path) -> np.ndarray:
    """Return which image is in which fold, and its class or all its labels, int64 (n, ...)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.column_stack([arrays[name] for name in ("index", "fold", "target")])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error})") from error


def _by_seed(runs: Sequence[RunFiles]) -> dict[int, RunFiles]:
    found: dict[int, RunFiles] = {}
    for run in runs:
        check_type(run.results.get("seed"), int, f"{run.folder / 'results.json'}: seed")
        seed: int = run.results["seed"]
        if seed in found:
            raise UserError(f"{run.folder}: has the seed {seed}, as {found[seed].folder} has")
        found[seed] = run
    return found


def _check_classes(answers: Sequence[Answers], *folders: Path) -> None:
    """Make sure that both have probabilities of the same number of classes, if they have any."""
    counts = {one.probabilities.shape[1] for one in answers if one.probabilities is not None}
    if len(counts) > 1:
        raise UserError(f"{folders[0]} and {folders[1]} have different numbers of classes")
