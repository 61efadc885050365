"""The C library's allocator, set for a program that needs the same memory in every step."""

from __future__ import annotations

import ctypes
import os
import sys

# Numbers of parameters of mallopt(3), and the largest value that the first may have.
TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, instead of returning it to the kernel after every step.

    The kernel maps and zeroes what it hands out again page by page, for a CPU training hundreds of
    megabytes a step. Where the user has set the allocator by the environment, that stands.
    """
    by_user = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if sys.platform != "linux" or by_user:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(TRIM_THRESHOLD, LARGEST_INT)
