"""The benchmark of receipts: that it digests what it says; no times."""

from __future__ import annotations

from pathlib import Path

import checkpoint_cost
import pytest
import receipt_cost


def test_shares_and_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_cost, "STEPS", 1)
    seconds, share = receipt_cost.measure_share(checkpoint_cost.Training(tmp_path))
    assert seconds > 0
    assert 0 < share < 1
    assert receipt_cost.measure_large(1000)[1] == 3 * 4 * 1000
