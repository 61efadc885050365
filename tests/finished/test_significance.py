"""Whether two classifiers differ by more than chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.training.test_figures import some_answers
from trainer.finished.significance import compare_answers, compare_pairs, mcnemar_test
from trainer.training.metrics import Predictions


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test(only_first: int, only_second: int) -> None:
    found, count = mcnemar_test(only_first, only_second), only_first + only_second
    if not count:
        assert found == {"p_value": 1.0, "exact_p_value": 1.0}
        return
    exact = stats.binomtest(only_first, count, 0.5).pvalue
    assert found["exact_p_value"] == pytest.approx(exact, abs=1e-9)
    # The mid-p-value by its definition: outcomes less probable, and half of those equally so.
    points = stats.binom.pmf(np.arange(count + 1), count, 0.5)
    ours = points[only_first]
    equal = np.isclose(points, ours, rtol=1e-9, atol=0)
    expected = points[(points < ours) & ~equal].sum() + points[equal].sum() / 2
    assert found["p_value"] == pytest.approx(expected, abs=1e-9)


def test_many_images_are_no_matter() -> None:
    assert mcnemar_test(50_000, 51_000)["p_value"] == pytest.approx(
        2 * stats.norm.sf(1000 / math.sqrt(101_000)), rel=0.01
    )


def test_a_better_classifier_is_told_from_a_lucky_one() -> None:
    first, better = some_answers(1, 800, 6, skill=1.0), some_answers(1, 800, 6, skill=2.0)
    found = compare_answers(first, better)
    assert found["differs"]
    assert found["mcnemar"]["p_value"] < 1e-6
    row = found["figures"]["accuracy"]
    right = [one.predicted == one.target for one in (first, better)]
    assert row["difference"] == pytest.approx(right[1].mean() - right[0].mean())
    assert found["only_second_correct"] == (right[1] & ~right[0]).sum()
    for name, one in found["figures"].items():
        low, high = one["interval"]
        assert low <= high
        assert (low > 0) != (high < 0) or name in ("ece", "top5_accuracy"), name
    # Two nets of one skill: their noise differs, the images are the same.
    other = Predictions(first.target, *_noise(first))
    equal = compare_answers(first, other)
    assert list(equal["figures"]) == ["accuracy"], "without probabilities"
    assert not equal["differs"]
    low, high = equal["figures"]["accuracy"]["interval"]
    assert low < 0 < high


def _noise(first: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Swap some right answers with as many wrong ones."""
    predicted = first.predicted.copy()
    right = np.flatnonzero(predicted == first.target)[:20]
    wrong = np.flatnonzero(predicted != first.target)[:21]
    predicted[right] = (predicted[right] + 1) % 6
    predicted[wrong] = first.target[wrong]
    return predicted, first.probability, first.loss


def test_pairs_are_compared_by_students_t() -> None:
    differences = [0.01, 0.03, 0.02, 0.05]
    found = compare_pairs(differences)
    expected = stats.ttest_1samp(differences, 0)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert found["interval"] == pytest.approx(list(expected.confidence_interval(0.95)))
    # Nadeau and Bengio: a variance of 1/k + test/train instead of 1/k.
    wider = compare_pairs(differences, overlap=1 / 3)
    factor = math.sqrt((1 / 4 + 1 / 3) / (1 / 4))
    half = [(one["interval"][1] - one["mean"]) for one in (found, wider)]
    assert half[1] == pytest.approx(factor * half[0])
    assert compare_pairs([0.0, 0.0])["p_value"] == 1.0
    assert compare_pairs([0.5, 0.5])["differs"]
