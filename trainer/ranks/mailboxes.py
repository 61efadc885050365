"""Messages between the processes of one machine, through memory that they share.

A socket copies a message four times and wakes a thread on either side, which takes both processes'
cores away from computing. Here the sender copies it into its own box, and the receiver reads it
there. They wait for each other in the kernel, at a number in the same memory: futex(2).

Each process has two boxes, which it fills in turn. One is filled again when all that it was for
have begun a later exchange, and so have read it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from trainer.ranks import memory_files, process_ends, processes

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

BOX_BYTES = 2 * 2**20
"""of a box, and so of the messages that a rank sends in an exchange: they stay in a core's cache"""
LOOK_S = 0.1
"""how often a rank that waits makes sure that the other one is there"""
GRACE_S = 2.0
"""after which those count, too, that it does not wait for itself: one that has all that it needs
may have ended"""

_SPINS = 100
"""how often a number is read before the process sleeps: about as long as falling asleep takes"""
_ALIGNMENT_BYTES = 64
"""a line of the processor's cache"""
_WORDS = _ALIGNMENT_BYTES // 4
"""of 32 bits, in the line of a rank"""
_POSTED, _BEGUN, _LEFT = range(3)
"""words in it: its last exchange whose messages are there, the last that it has begun, and whether
it has left"""
_SYSTEM_CALL = 202
"""futex on x86-64"""
_WAIT, _WAKE, _ALL = 0, 1, 2**31 - 1
_WRAP = 2**32

_open: list[Mailboxes] = []
"""one, or none"""


class LostNeighbourError(RuntimeError):
    """Another process of this machine has died, has left, or has not answered in time."""


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def current() -> Mailboxes | None:
    """Return what connects all processes of the run; None where sockets do."""
    return _open[0] if _open else None


def open_for_all(accelerator: Accelerator, timeout_s: float) -> None:
    """Connect the processes of a run that are all on this machine, on the CPU; a collective.

    Where that is not possible, for one of them, there are none: on several machines or on GPUs, on
    another system than Linux, on another processor than x86-64, whose stores are seen in their
    order, and where no process may look at another one's files.

    Args:
        timeout_s: after which a process that has not answered is given up.
    """
    close()
    count = accelerator.num_processes
    here = count > 1 and count == processes.local_count()
    if not here or accelerator.device.type != "cpu":
        return
    from accelerate.utils import gather_object

    names = gather_object([process_ends.own_name() if can_wait() else ""])
    systems = {name.partition(" ")[0] for name in names}
    can_watch = len(systems) == 1 and all(systems)
    found, size_bytes = None, Mailboxes.size_bytes(count) if can_watch else None
    with memory_files.share(accelerator, size_bytes) as file:
        if file is not None and size_bytes is not None:
            # It may have no room for it, or may not look at the file.
            with contextlib.suppress(OSError), file.path.open("r+b") as opened:
                memory = mmap.mmap(opened.fileno(), size_bytes)
                found = Mailboxes(memory, accelerator.process_index, names, timeout_s)
    if all(gather_object([found is not None])) and found:
        _open.append(found)


def close() -> None:
    """Leave: others that wait for this process notice."""
    while _open:
        _open.pop().leave()


