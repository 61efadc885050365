"""The benchmark of kernels: that its variants run and are compared; no times."""

from __future__ import annotations

import kernels
import pytest


@pytest.mark.usefixtures("forked_contenders")
def test_variants_take_turns_and_are_compared_with_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [kernels.OURS, "contiguous memory format"]
    net = {"model": "lab_cnn", "model_args": {}, "batch_size": 4}
    monkeypatch.setattr(kernels, "BLOCK_S", 0.1)
    ratios = kernels.compare(net, changes, rounds=2, threads=1)
    assert list(ratios) == changes
    assert ratios[kernels.OURS] == [1.0, 1.0]
    assert all(ratio > 0 for found in ratios.values() for ratio in found)
    table = kernels.table("A net", ratios)
    assert f"| {kernels.OURS} | 1.000 (1.000 to 1.000) |" in table
    for name in ("foreach Adam", "Adam in a loop"):
        kernels.step_of(kernels.Variant(**net, threads=1, **kernels.CHANGES[name]))()


def test_ways_to_evaluate_are_compared_with_ours() -> None:
    ratios = kernels.evaluation_times(rounds=2, samples=100)
    ours, *others = ratios.values()
    assert ours == [1.0, 1.0]
    assert len(others) == 4
