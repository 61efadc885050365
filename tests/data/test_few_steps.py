"""The warning of a fine-tuning that is over before it has learnt much."""

from __future__ import annotations

import re

from trainer.config.schema import RunConfig, replace
from trainer.data.few_steps import FEWEST_STEPS, find_warnings

TUNED = {"model.weights": "pretrained", "train.epochs": 8, "train.batch_size": 64}


def test_few_steps_are_warned_of_with_the_epochs_that_would_do() -> None:
    config = replace(RunConfig(), TUNED)
    (warning,) = find_warnings(config, 70)
    assert "train.epochs: 8 of 70 images in batches of 64 are 16 steps" in warning
    epochs = int(re.findall(r"--train.epochs (\d+)", warning)[0])
    assert 2 * (epochs - 1) < FEWEST_STEPS <= 2 * epochs
    assert find_warnings(replace(config, {"train.epochs": epochs}), 70) == ()


def test_other_runs_are_not() -> None:
    assert find_warnings(replace(RunConfig(), TUNED), 3068) == ()
    assert find_warnings(replace(RunConfig(), TUNED | {"model.weights": None}), 70) == ()
