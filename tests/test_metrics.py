"""From predictions to the figures of a result."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.metrics import Predictions, per_class_results


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


def test_of_equally_bad_classes_the_first_is_named() -> None:
    assert per_class_results(predictions([0, 1, 2], [0, 0, 0]), "abc")["worst_class"] == "b"


def test_a_class_without_samples_has_zeros_and_is_not_the_worst() -> None:
    results = per_class_results(predictions([0, 0, 2, 2], [0, 1, 2, 2]), "abc")
    assert results["worst_class"] == "a"
    missing = results["per_class"][1]
    assert (missing["support"], missing["accuracy"], missing["precision"]) == (0, 0.0, 0.0)


def test_accuracy_and_loss_are_means_over_the_samples() -> None:
    some = predictions([0, 1, 1, 0], [0, 1, 0, 1])
    assert some.accuracy == 0.5
    assert some.mean_loss == 1.5
