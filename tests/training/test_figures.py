"""The figures of probabilities: those of scikit-learn, with intervals that hold what they say."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from trainer.training import figures, ranking
from trainer.training.bootstrap import iter_draws
from trainer.training.figures import FIGURES, ScoredImages
from trainer.training.metrics import Predictions


def answers(target: np.ndarray, logits: np.ndarray) -> Predictions:
    """The predictions of logits, as an evaluation makes them."""
    logs = (logits - np.logaddexp.reduce(logits, 1, keepdims=True)).astype(np.float32)
    kind = np.float32 if logits.shape[1] < 100 else np.float16
    own = logs[np.arange(len(target)), target]
    return Predictions(target, logs.argmax(1), np.exp(logs.max(1)), -own, np.exp(logs).astype(kind))


def some_answers(seed: int, count: int, classes: int, skill: float = 1.5) -> Predictions:
    draw = np.random.default_rng(seed)
    target = draw.integers(0, classes, count)
    logits = draw.standard_normal((count, classes))
    logits[np.arange(count), target] += skill
    # Coarse, so that many probabilities are equal.
    return answers(target, np.round(logits * 2) / 2)


def by_scikit_learn(found: Predictions, weights: np.ndarray | None = None) -> dict[str, float]:
    """What scikit-learn says of the classes that have images; NaN where it says nothing."""
    assert found.probabilities is not None
    target, predicted = found.target, found.predicted
    probabilities = found.probabilities.astype(np.float64)
    classes = probabilities.shape[1]
    labels, one_hot = np.arange(classes), np.eye(classes)[target]
    w: dict[str, Any] = {"sample_weight": weights}
    counted = np.ones(len(target)) if weights is None else weights
    present = [k for k in labels if (counted * one_hot[:, k]).any()]
    apart = [k for k in present if (counted * (1 - one_hot[:, k])).any()]
    brier = (np.square(probabilities - one_hot).sum(1) * counted).sum() / counted.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": metrics.accuracy_score(target, predicted, **w),
            "balanced_accuracy": metrics.balanced_accuracy_score(target, predicted, **w),
            "macro_f1": metrics.f1_score(
                target[counted > 0], predicted[counted > 0], average="macro",
                sample_weight=counted[counted > 0],
            ),
            "roc_auc": np.mean(
                [metrics.roc_auc_score(one_hot[:, k], probabilities[:, k], **w) for k in apart]
            ),
            "average_precision": np.mean(
                [
                    metrics.average_precision_score(one_hot[:, k], probabilities[:, k], **w)
                    for k in present
                ]
            ),
            "mcc": metrics.matthews_corrcoef(target, predicted, **w),
            "kappa": metrics.cohen_kappa_score(target, predicted, **w),
            "brier": brier / (1 + (classes == 2)),
        }  # fmt: skip
        if classes > 5:
            expected["top5_accuracy"] = metrics.top_k_accuracy_score(
                target, found.probabilities, k=5, labels=labels, **w
            )
        if classes < 100:
            expected["log_loss"] = metrics.log_loss(target, probabilities, labels=labels, **w)
    if len(present) == 1:
        expected["mcc"] = np.nan
    return expected


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 9), st.booleans())
def test_figures_are_those_of_scikit_learn(
    seed: int, count: int, classes: int, weighted: bool
) -> None:
    """Each to a billionth, of draws that have some images several times and some not at all."""
    found = some_answers(seed, count, classes)
    weights = np.random.default_rng(seed).multinomial(count, np.ones(count) / count)
    weights = weights.astype(float) if weighted else np.ones(count)
    ours = {name: float(one[0]) for name, one in ScoredImages(found).figures(weights[None]).items()}
    expected = by_scikit_learn(found, weights)
    ours.pop("ece")
    assert ours == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(("count", "classes"), [(900, 130), (4001, 6)])
def test_many_images_or_classes_have_the_same_figures(count: int, classes: int) -> None:
    """Where probabilities are counted instead of sorted, and ranked once for all draws."""
    found = some_answers(3, count, classes)
    assert found.probabilities is not None
    assert found.probabilities.size > ranking.MOST_EXACT
    ours = figures.compute(found, 0)
    expected = by_scikit_learn(found)
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert ours["log_loss"] == pytest.approx(found.mean_loss, abs=1e-9 if classes > 99 else 1e-6)
    assert ours["ece"] == found.calibration_error
    assert set(ours["intervals"]) == set(FIGURES)


def test_an_interval_of_first_order_is_that_of_all_ranks() -> None:
    """To a fifth of its own width, which is the luck of a thousand draws."""
    found = some_answers(5, 600, 10)
    assert found.probabilities is not None
    exact, linear = (
        function(found.target, found.probabilities)
        for function in (ranking.rank, ranking.linearise)
    )
    whole = [one.figures(np.ones((1, 600))) for one in (exact, linear)]
    assert np.allclose(*whole, rtol=0, atol=1e-12)
    weights = np.concatenate(list(iter_draws(0, 600)))
    for ours, first_order in zip(exact.figures(weights), linear.figures(weights), strict=True):
        ends, others = (np.quantile(one, [0.025, 0.975]) for one in (ours, first_order))
        assert np.abs(ends - others).max() < 0.2 * (ends[1] - ends[0])
        assert np.corrcoef(ours, first_order)[0, 1] > 0.98


def test_intervals_hold_the_true_figure_as_often_as_they_say() -> None:
    """Nineteen times in twenty: of 30 sets whose true figures are known, at least 25."""
    everything = figures.compute(some_answers(0, 50_000, 3), 0)
    held = dict.fromkeys(("accuracy", "roc_auc", "average_precision", "macro_f1", "log_loss"), 0)
    for seed in range(1, 31):
        ours = figures.compute(some_answers(seed, 200, 3), seed)["intervals"]
        for name in held:
            low, high = ours[name]
            held[name] += low <= everything[name] <= high
    assert all(25 <= count <= 30 for count in held.values()), held


def test_figures_lie_in_their_intervals_which_follow_from_the_seed() -> None:
    found = some_answers(1, 500, 7)
    ours = figures.compute(found, 4)
    for name in FIGURES:
        low, high = ours["intervals"][name]
        assert low < ours[name] < high, name
    assert figures.compute(found, 4) == ours
    assert figures.compute(found, 5)["intervals"] != ours["intervals"]
    assert list(ours) == [*FIGURES, "intervals"]


@pytest.mark.filterwarnings("error")
def test_figures_that_are_not_defined_are_null() -> None:
    draw = np.random.default_rng(0)
    ours = figures.compute(answers(np.zeros(8, np.int64), draw.standard_normal((8, 3))), 0)
    assert [name for name in FIGURES if ours[name] is None] == ["top5_accuracy", "roc_auc", "mcc"]
    assert set(FIGURES) - set(ours["intervals"]) == {"top5_accuracy", "roc_auc", "mcc"}
    sure = answers(np.zeros(1, np.int64), np.array([[200.0, -200.0]]))
    ours = figures.compute(sure, 0)
    assert (ours["accuracy"], ours["log_loss"], ours["kappa"]) == (1.0, 0.0, None)
    wrong = figures.compute(answers(np.ones(2, np.int64), np.array([[300.0, -300.0]] * 2)), 0)
    assert wrong["log_loss"] == pytest.approx(-np.log(np.finfo(np.float64).eps))
    assert (wrong["brier"], wrong["ece"]) == (1.0, 1.0)
