"""From predictions to the figures of a result."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from trainer.training.metrics import Predictions, calibration_bins, per_class_results


def predictions(target: list[int], predicted: list[int]) -> Predictions:
    count = len(target)
    return Predictions(
        np.array(target),
        np.array(predicted),
        np.full(count, 0.5),
        np.arange(count, dtype=np.float32),
    )


def test_figures_of_each_class() -> None:
    results = per_class_results(predictions([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2]), "abc")
    assert results["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert results["worst_class"] == "b"
    first, second, third = results["per_class"]
    assert (first["name"], first["support"], first["correct"]) == ("a", 3, 2)
    assert first["accuracy"] == first["recall"] == pytest.approx(2 / 3)
    assert first["precision"] == pytest.approx(2 / 3)
    assert second["f1"] == pytest.approx(0.5)
    assert third["accuracy"] == 1.0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_figures_of_each_class_are_those_of_scikit_learn_in_bits(
    pairs: list[tuple[int, int]],
) -> None:
    target, predicted = (list(one) for one in zip(*pairs, strict=True))
    rows = per_class_results(predictions(target, predicted), "abcde")["per_class"]
    expected = precision_recall_fscore_support(target, predicted, labels=range(5), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[name] for row in rows] == values.tolist()
    assert [row["accuracy"] for row in rows] == [row["recall"] for row in rows]


def test_of_equally_bad_classes_the_first_is_named() -> None:
    assert per_class_results(predictions([0, 1, 2], [0, 0, 0]), "abc")["worst_class"] == "b"


def test_a_class_without_samples_has_zeros_and_is_not_the_worst() -> None:
    results = per_class_results(predictions([0, 0, 2, 2], [0, 1, 2, 2]), "abc")
    assert results["worst_class"] == "a"
    missing = results["per_class"][1]
    assert (missing["support"], missing["accuracy"], missing["precision"]) == (0, 0.0, 0.0)


@pytest.mark.filterwarnings("error")
def test_a_class_that_nobody_has_seen_has_its_row_and_no_warning() -> None:
    results = per_class_results(predictions([0, 0, 1], [0, 1, 1]), "abc")
    assert results["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert len(results["per_class"]) == 3
    unseen = dict.fromkeys(("accuracy", "precision", "recall", "f1"), 0.0)
    assert results["per_class"][2] == {"name": "c", "support": 0, "correct": 0} | unseen


@pytest.mark.parametrize(("classes", "in_full"), [(256, True), (257, False)])
def test_the_matrix_of_many_classes_is_left_out(classes: int, in_full: bool) -> None:
    """Not the other figures, which need no matrix."""
    names = [str(place) for place in range(classes)]
    results = per_class_results(predictions([0, 0, 255], [0, 255, 255]), names)
    assert (results["confusion"] is not None) == in_full
    assert results["worst_class"] == "0"
    assert [results["per_class"][place]["correct"] for place in (0, 1, 255)] == [1, 0, 1]


def test_ten_thousand_classes_take_no_square_of_memory() -> None:
    """In bytes that numpy allocates."""
    import tracemalloc

    classes = 10_000
    target, predicted = np.arange(2 * classes) % classes, np.arange(2 * classes)[::-1] % classes
    names = [str(place) for place in range(classes)]
    tracemalloc.start()
    per_class_results(predictions(target.tolist(), predicted.tolist()), names)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 2**20


def test_accuracy_and_loss_are_means_over_the_samples() -> None:
    some = predictions([0, 1, 1, 0], [0, 1, 0, 1])
    assert some.accuracy == 0.5
    assert some.mean_loss == 1.5


def test_a_mean_loss_has_more_digits_than_its_losses() -> None:
    one = np.zeros(4, dtype=np.int64)
    losses = np.array([2**24, 1, 1, 1], dtype=np.float32)
    assert Predictions(one, one, np.ones(4), losses).mean_loss == 2**22 + 0.75


def test_predictions_that_are_all_right_promise_too_little() -> None:
    one = np.zeros(2, dtype=np.int64)
    assert Predictions(one, one, np.full(2, 0.9), one).calibration_error == pytest.approx(0.1)


def test_calibration_error_is_that_of_the_definition() -> None:
    """By hand: one image in bin 6, up to 0.4, two in bin 12, up to 0.8, and two in bin 15."""
    correct = np.array([True, False, True, False, True])
    probability = np.array([0.38, 0.79, 0.77, 1.0, 0.99], dtype=np.float32)
    found = calibration_bins(correct, probability)
    assert found.count.tolist() == [0] * 5 + [1] + [0] * 5 + [2] + [0] * 2 + [2]
    expected = (abs(1 - 0.38) + 2 * abs(0.5 - 0.78) + 2 * abs(0.5 - 0.995)) / 5
    assert found.error == pytest.approx(expected)


@pytest.mark.parametrize("samples", [1, 1000])
def test_who_is_right_as_often_as_promised_has_no_calibration_error(samples: int) -> None:
    draw = np.random.default_rng(0)
    probability = np.repeat([0.25, 0.5, 0.75, 1.0], samples * 4)
    correct = np.concatenate([np.arange(samples * 4) % 4 < part for part in (1, 2, 3, 4)])
    order = draw.permutation(len(correct))
    assert calibration_bins(correct[order], probability[order]).error == pytest.approx(0.0)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1))
def test_every_probability_is_in_the_bin_of_the_definition(
    samples: list[tuple[float, bool]],
) -> None:
    """In exact fractions: above (m - 1) / 15 and up to m / 15, and 0 in the first."""
    probability = np.array([sample[0] for sample in samples], dtype=np.float32)
    found = calibration_bins(np.array([sample[1] for sample in samples]), probability)
    bins = [
        [one for one in samples if max(1, np.ceil(Fraction(one[0]) * 15)) == number]
        for number in range(1, 16)
    ]
    assert found.count.tolist() == [len(members) for members in bins]
    with np.errstate(invalid="ignore"):
        means = [np.array(members or [(np.nan, np.nan)]).mean(axis=0) for members in bins]
    np.testing.assert_allclose(found.confidence, [mean[0] for mean in means])
    np.testing.assert_allclose(found.accuracy, [mean[1] for mean in means])


def test_calibration_holds_probabilities_at_the_ends() -> None:
    probability = np.array([0.0, 1.0, np.nextafter(np.float32(1), np.float32(2))])
    found = calibration_bins(np.array([False, True, True]), probability)
    assert (found.count[0], found.count[-1]) == (1, 2)
