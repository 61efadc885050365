"""Counts of classes against each other, and the figures of them: those of scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from trainer.training import confusion
from trainer.training.confusion import count_confusion

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1)


@given(PAIRS, st.data())
def test_cells_are_those_of_the_matrix(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    target, predicted = np.array(pairs).T
    whole = np.zeros((6, 6), int)
    for true, guess in pairs:
        whole[true, guess] += 1
    found = count_confusion(target, predicted, 6)
    assert found.matrix().tolist() == whole.tolist()
    assert found.support().tolist() == whole.sum(1).tolist()
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, 5), min_size=1))))
    assert found.matrix(chosen).tolist() == whole[np.ix_(chosen, chosen)].tolist()
    begin, end = sorted(data.draw(st.tuples(st.integers(0, 6), st.integers(0, 6))))
    assert found.rows(begin, end).tolist() == whole[begin:end].tolist()
    counts = [int(found.count[cell]) for cell in found.mistakes()]
    others = whole[~np.eye(6, dtype=bool)]
    assert counts == sorted(others[others > 0].tolist(), reverse=True)


@settings(max_examples=40)
@given(PAIRS)
def test_figures_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    target, predicted = np.array(pairs).T
    found = count_confusion(target, predicted, 6)
    counts = found.support(), np.bincount(predicted, minlength=6), found.correct()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without images, and of one class only
        expected = {
            "balanced accuracy": metrics.balanced_accuracy_score(target, predicted),
            "macro F1": metrics.f1_score(target, predicted, average="macro"),
            "MCC": metrics.matthews_corrcoef(target, predicted),
            "kappa": metrics.cohen_kappa_score(target, predicted),
        }
    ours = {
        "balanced accuracy": found.balanced_accuracy,
        "macro F1": found.macro_f1,
        "MCC": float(confusion.matthews_coefficient(*counts)),
        "kappa": float(confusion.cohens_kappa(*counts)),
    }
    if len(set(target.tolist())) == 1:  # where scikit-learn says 0
        assert np.isnan(ours.pop("MCC"))
        expected.pop("MCC")
    assert ours == pytest.approx(expected, abs=1e-12, nan_ok=True)
