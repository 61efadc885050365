"""Signals of this very process become a flag, and a second SIGINT does not wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from trainer.ranks import exit_codes
from trainer.ranks.preemption import STOP_SIGNALS, StopRequest


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    request = StopRequest()
    request.install()
    yield request
    request.restore()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_remembered_and_interrupts_nothing(
    stop: StopRequest, number: signal.Signals
) -> None:
    assert stop.signal is None
    os.kill(os.getpid(), number)
    assert stop.signal is number


def test_a_second_sigint_stops_at_once(
    stop: StopRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"), exit_codes.exit_with_code():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one has to end this")
    assert "interrupted" in capsys.readouterr().err


def test_other_signals_after_sigint_are_only_remembered(stop: StopRequest) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal is signal.SIGTERM
    # As a terminal's Ctrl-C and the command that forwards it come one after the other.
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_the_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    request = StopRequest()
    request.install()
    request.restore()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