def can_wait() -> bool:
    """Tell whether processes can wait for each other's messages on this system."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _header_bytes(count: int) -> int:
    return math.ceil((count * (_ALIGNMENT_BYTES + 2 * 8 * count)) / mmap.PAGESIZE) * mmap.PAGESIZE


class Mailboxes:
    """The boxes of all processes, as one of them sees them.

    Args:
        memory: shared by all, zeros at first, as large as `size_bytes` says.
        rank: of this process.
        names: of all processes, as `process_ends.own_name` gives them.
        timeout_s: after which a process that has not answered is given up.
    """

    def __init__(
        self, memory: mmap.mmap, rank: int, names: Sequence[str], timeout_s: float
    ) -> None:
        import torch

        count = len(names)
        self._rank, self._count, self._names, self._timeout_s = rank, count, names, timeout_s
        self._number = 0
        self._recipients: tuple[list[int], list[int]] = ([], [])
        """of the last two exchanges"""
        self._words = (ctypes.c_uint32 * (_WORDS * count)).from_buffer(memory)
        self._address = ctypes.addressof(self._words)
        table = (ctypes.c_uint32 * (4 * count * count)).from_buffer(
            memory, count * _ALIGNMENT_BYTES
        )
        self._table = table
        """where a rank's message to another begins in a box, and its length; for two boxes"""
        begin = _header_bytes(count)
        self._boxes = [
            [
                torch.frombuffer(
                    memory,
                    dtype=torch.uint8,
                    count=BOX_BYTES,
                    offset=begin + (2 * owner + box) * BOX_BYTES,
                )
                for box in range(2)
            ]
            for owner in range(count)
        ]
        self._call = ctypes.CDLL(None, use_errno=True).syscall

    @staticmethod
    def size_bytes(count: int) -> int:
        """Return the size of the memory that `count` processes share."""
        return _header_bytes(count) + 2 * count * BOX_BYTES

    def leave(self) -> None:
        """Let others that wait for this process notice."""
        self._words[_WORDS * self._rank + _LEFT] = 1

    def exchange(
        self,
        messages: Sequence[tuple[Sequence[int], Sequence[torch.Tensor]]],
        sizes: Mapping[int, int],
    ) -> dict[int, torch.Tensor]:
        """Send messages, and receive those of the same ranks; they all call it, in the same order.

        Args:
            messages: each with the ranks that get it, and bytes, which are joined: at most
                `BOX_BYTES` together.
            sizes: in bytes, of the message of each rank that sends this one something.

        Returns:
            The message of each, where it lies: until the next exchange begins.

        Raises:
            LostNeighbourError: a process has died, has left, or has not answered in time.
            RuntimeError: a message has another size: that rank does something else.
        """
        self._number = (self._number + 1) % _WRAP
        number, box = self._number, self._number % 2
        self._write(_BEGUN, number)
        readers = [rank for ranks, _ in messages for rank in ranks]
        previous, self._recipients = self._recipients[0], (self._recipients[1], readers)
        self._wait(_BEGUN, previous, (number - 1) % _WRAP)
        begin = 0
        for ranks, parts in messages:
            first = begin
            for part in parts:
                end = begin + part.numel()
                self._boxes[self._rank][box][begin:end].copy_(part)
                begin = end
            for rank in ranks:
                place = self._place(self._rank, rank, box)
                self._table[place], self._table[place + 1] = first, begin - first
            begin += -begin % _ALIGNMENT_BYTES
        self._write(_POSTED, number)
        self._wait(_POSTED, list(sizes), number)
        return {rank: self._read(rank, box, size) for rank, size in sizes.items()}

    def _place(self, sender: int, receiver: int, box: int) -> int:
        return 2 * ((sender * self._count + receiver) * 2 + box)

    def _read(self, sender: int, box: int, size_bytes: int) -> torch.Tensor:
        place = self._place(sender, self._rank, box)
        first, length = self._table[place], self._table[place + 1]
        if length != size_bytes:
            raise RuntimeError(
                f"rank {sender} has sent {length} bytes instead of {size_bytes}: the ranks do not "
                f"exchange the same"
            )
        return self._boxes[sender][box][first : first + length]

    def _write(self, word: int, number: int) -> None:
        place = _WORDS * self._rank + word
        self._words[place] = number
        self._futex(place, _WAKE, _ALL, None)

    def _wait(self, word: int, ranks: Sequence[int], number: int) -> None:
        """Wait until each rank has written this number, or a later one."""
        for rank in ranks:
            place = _WORDS * rank + word
            if not any(_has_come(self._words[place], number) for _ in range(_SPINS)):
                self._sleep(rank, place, number)

    def _sleep(self, rank: int, place: int, number: int) -> None:
        waited_s, before_s = 0.0, time.monotonic()
        while not _has_come(found := self._words[place], number):
            self._futex(place, _WAIT, found, _Timespec(0, round(1e9 * LOOK_S)))
            if _has_come(self._words[place], number):
                return
            now_s = time.monotonic()
            # Time in which the whole machine was stopped does not count.
            waited_s, before_s = waited_s + min(now_s - before_s, 2 * LOOK_S), now_s
            gone = self._find_gone(range(self._count) if waited_s > GRACE_S else [rank])
            # What a process wrote before it ended counts.
            if gone and not _has_come(self._words[place], number):
                raise LostNeighbourError(gone)
            if waited_s > self._timeout_s:
                raise LostNeighbourError(f"rank {rank} has not answered for {self._timeout_s:g} s")

    def _find_gone(self, ranks: Iterable[int]) -> str | None:
        for rank in ranks:
            if rank == self._rank:
                continue
            if process_ends.has_ended(self._names[rank]):
                return f"the process of rank {rank} has ended"
            if self._words[_WORDS * rank + _LEFT]:
                return f"the process of rank {rank} has left the run"
        return None

    def _futex(self, place: int, operation: int, value: int, timeout: _Timespec | None) -> None:
        self._call(
            _SYSTEM_CALL,
            ctypes.c_void_p(self._address + 4 * place),
            operation,
            ctypes.c_uint32(value),
            ctypes.byref(timeout) if timeout else None,
            None,
            0,
        )


def _has_come(found: int, number: int) -> bool:
    """Tell whether a word is this number, or a later one; they begin again after 32 bits."""
    return (found - number) % _WRAP < _WRAP // 2
