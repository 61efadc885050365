"""Messages through memory that the processes of a machine share."""

from __future__ import annotations

import dataclasses
import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import pytest
import torch

from tests.runs import train_forked
from trainer.ranks import mailboxes, process_ends
from trainer.ranks.mailboxes import LostNeighbourError, Mailboxes

pytestmark = pytest.mark.skipif(
    not mailboxes.can_wait(), reason="processes wait so on Linux and x86-64 only"
)


def filled(length: int, value: int) -> torch.Tensor:
    return torch.full((length,), value % 251, dtype=torch.uint8)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the boxes of some processes have in common.

    Args:
        before: how many exchanges there seem to have been.
    """

    memory: mmap.mmap
    timeout_s: float
    before: int

    def make_boxes(self, rank: int, names: list[str]) -> Mailboxes:
        boxes = Mailboxes(self.memory, rank, names, self.timeout_s)
        boxes._number = self.before
        for word in (mailboxes._POSTED, mailboxes._BEGUN):
            boxes._words[mailboxes._WORDS * rank + word] = self.before
        return boxes


def be_neighbour(
    rank: int, setting: Setting, do: Callable[[Mailboxes], object], end: Connection
) -> None:
    signal.alarm(60)
    end.send(process_ends.own_name())
    boxes = setting.make_boxes(rank, end.recv())
    end.send("ready")
    end.recv()
    do(boxes)
    end.recv()


@contextmanager
def neighbours(
    do: Callable[[Mailboxes], object], count: int = 2, timeout_s: float = 30, before: int = 0
) -> Iterator[Mailboxes]:
    """Yield the boxes of rank 0, while other processes do something with theirs."""
    fork = multiprocessing.get_context("fork")
    memory = mmap.mmap(-1, Mailboxes.size_bytes(count))
    setting = Setting(memory, timeout_s, before)
    ends, others = list[Connection](), []
    for rank in range(1, count):
        here, there = fork.Pipe()
        ends.append(here)
        others.append(fork.Process(target=be_neighbour, args=(rank, setting, do, there)))
        others[-1].start()
    names = [process_ends.own_name(), *(end.recv() for end in ends)]
    own = setting.make_boxes(0, names)
    for end in ends:
        end.send(names)
    assert [end.recv() for end in ends] == ["ready"] * len(ends)
    for end in ends:
        end.send("all are ready")
    try:
        yield own
        for end, other in zip(ends, others, strict=True):
            if other.is_alive():
                end.send("that is all")
        for other in others:
            other.join()
        assert [other.exitcode for other in others] == [0] * len(others)
    finally:
        for other in others:
            other.kill()


def swap(boxes: Mailboxes, rank: int, number: int, *, count: int) -> None:
    """Send each other rank bytes that tell the sender, receiver and number; check theirs."""
    others = [other for other in range(count) if other != rank]
    length = 1 + number * 37 % 5000
    messages = [
        ([other], [filled(length, number + rank), filled(other, number + other)])
        for other in others
    ]
    found = boxes.exchange(messages, dict.fromkeys(others, length + rank))
    for other in others:
        expected = torch.cat([filled(length, number + other), filled(rank, number + rank)])
        assert torch.equal(found[other], expected), (rank, other, number)


@pytest.mark.parametrize("before", [0, 2**32 - 150], ids=["from the start", "past 32 bits"])
def test_each_gets_what_was_sent_to_it_in_every_exchange(before: int) -> None:
    def swap_all(boxes: Mailboxes) -> None:
        for number in range(300):
            time.sleep(0.001 * (number % 7 == boxes._rank))  # now one is late, now another
            swap(boxes, boxes._rank, number, count=3)

    with neighbours(swap_all, 3, before=before) as own:
        swap_all(own)


def test_a_message_for_all_lies_in_the_box_once() -> None:
    def tell_all(boxes: Mailboxes) -> dict[int, torch.Tensor]:
        others = [rank for rank in range(3) if rank != boxes._rank]
        sizes = dict.fromkeys(others, mailboxes.BOX_BYTES)
        return boxes.exchange([(others, [filled(mailboxes.BOX_BYTES, boxes._rank)])], sizes)

    with neighbours(tell_all, 3) as own:
        for rank, message in tell_all(own).items():
            assert message.unique().tolist() == [rank]


def end_or_answer(boxes: Mailboxes) -> None:
    if boxes._rank == 2:
        os._exit(0)
    time.sleep(1)
    boxes.exchange([([0], [filled(10, 3)])], {})


def test_a_process_that_is_not_waited_for_may_have_ended() -> None:
    """It has all that it needs, and another one is late."""
    with neighbours(end_or_answer, 3) as own:
        assert own.exchange([], {1: 10})[1].tolist() == [3] * 10


@pytest.mark.parametrize(("waits_for", "within_s"), [(2, 1.5), (1, 5)], ids=["it", "another one"])
def test_the_end_of_a_process_is_noticed(waits_for: int, within_s: float) -> None:
    with (
        pytest.raises(LostNeighbourError, match=r"^the process of rank 2 has ended$"),
        neighbours(lambda boxes: os._exit(1) if boxes._rank == 2 else None, 3) as own,
    ):
        start_s = time.monotonic()
        try:
            own.exchange([], {waits_for: 10})
        finally:
            assert time.monotonic() - start_s < within_s


def test_what_a_process_wrote_before_it_ended_counts() -> None:
    def send_and_die(boxes: Mailboxes) -> None:
        boxes.exchange([([0], [filled(10, 3)])], {})
        os._exit(0)

    with neighbours(send_and_die) as own:
        time.sleep(0.3)
        assert own.exchange([], {1: 10})[1].tolist() == [3] * 10


def test_one_that_leaves_is_noticed() -> None:
    left = r"^the process of rank 1 has left the run$"
    with neighbours(Mailboxes.leave) as own, pytest.raises(LostNeighbourError, match=left):
        own.exchange([], {1: 10})


def test_one_that_hangs_is_given_up_after_the_timeout_and_not_before() -> None:
    with neighbours(lambda boxes: None, timeout_s=0.5) as own:
        start_s = time.monotonic()
        with pytest.raises(LostNeighbourError, match=r"^rank 1 has not answered for 0\.5 s$"):
            own.exchange([], {1: 10})
        assert 0.5 <= time.monotonic() - start_s < 3


def test_a_signal_does_not_end_the_wait() -> None:
    """Handlers run meanwhile: a run is told to stop by one."""
    came = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(time.monotonic())

    before = signal.signal(signal.SIGUSR1, note)
    try:
        with neighbours(lambda boxes: send_late(boxes, os.getppid())) as own:
            assert own.exchange([], {1: 10})[1].tolist() == [5] * 10
            assert time.monotonic() - came[0] > 0.2
    finally:
        signal.signal(signal.SIGUSR1, before)


def send_late(boxes: Mailboxes, parent: int) -> None:
    time.sleep(0.3)
    os.kill(parent, signal.SIGUSR1)
    time.sleep(0.3)
    boxes.exchange([([0], [filled(10, 5)])], {})


def test_a_message_of_another_size_is_refused() -> None:
    def send_less(boxes: Mailboxes) -> None:
        boxes.exchange([([0], [filled(9, 7)])], {})

    refused = r"^rank 1 has sent 9 bytes instead of 10: the ranks do not exchange the same$"
    with neighbours(send_less) as own, pytest.raises(RuntimeError, match=refused):
        own.exchange([], {1: 10})


NOTING = """
import os
from pathlib import Path
from models.quicknet import QuickNet
from trainer.ranks import mailboxes, memory_files

if os.environ.get("HIDDEN") == os.environ.get("RANK"):
    memory_files._BOOT_ID = Path(os.devnull)

class Noting(QuickNet):
    def forward(self, images):
        rank = os.environ.get("RANK", "0")
        Path(os.environ["NOTES"], rank).write_text(f"{mailboxes.current() is not None}")
        return super().forward(images)
"""


@pytest.mark.parametrize("hidden", ["none", "1"], ids=["in memory", "one rank may not look"])
def test_a_run_has_the_same_weights_with_and_without(hidden: str, tmp_path: Path) -> None:
    """All processes exchange in memory, or none."""
    plugin = tmp_path / "noting.py"
    plugin.write_text(NOTING)
    words = ["--model.name", f"{plugin}:Noting"]
    notes = {"NOTES": str(tmp_path), "HIDDEN": hidden}
    run = train_forked(tmp_path / "run", 2, *words, **notes)
    assert run.exit_code == 0, run.errors
    assert [(tmp_path / rank).read_text() for rank in "01"] == [str(hidden == "none")] * 2
    alone = train_forked(tmp_path / "alone", 1, *words, **notes)
    assert run.digest == alone.digest
