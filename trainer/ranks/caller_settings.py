"""What a run changes in its process, and restores for a program that goes on after it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.base import compiler, numerics

# Numbers of parameters of mallopt(3), the largest value of the second one, the third one's usual.
TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
MMAP_MAX = -4
LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
USUAL_MMAP_MAX = 65_536
LARGEST_INT = 2**31 - 1

MADV_HUGEPAGE = 14
"""of madvise(2)"""
HUGE_PAGE_BYTES = 2 * 1024 * 1024
HEAP_BYTES = 2**30
"""of the heap that huge pages are asked for: less than what free memory is trimmed to"""

USUAL_TRIM_THRESHOLD = 2 * LARGEST_MMAP_THRESHOLD
"""where glibc's own adjustment of it ends"""


@contextlib.contextmanager
def preserve_caller_settings() -> Iterator[None]:
    """Give a run the settings of a fresh process, and restore the caller's afterwards.

    They are restored after an error too. The process group stays until the process ends, since it
    can be created only once.
    """
    # Here, so that a process without Accelerate can import the functions of the allocator below.
    from accelerate.state import AcceleratorState, GradientState, PartialState

    with contextlib.ExitStack() as stack:
        _preserve_torch(stack)
        _preserve_float32(stack)
        _preserve_generators(stack)
        # The caller's own `Accelerator` shares its state with ours.
        shared = (kind._shared_state for kind in (PartialState, AcceleratorState, GradientState))
        for state in (*shared, os.environ):
            stack.callback(_restore, state, dict(state))
        stack.callback(return_freed_memory)
        stack.enter_context(warnings.catch_warnings())  # the engine counts some of them
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _preserve_torch(stack: contextlib.ExitStack) -> None:
    backends: Any = torch.backends
    stack.callback(torch.set_num_threads, torch.get_num_threads())
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    if torch.get_default_device().type != "cpu":
        stack.callback(torch.set_default_device, torch.get_default_device())
        torch.set_default_device(None)
    stack.callback(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
    _preserve(stack, torch.utils.deterministic, "fill_uninitialized_memory")
    _preserve(stack, backends.cudnn, "benchmark")
    _preserve(stack, backends.cudnn, "deterministic", fresh=False)
    _preserve(stack, backends.cudnn, "enabled", fresh=True)
    _preserve(stack, backends.mkldnn, "enabled", fresh=True)
    # Torch cannot be asked whether this is on: if it is, the smallest numbers are 0.
    stack.callback(torch.set_flush_denormal, not bool(torch.tensor(1e-40, dtype=torch.float32) * 1))
    torch.set_flush_denormal(False)
    if "torch._inductor.config" in sys.modules:
        _preserve(stack, torch._inductor.config, "deterministic")
        _preserve(stack, torch._inductor.config, "compile_threads")
    if "torch._dynamo.config" in sys.modules:
        for name in compiler.DYNAMO_SETTINGS:
            _preserve(stack, torch._dynamo.config, name)
    if "torch._functorch.config" in sys.modules:
        for name in compiler.FUNCTORCH_SETTINGS:
            _preserve(stack, torch._functorch.config, name)


def _preserve(stack: contextlib.ExitStack, owner: Any, name: str, fresh: Any = None) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    if fresh is not None:
        setattr(owner, name, fresh)


def _preserve_float32(stack: contextlib.ExitStack) -> None:
    """Preserve how float32 is computed; torch refuses to read contradicting older switches."""
    for switch in reversed(numerics.float32_switches()):
        _preserve(stack, switch, "fp32_precision")
    with contextlib.suppress(RuntimeError):
        _preserve(stack, torch.backends.cudnn, "allow_tf32")
    with contextlib.suppress(RuntimeError):
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())


def _preserve_generators(stack: contextlib.ExitStack) -> None:
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the caller's
    stack.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for generator in torch.cuda.default_generators:
            stack.callback(generator.set_state, generator.get_state())
    elif torch.cuda.is_available():
        # Reading their state would set up the GPU; until then they can only have a seed.
        stack.callback(torch.cuda.manual_seed_all, torch.initial_seed())


def _restore(state: MutableMapping[str, Any], before: dict[str, Any]) -> None:
    for name in state.keys() - before.keys():
        del state[name]
    state.update(before)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, instead of returning it to the kernel after every step.

    The kernel maps and zeroes memory again page by page, for a CPU training hundreds of megabytes
    a step, unless something large has been freed before: docs/speed.md. A user's own setting of
    the allocator, in the environment, stays.
    """
    if glibc := _glibc():
        glibc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        glibc.mallopt(TRIM_THRESHOLD, LARGEST_INT)


def use_huge_pages() -> None:
    """Ask Linux for huge pages for glibc's heap, which grows for that without being touched.

    A step goes through more memory than a processor's tables of small pages reach. Call it after
    `keep_freed_memory`, by which the heap stays; a user's own setting of the allocator stays too.
    Where memory counts before it is touched, nothing is asked for.
    """
    glibc = _glibc()
    if glibc is None or _counts_untouched():
        return
    for function in (glibc.sbrk, glibc.malloc):
        function.restype = ctypes.c_void_p
    glibc.malloc.argtypes = (ctypes.c_size_t,)
    glibc.free.argtypes = (ctypes.c_void_p,)
    glibc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    begin = glibc.sbrk(0)
    glibc.mallopt(MMAP_MAX, 0)  # the heap, not a mapping beside it
    block = glibc.malloc(HEAP_BYTES)
    end = glibc.sbrk(0)
    first = -(-begin // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    if end > first:
        glibc.madvise(first, end - first, MADV_HUGEPAGE)
    glibc.free(block)
    glibc.mallopt(MMAP_MAX, USUAL_MMAP_MAX)


def _counts_untouched() -> bool:
    """Tell whether memory counts that nothing has touched: by this process's limits, or Linux's."""
    import resource  # not on Windows

    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    if any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits):
        return True
    strict = Path("/proc/sys/vm/overcommit_memory")
    return strict.exists() and strict.read_text().strip() == "2"


def return_freed_memory() -> None:
    """Undo `keep_freed_memory`, for programs that go on after a run.

    The former thresholds cannot be read, so they become those of a program that has run for long.
    """
    if glibc := _glibc():
        glibc.mallopt(TRIM_THRESHOLD, USUAL_TRIM_THRESHOLD)
    trim_freed_memory()


def trim_freed_memory() -> None:
    """Return to the kernel what is free now; what is freed later is kept as before."""
    if glibc := _glibc():
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc and the user has not set its allocator."""
    by_user = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if sys.platform != "linux" or by_user:
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") else None  # musl has none
