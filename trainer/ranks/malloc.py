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

USUAL_TRIM_THRESHOLD = 2 * LARGEST_MMAP_THRESHOLD
"""where glibc's own adjustment of it ends"""


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, instead of returning it to the kernel after every step.

    The kernel maps and zeroes what it hands out again page by page, for a CPU training hundreds of
    megabytes a step, unless something large has been freed before: docs/speed.md. Where the user
    has set the allocator by the environment, that stands.
    """
    if glibc := _glibc():
        glibc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        glibc.mallopt(TRIM_THRESHOLD, LARGEST_INT)


def give_freed_memory_back() -> None:
    """The end of `keep_freed_memory`, for programs that go on.

    What the thresholds were cannot be asked for: they are now as in a program that has run long.
    """
    if glibc := _glibc():
        glibc.mallopt(TRIM_THRESHOLD, USUAL_TRIM_THRESHOLD)
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The library, where there is it and the user has not set its allocator."""
    by_user = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if sys.platform != "linux" or by_user:
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") else None  # musl has none
