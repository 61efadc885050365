"""Tell whether another process of this system has ended, as Linux knows it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from trainer.ranks import processes


def own_name() -> str:
    """Return what tells this process from any other, now and later, here and elsewhere.

    Returns:
        The start of the system and the namespace of numbers, this process's number and its start;
        empty where there is no Linux to tell.
    """
    with contextlib.suppress(OSError):
        return f"{_system()} {os.getpid()} {_start(os.getpid())}"
    return ""


def has_ended(name: str) -> bool:
    """Tell whether the process of this `own_name` is known to have ended.

    False for one of another machine or container, of which nothing is known here.
    """
    with contextlib.suppress(OSError):
        if not name or name.split(maxsplit=1)[0] != _system():
            return False
        _, number, start = name.split()
        return _start(int(number)) != start
    return False


def _system() -> str:
    """Return the start of the kernel and the namespace of the processes' numbers.

    Raises:
        OSError: this is not Linux.
    """
    boot = processes.BOOT_ID.read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _start(number: int) -> str | None:
    """Return when a process has started, in ticks of the kernel; None if it has ended.

    Raises:
        OSError: the kernel does not say.
    """
    try:
        stat = Path(f"/proc/{number}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, in brackets, which may hold anything.
    state, *fields = stat.rpartition(b")")[2].split()
    is_left = state in (b"Z", b"X")  # and nobody has asked for its exit code yet
    return None if is_left else fields[18].decode()
