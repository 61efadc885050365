"""Accuracy by a property of the images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trainer.data.slices import divide
from trainer.training.metrics import LabelledPredictions
from trainer.training.slices import slice_accuracies, wilson_interval


def test_the_worst_slice_is_first_and_small_ones_are_marked() -> None:
    target = np.zeros(100, np.int64)
    predicted = np.array([0] * 40 + [0] * 30 + [1] * 10 + [0, 1] * 10)
    cameras = ["old"] * 40 + ["new"] * 40 + ["phone"] * 20
    answers = LabelledPredictions(target, predicted, np.ones(100, np.float32))
    rows = slice_accuracies(answers, {"camera": cameras})["camera"]
    assert [(row["value"], row["samples"], row["correct"], row["small"]) for row in rows] == [
        ("phone", 20, 10, True), ("new", 40, 30, False), ("old", 40, 40, False),
    ]  # fmt: skip
    assert rows[1]["accuracy"] == 0.75
    assert rows[2]["interval"][1] == 1.0


@pytest.mark.parametrize(("correct", "count"), [(0, 5), (3, 4), (7, 7), (900, 1000), (1, 1)])
def test_the_interval_is_wilsons(correct: int, count: int) -> None:
    expected = stats.binomtest(correct, count).proportion_ci(0.95, "wilson")
    assert wilson_interval(correct, count) == pytest.approx(list(expected), abs=1e-12)


def test_numbers_are_divided_into_quarters_with_equal_ones_together() -> None:
    names = divide(np.arange(1.0, 9.0), "mean")
    assert names == [f"mean {low} to {low + 1}" for low in (1, 3, 5, 7) for _ in range(2)]
    assert set(divide(np.array([5.0] * 9 + [7.0]), "mean")) == {"mean 5 to 5", "mean 7 to 7"}


def test_ten_thousand_values_and_equally_bad_slices() -> None:
    answers = LabelledPredictions(
        np.zeros(20_000, np.int64), np.arange(20_000) % 2, np.ones(20_000, np.float32)
    )
    names = [f"patient {number // 2}" for number in range(19_998)] + ["patient 9998"] * 2
    rows = slice_accuracies(answers, {"patient": names})["patient"]
    assert len(rows) == 9999
    assert rows[0] == rows[0] | {"value": "patient 9998", "samples": 4, "correct": 2, "small": True}
    assert all(row["accuracy"] == 0.5 for row in rows)
