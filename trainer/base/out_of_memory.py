"""Explain a lack of memory, on any device, by a message that names the key to change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from trainer.base.errors import RankError

# Of the allocators that raise a plain RuntimeError: torch's on the CPU, Apple's, CUDA's libraries.
_WORDS = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED", "bad_alloc")


@contextlib.contextmanager
def explain(what: str, advice: str, device: torch.device) -> Iterator[None]:
    """Turn a lack of memory inside this context into one message.

    Args:
        what: the key, and what does not fit.

    Raises:
        RankError: the memory is too small for `what`.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is one of them
        if not is_out_of_memory(error):
            raise
        place = "the memory" if device.type == "cpu" else "the GPU's memory"
        raise RankError(f"{what} does not fit into {place}; {advice}") from error


def fits(attempt: Callable[[], bool]) -> bool:
    """Return what `attempt` does, or false where there is too little memory for it.

    Any other error comes out of it. The tensors of a failed attempt are freed.
    """
    try:
        return attempt()
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is one of them
        if not is_out_of_memory(error):
            raise
    return False


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that there was too little memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in _WORDS)
