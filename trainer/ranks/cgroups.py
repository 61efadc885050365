"""Limits of a container or a batch system on CPU time and memory: Linux's control groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

_UNLIMITED_BYTES = 2**62
"""version 1 has a larger number where there is no limit"""


def cpu_quota() -> float | None:
    """Return how many cores' time this process may use; None for no limit."""
    quotas = []
    for group in _groups("cpu"):
        words = _read(group / "cpu.max").split() or [
            _read(group / "cpu.cfs_quota_us"),
            _read(group / "cpu.cfs_period_us"),
        ]
        if all(word.isdecimal() for word in words):  # "max" or -1 mean no limit
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def available_memory_bytes() -> int:
    """Return how much memory this process and those around it can still take."""
    import psutil

    available = int(psutil.virtual_memory().available)
    for group in _groups("memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        if limit.isdecimal() and used.isdecimal():
            free = int(limit) - int(used) + _file_cache_bytes(group)
            available = max(0, min(available, free))
    return available


def available_swap_bytes() -> int:
    """Return how much of the machine's swap space this process and those around it can take."""
    import psutil

    available = int(psutil.swap_memory().free)
    for group in _groups("memory"):
        left = _swap_left_bytes(group)
        if left is not None:
            available = max(0, min(available, left))
    return available


def _swap_left_bytes(group: Path) -> int | None:
    """Return what a group has left of its limit of swap space; None: it has no limit."""
    limit, used = (_read(group / f"memory.swap.{name}") for name in ("max", "current"))
    if limit.isdecimal() and used.isdecimal():
        return int(limit) - int(used)
    # Version 1 limits memory and both together.
    names = ("memsw.limit", "limit", "memsw.usage", "usage")
    texts = [_read(group / f"memory.{name}_in_bytes") for name in names]
    if not all(text.isdecimal() for text in texts):
        return None
    both_limit, memory_limit, both_used, memory_used = map(int, texts)
    if both_limit >= _UNLIMITED_BYTES:
        return None
    return (both_limit - memory_limit) - (both_used - memory_used)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, each with its parents.

    In a container the name may be the one outside; the container's own group is then the mount.
    """
    for line in _read(MEMBERSHIP).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = MOUNT / controller if controllers else MOUNT  # version 1, or 2
        group = mount / name.lstrip("/")
        yield from (path for path in (group, *group.parents) if path.is_relative_to(mount))


def _file_cache_bytes(group: Path) -> int:
    """Return the bytes that count as used, but are given back when memory is short."""
    lines = (line.split() for line in _read(group / "memory.stat").splitlines())
    values = {words[0]: int(words[1]) for words in lines}
    return values.get("total_inactive_file", values.get("inactive_file", 0))


def _read(path: Path) -> str:
    """Return a file's text; an empty one if there is no such file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
