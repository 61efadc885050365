"""Figures of several labels: equal to scikit-learn's, and thresholds of the highest F1."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics

from trainer.training import label_draws, label_metrics
from trainer.training.label_metrics import LabelPredictions

SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 4))


@st.composite
def predictions(draw: st.DrawFn) -> LabelPredictions:
    shape = draw(SHAPES)
    target = draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    levels = draw(arrays.arrays(np.int64, shape, elements=st.integers(0, 8)))
    probabilities = (levels / 8).astype(np.float32)  # with many ties
    thresholds = draw(arrays.arrays(np.float64, shape[1], elements=st.sampled_from([0.25, 0.5])))
    return LabelPredictions(target, probabilities, np.zeros(shape[0], np.float32), thresholds)


@settings(max_examples=60, deadline=None)
@given(found=predictions())
def test_figures_are_those_of_scikit_learn(found: LabelPredictions) -> None:
    names = [str(label) for label in range(found.target.shape[1])]
    results = label_metrics.label_results(found, names, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row, target, probability in zip(
            results["per_class"], found.target.T, found.probabilities.T, strict=True
        ):
            if target.any():
                wanted = metrics.average_precision_score(target, probability)
                assert row["average_precision"] == pytest.approx(wanted, abs=1e-12)
            else:
                assert row["average_precision"] is None
            if 0 < target.sum() < len(target):
                wanted = metrics.roc_auc_score(target, probability)
                assert row["roc_auc"] == pytest.approx(wanted, abs=1e-12)
            else:
                assert row["roc_auc"] is None
        common = {"y_true": found.target, "y_pred": found.predicted}
        if len(names) > 1:
            for average in ("micro", "macro"):
                wanted = metrics.f1_score(**common, average=average, zero_division=0)
                assert results[f"{average}_f1"] == pytest.approx(wanted, abs=1e-12)
        assert results["accuracy"] == metrics.accuracy_score(**common)
    present = [row["average_precision"] for row in results["per_class"] if row["support"]]
    mean = pytest.approx(np.mean(present)) if present else None
    assert results["average_precision"] == mean


@settings(max_examples=60, deadline=None)
@given(found=predictions())
def test_no_threshold_has_a_higher_f1_and_of_equal_ones_it_is_nearest_to_a_half(
    found: LabelPredictions,
) -> None:
    thresholds = label_metrics.choose_thresholds(found.target, found.probabilities)
    for target, probability, threshold in zip(
        found.target.T, found.probabilities.T, thresholds, strict=True
    ):
        if not target.any():
            assert threshold == 0.5
            continue

        def f1(one: float, target: np.ndarray = target, p: np.ndarray = probability) -> float:
            chosen = p >= one
            return float(2 * (target * chosen).sum() / (target.sum() + chosen.sum()))

        others = [*(np.arange(17) / 16), 0.5]
        best = max(map(f1, others))
        assert f1(float(threshold)) == pytest.approx(best)
        if f1(0.5) == pytest.approx(best):
            assert threshold == 0.5


def test_the_threshold_lies_in_the_middle_of_the_gap() -> None:
    probabilities = np.array([[0.1], [0.2], [0.3], [0.4]], np.float32)
    target = np.array([[0], [0], [1], [1]], np.uint8)
    assert label_metrics.choose_thresholds(target, probabilities)[0] == pytest.approx(0.25)
    assert label_metrics.choose_thresholds(target, 1 - probabilities[::-1])[0] == pytest.approx(
        0.75
    )


def test_intervals_of_many_images_are_nearly_those_of_draws_that_are_ranked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of first order they take a tenth of the time, and their ends hardly move."""
    random = np.random.default_rng(0)
    target = (random.random((1500, 3)) < [0.05, 0.3, 0.6]).astype(np.uint8)
    probabilities = np.float32(1 / (1 + np.exp(-random.normal(2.0 * target - 1))))
    found = LabelPredictions(target, probabilities, np.zeros(1500, np.float32), np.full(3, 0.5))
    exact = label_metrics.label_results(found, "abc", 0)
    monkeypatch.setattr(label_draws, "MOST_EXACT", 0)
    linear = label_metrics.label_results(found, "abc", 0)
    intervals = exact.pop("intervals"), linear.pop("intervals")
    assert exact == linear
    for name in ("average_precision", "roc_auc"):
        low, high = intervals[0][name]
        assert low < exact[name] < high
        assert intervals[1][name] == pytest.approx([low, high], abs=0.1 * (high - low))
    for name in ("subset_accuracy", "macro_f1", "micro_f1"):
        assert intervals[0][name] == intervals[1][name]
