"""The learning rate by step."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.base.errors import UserError
from trainer.config.schema import ScheduleConfig
from trainer.training.run_state import RunState
from trainer.training.schedules import check_warmup, learning_rate


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


def test_one_cycle_rises_from_a_25th_and_falls_to_its_end() -> None:
    values = rates(ScheduleConfig("one_cycle", warmup_epochs=3, final_fraction=0.01))
    assert values[0] == pytest.approx(2.0 / 25)
    assert values[15] == pytest.approx((2.0 / 25 + 2.0) / 2)
    assert values[30] == 2.0
    assert values[65] == pytest.approx((2.0 + 0.02) / 2)
    assert 0.02 < values[-1] < 0.022
    assert all(before < after for before, after in pairwise(values[:31]))
    assert all(before > after for before, after in pairwise(values[30:]))


def test_one_cycle_is_that_of_torch() -> None:
    config = ScheduleConfig("one_cycle", warmup_epochs=3, final_fraction=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    # Torch counts the rise up to the step of the peak, the fall down to the last step.
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2.0, total_steps=101, pct_start=31 / 101, div_factor=25, final_div_factor=10 / 25
    )
    for ours in rates(config):
        assert ours == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_piecewise_falls_after_each_milestone() -> None:
    values = rates(ScheduleConfig("piecewise", milestones=[2, 4.5, 9], factor=0.2))
    expected = [2.0] * 20 + [0.4] * 25 + [0.08] * 45 + [0.016] * 10
    assert values == pytest.approx(expected)
    assert len(set(values)) == 4


def test_polynomial_is_a_power_of_what_is_left() -> None:
    values = rates(ScheduleConfig("polynomial", power=2.0, final_fraction=0.1))
    assert values[0] == 2.0
    assert values[50] == pytest.approx(2.0 * (0.1 + 0.9 * 0.25))
    assert values[-1] == pytest.approx(0.2, abs=1e-3)


def test_restarts_are_cosines_each_longer_than_the_one_before() -> None:
    config = ScheduleConfig("restarts", warmup_steps=5, cycle_epochs=1.5, cycle_factor=2.0)
    values = rates(config)
    starts = [index for index, value in enumerate(values) if value == 2.0]
    assert starts == [5, 20, 50]
    cosine = rates(ScheduleConfig("cosine"), epochs=3)
    assert values[20:50] == cosine
    assert values[50:] == pytest.approx(rates(ScheduleConfig("cosine"), epochs=6)[:50])
    assert rates(config, epochs=4) == values[:40], "more epochs begin with the same rates"


def test_a_warmup_in_steps_is_that_in_epochs_and_ends_before_the_run() -> None:
    in_epochs = rates(ScheduleConfig("cosine", warmup_epochs=1.5))
    assert rates(ScheduleConfig("cosine", warmup_steps=15)) == in_epochs
    check_warmup(ScheduleConfig("cosine", warmup_steps=99), 100)
    with pytest.raises(UserError, match=r"schedule.warmup_steps: must be less than .* 100"):
        check_warmup(ScheduleConfig("cosine", warmup_steps=100), 100)


def test_a_plateau_lowers_the_rate_and_then_waits_as_long_again() -> None:
    state, lowered = RunState(), []
    for epoch in range(1, 12):
        state.epoch = epoch
        if epoch in (1, 2, 8):
            state.best_epoch = epoch
        state.note_plateau(3)
        lowered.append(state.plateaus)
    assert lowered == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]
    assert learning_rate(ScheduleConfig("plateau", factor=0.5), 2.0, 7, 10, 5, 2) == 0.5


def test_more_epochs_of_a_piecewise_schedule_begin_with_the_same_rates() -> None:
    config = ScheduleConfig("piecewise", warmup_epochs=0.5, milestones=[2, 3])
    assert rates(config, epochs=9)[:40] == rates(config, epochs=4)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "piecewise"])
def test_warmup_rises_to_the_peak(name: str) -> None:
    milestones = [3.0] if name == "piecewise" else None
    values = rates(ScheduleConfig(name, warmup_epochs=1.5, milestones=milestones))  # type: ignore[arg-type]
    assert values[:15] == pytest.approx([2.0 * step / 16 for step in range(1, 16)])
    assert values[15] == 2.0
    assert max(values) == 2.0


@given(
    st.sampled_from(["constant", "linear", "cosine", "polynomial", "one_cycle", "piecewise"]),
    st.integers(1, 20),
    st.integers(1, 30),
    st.floats(0, 0.95),
    st.floats(0, 1),
    st.lists(st.floats(0, 1), max_size=4),
    st.floats(0.01, 0.99),
)
def test_every_rate_of_every_run_is_usable_and_they_rise_and_then_fall(
    name: str,
    epochs: int,
    steps: int,
    warmup: float,
    final: float,
    milestones: list[float],
    factor: float,
) -> None:
    after = [epochs * (warmup + (1 - warmup) * share) for share in sorted(milestones)]
    config = ScheduleConfig(
        name,  # type: ignore[arg-type]
        warmup_epochs=warmup * epochs,
        final_fraction=final,
        milestones=after,
        factor=factor,
        power=10 * factor,
    )
    values = rates(config, epochs, steps)
    assert all(0 < rate <= 2.0 for rate in values)
    top = values.index(max(values))
    assert all(before <= after for before, after in pairwise(values[: top + 1]))
    assert all(before >= after for before, after in pairwise(values[top:]))
