"""Files in memory that the processes of a machine share: memfd_create(2).

Such a file has no name, takes nothing of a container's /dev/shm, and is gone with the last process
that uses it, however that ends. Where a system lets no process look at another one's files, nothing
is shared, and each process has its own.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.ranks import collectives, processes

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

_BOOT_ID = processes.BOOT_ID


@dataclass(frozen=True)
class MemoryFile:
    """A file in memory that a process has open.

    Args:
        machine: the running system's own name.
        path: of the open file, in that process.
        link: what is found there, which nothing else is called.
    """

    machine: str
    path: Path
    link: Path

    def is_here(self) -> bool:
        """Return whether this process can look at it, and it is not another one of this path."""
        try:
            # Elsewhere it is of another machine, or of another container on this one.
            return self.machine == _BOOT_ID.read_text("utf-8") and self.path.readlink() == self.link
        except OSError:  # of another user, or a process may not look into another one here
            return False


def create(size_bytes: int, stack: contextlib.ExitStack) -> MemoryFile | None:
    """Create an empty file, which the stack closes; None where this system has none."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create(f"lockstep-{secrets.token_hex(16)}")
        stack.callback(os.close, descriptor)
        os.ftruncate(descriptor, size_bytes)
        path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        return MemoryFile(_BOOT_ID.read_text("utf-8"), path, path.readlink())
    except OSError:  # a container forbids it
        return None


@contextlib.contextmanager
def share(accelerator: Accelerator, size_bytes: int | None) -> Iterator[MemoryFile | None]:
    """Yield an empty file of the first process of this machine to all of them; a collective.

    Whoever wants to use it opens it meanwhile. None, for all of them, where one cannot look at it,
    as on a system that lets no process look at another one's files; or there is no other process on
    this machine.

    Args:
        size_bytes: of the file, that the first process asks for; None: it wants none.
    """
    if accelerator.num_processes == 1:
        yield None
        return
    from accelerate.utils import gather_object

    with contextlib.ExitStack() as stack:
        own = None
        leads = accelerator.is_local_main_process and processes.local_count() > 1
        if leads and size_bytes is not None:
            own = create(size_bytes, stack)
        others = [file for file in gather_object([own]) if file]
        found = own or next((file for file in others if file.is_here()), None)
        # With some of them left out, nobody would know how much memory all take.
        has_it = found is not None or processes.local_count() == 1
        yield found if all(gather_object([has_it])) else None
        collectives.barrier(accelerator)  # until all have opened it


def empty(accelerator: Accelerator, *shape: int) -> torch.Tensor:
    """Return a tensor that all processes of a machine have in the same memory; a collective.

    Each fills all of it, with the same numbers as the others.

    Returns:
        float32, not initialised; of this process alone where nothing can be shared.
    """
    import torch

    own = torch.empty(shape)
    if not own.nbytes:
        return own
    with share(accelerator, own.nbytes) as file, contextlib.suppress(OSError):
        if file is not None:
            with file.path.open("r+b") as opened:
                mapped = mmap.mmap(opened.fileno(), own.nbytes)
            own = torch.frombuffer(mapped, dtype=own.dtype).view(shape)
    return own
