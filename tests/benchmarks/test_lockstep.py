"""The benchmark of lockstep's cost: that all of its trainers run, with tiny sizes; no times."""

from __future__ import annotations

import lockstep
import pytest


@pytest.mark.usefixtures("forked")
def test_all_rivals_take_part() -> None:
    case = {
        "model": "lab_cnn", "model_args": {}, "optimizer": "adam", "batch_size": 8,
        "microbatches": 4, "threads": 1, "rounds": 2, "steps": 1,
    }  # fmt: skip
    table = lockstep.rivals_table(case)
    assert "28,938 parameters" in table[0]
    rows = [line for line in table if line.endswith(" |")][2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == lockstep.RIVALS
