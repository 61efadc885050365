"""Make batches ahead of those who need them, in a thread, and send them to the device meanwhile."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from trainer.data.dataset import Images

T = TypeVar("T")
S = TypeVar("S")


def prefetch(make: Callable[[T], S], items: Iterable[T], ahead: int) -> Generator[S, None, None]:
    """Yield `make` of each item, in order, while a thread makes those that come next.

    An error of `make` is raised where its item would come. The thread ends with the iterator:
    close it, if it may not be exhausted.

    Args:
        ahead: how many may be finished and wait; 0: there is no thread.
    """
    if ahead == 0:
        yield from map(make, items)
        return
    waiting: deque[Future[S]] = deque()
    left = iter(items)
    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        for item in itertools.islice(left, ahead):
            waiting.append(pool.submit(make, item))
        while waiting:
            made = waiting.popleft().result()
            for item in itertools.islice(left, 1):
                waiting.append(pool.submit(make, item))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Sent:
    """Tensors on their way to a device.

    Args:
        event: of the copies, on the stream that makes them; None: there is nothing to wait for.
        pinned: what is copied, which has to live until the copies are made.
    """

    tensors: tuple[torch.Tensor, ...]
    event: torch.cuda.Event | None = None
    pinned: tuple[torch.Tensor, ...] = ()


class Transfer:
    """Sends tensors to a device from a thread, on a GPU beside its computations.

    A thread calls `send`, and the one that computes `receive`.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        is_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if is_gpu else None  # type: ignore[no-untyped-call]

    def ahead(self, images: Images, prefetch: int) -> int:
        """Return how many batches of images to make ahead: none that the device has already.

        Args:
            prefetch: data.prefetch.
        """
        is_there = isinstance(images, torch.Tensor) and images.device.type == self.device.type
        return 0 if is_there else prefetch

    def send(self, *tensors: torch.Tensor) -> Sent:
        """Begin to copy tensors to the device; those that are there already stay as they are."""
        if self._stream is None or all(one.device.type == "cuda" for one in tensors):
            return Sent(tuple(one.to(self.device) for one in tensors))
        with torch.cuda.stream(self._stream):
            # Torch keeps page-locked memory that was freed, and gives it out again when the copies
            # from it are made, so that after the first batches none is allocated any more.
            pinned = tuple(one.pin_memory() if one.device.type == "cpu" else one for one in tensors)
            copies = tuple(one.to(self.device, non_blocking=True) for one in pinned)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return Sent(copies, event, pinned)

    def receive(self, sent: Sent) -> tuple[torch.Tensor, ...]:
        """Return the tensors, for use after the copies; the host does not wait for them."""
        if sent.event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(sent.event)
            for tensor in sent.tensors:
                tensor.record_stream(stream)
        return sent.tensors
