"""The learning rate by step."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import ScheduleConfig
from trainer.schedules import learning_rate


def rates(config: ScheduleConfig, epochs: int = 10, steps_per_epoch: int = 10) -> list[float]:
    total = epochs * steps_per_epoch
    return [
        learning_rate(config, 2.0, step, total, steps_per_epoch) for step in range(1, total + 1)
    ]


def test_constant_stays() -> None:
    assert set(rates(ScheduleConfig("constant"))) == {2.0}


def test_linear_falls_in_equal_steps_to_its_end() -> None:
    values = rates(ScheduleConfig("linear", final_fraction=0.1))
    falls = [before - after for before, after in pairwise(values)]
    assert values[0] == 2.0
    assert falls == pytest.approx([1.8 / 100] * 99)
    assert values[-1] == pytest.approx(0.2 + 1.8 / 100)


def test_cosine_is_halfway_in_the_middle() -> None:
    values = rates(ScheduleConfig("cosine"))
    assert values[0] == 2.0
    assert values[50] == pytest.approx(1.0)
    assert 0 < values[-1] < 0.001


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_warmup_rises_to_the_peak(name: str) -> None:
    values = rates(ScheduleConfig(name, warmup_epochs=1.5))  # type: ignore[arg-type]
    assert values[:15] == pytest.approx([2.0 * step / 16 for step in range(1, 16)])
    assert values[15] == 2.0
    assert max(values) == 2.0


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.integers(1, 20),
    st.integers(1, 30),
    st.floats(0, 0.95),
    st.floats(0, 1),
)
def test_every_rate_of_every_run_is_usable(
    name: str, epochs: int, steps: int, warmup: float, final: float
) -> None:
    config = ScheduleConfig(name, warmup_epochs=warmup * epochs, final_fraction=final)  # type: ignore[arg-type]
    assert all(0 < rate <= 2.0 for rate in rates(config, epochs, steps))
