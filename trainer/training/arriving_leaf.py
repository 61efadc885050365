"""Leaves of a step's sum whose tensors come one by one, while the rest is computed."""

from __future__ import annotations

import functools
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import torch

from trainer.base.flat_buffer import BufferLayout
from trainer.training import exchange


class ArrivingLeaf:
    """A leaf whose tensors come one by one, in any order.

    Args:
        chain: buffers to which it is added, one after the other, each sum to the next: at least
            one. The first one holds nothing yet if `is_new`.
    """

    def __init__(
        self, layout: BufferLayout, chain: Sequence[torch.Tensor], *, is_new: bool
    ) -> None:
        self._layout = layout
        self._chain = chain
        self._is_new = is_new
        self._views = layout.views(chain[0])

    def __len__(self) -> int:
        """Return how many tensors the leaf has."""
        return len(self._views)

    def put(self, number: int, tensor: torch.Tensor) -> None:
        """Take a tensor of the leaf."""
        if self._is_new:
            self._views[number].copy_(tensor)
        else:
            self._views[number].add_(tensor)

    def finish(self) -> None:
        """Add what has come to the rest of the chain, when all tensors have."""
        self._add(0, self._layout.size_bytes)

    def _add(self, begin: int, end: int) -> None:
        for right, left in itertools.pairwise(self._chain):
            self._layout.add(begin, left[begin:end], right[begin:end])


class ExchangedLeaf(ArrivingLeaf):
    """A rank's last leaf, exchanged bucket by bucket while the rest is computed.

    The vector is exchanged from its end, where the gradients of the last layers are, which a
    backward pass computes first: as soon as a bucket is complete, and always in the same order,
    which all ranks share. When a rank exchanges a bucket is its own affair; what it adds and sends
    is not.

    Args:
        nodes: of this rank when that is done, as for `exchange.sum_over_ranks`.
    """

    def __init__(
        self,
        layout: BufferLayout,
        chain: Sequence[torch.Tensor],
        nodes: exchange.Nodes,
        leaves: int,
        *,
        is_new: bool,
    ) -> None:
        super().__init__(layout, chain, is_new=is_new)
        self._nodes = nodes
        self._leaves = leaves
        self._buckets = list(exchange.buckets(layout.size_bytes))
        self._missing = [0] * len(self._buckets)
        for number in range(len(self._views)):
            for bucket in self._buckets_of(number):
                self._missing[bucket] += 1
        self._begun = 0
        on_gpu = layout.device.type == "cuda"
        self._runner: _Stream | _Thread = _Stream(layout.device) if on_gpu else _Thread()

    def put(self, number: int, tensor: torch.Tensor) -> None:
        """Take a tensor of the leaf; begin to exchange the buckets that are complete by it."""
        super().put(number, tensor)
        for bucket in self._buckets_of(number):
            self._missing[bucket] -= 1
        while self._begun < len(self._buckets) and not self._missing[self._begun]:
            self._runner.run(functools.partial(self._sum, *self._buckets[self._begun]))
            self._begun += 1

    def finish(self) -> None:
        """Wait for the exchange of all buckets, when all tensors have come."""
        self._runner.finish()

    def _sum(self, begin: int, end: int) -> None:
        self._add(begin, end)
        exchange.sum_bytes(self._layout, self._nodes, self._leaves, begin, end)

    def _buckets_of(self, number: int) -> Iterator[int]:
        first, last = self._layout.begins[number], self._layout.ends[number]
        for bucket, (begin, end) in enumerate(self._buckets):
            if first < end and begin < last:
                yield bucket


class _Thread:
    """Runs the exchanges on the CPU: their messages wait, and nobody else drives them.

    It ends with its process if a step fails, which no run of several processes outlives.
    """

    def __init__(self) -> None:
        self._works: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], None]) -> None:
        """Run it after those before."""
        self._works.put(work)

    def finish(self) -> None:
        """Wait for all; raise the error of the first that failed."""
        self._works.put(None)
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            while work := self._works.get():
                work()
        except BaseException as error:  # finish raises it, in the main thread
            self._error = error


class _Stream:
    """Runs the exchanges on a GPU beside the backward pass: the host only queues them."""

    def __init__(self, device: torch.device) -> None:
        self._stream = _stream_for_exchanges(device)

    def run(self, work: Callable[[], None]) -> None:
        """Queue it behind what has been computed so far."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            work()

    def finish(self) -> None:
        """Let what is computed next wait for all."""
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)


@functools.cache
def _stream_for_exchanges(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for all steps: the allocator keeps freed memory for each by itself.

    What is received has its memory from here. The vectors come from the stream of the backward
    pass, which waits for this one before they are freed.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
