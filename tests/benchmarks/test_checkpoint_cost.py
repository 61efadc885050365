"""The benchmark of checkpoints: that an epoch with one saves one; no times."""

from __future__ import annotations

from pathlib import Path

import checkpoint_cost
import pytest


def test_an_epoch_with_a_checkpoint_saves_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_cost, "STEPS", 1)
    training = checkpoint_cost.Training(tmp_path)
    training.epoch(save=False)
    elapsed_s, blocked_s = training.epoch(save=True)
    training.checkpoints.wait(needed=True)
    assert 0 < blocked_s < elapsed_s
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 1
