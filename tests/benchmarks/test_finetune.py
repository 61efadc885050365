"""The benchmarks of fine-tuning: what their pages say of the figures; no times."""

from __future__ import annotations

import finetune
import finetune_steps


def test_a_point_is_the_mean_of_its_seeds() -> None:
    one = {"train_s": 10.0, "accuracy": 0.5, "validation_accuracy": 0.6, "machine": "m"}
    other = one | {"train_s": 20.0, "accuracy": 0.7}
    runs = {"4": {"0": one | {"train_s": 40.0}}, "2": {"0": one, "1": other}}
    assert finetune.points(runs) == [(2, 15.0, 0.6, 0.6, 2), (4, 40.0, 0.6, 0.5, 1)]


def test_steps_are_compared_within_a_round() -> None:
    seconds = {"plain": [1.0, 2.0], "whole": [0.5, 1.0], "frozen": [0.1, 0.2]}
    *_, plain, whole, frozen = finetune_steps.build_lines(seconds, steps=10)
    assert "| 150.0 ms |  | 2.000" in plain
    assert "| 75.0 ms | 0.500" in whole
    assert "0.100" in frozen and "0.200" in frozen
