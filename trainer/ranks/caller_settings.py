"""What a run sets in its process, and gives back where the process is not its own."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from trainer.base import numerics
from trainer.ranks.malloc import give_freed_memory_back


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """A run's surroundings: inside those of a fresh process, afterwards the caller's again.

    That holds after an error too. The process group stays until the process ends, since it can be
    made but once.
    """
    with contextlib.ExitStack() as stack:
        _keep_torch(stack)
        _keep_float32(stack)
        _keep_generators(stack)
        _keep_accelerate(stack)
        stack.callback(_set_environment, dict(os.environ))
        stack.callback(give_freed_memory_back)
        stack.enter_context(warnings.catch_warnings())  # the engine counts some of them
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _keep_torch(stack: contextlib.ExitStack) -> None:
    backends: Any = torch.backends
    stack.callback(torch.set_num_threads, torch.get_num_threads())
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    if torch.get_default_device().type != "cpu":
        stack.callback(torch.set_default_device, torch.get_default_device())
        torch.set_default_device(None)
    stack.callback(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
    _keep(stack, torch.utils.deterministic, "fill_uninitialized_memory")
    _keep(stack, backends.cudnn, "benchmark")
    _keep(stack, backends.cudnn, "deterministic", fresh=False)
    _keep(stack, backends.cudnn, "enabled", fresh=True)
    _keep(stack, backends.mkldnn, "enabled", fresh=True)
    # Torch has no word for whether it is on: the smallest of its numbers are 0 then.
    stack.callback(torch.set_flush_denormal, not bool(torch.tensor(1e-40, dtype=torch.float32) * 1))
    torch.set_flush_denormal(False)
    if "torch._inductor.config" in sys.modules:
        _keep(stack, torch._inductor.config, "deterministic")


def _keep(stack: contextlib.ExitStack, owner: Any, name: str, fresh: Any = None) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    if fresh is not None:
        setattr(owner, name, fresh)


def _keep_float32(stack: contextlib.ExitStack) -> None:
    """The run sets all of it; torch refuses to read the older switches where they contradict."""
    for switch in reversed(numerics.float32_switches()):
        _keep(stack, switch, "fp32_precision")
    with contextlib.suppress(RuntimeError):
        _keep(stack, torch.backends.cudnn, "allow_tf32")
    with contextlib.suppress(RuntimeError):
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())


def _keep_generators(stack: contextlib.ExitStack) -> None:
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the caller's
    stack.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for generator in torch.cuda.default_generators:
            stack.callback(generator.set_state, generator.get_state())
    elif torch.cuda.is_available():
        # Asking them would set up the GPU; a seed is all that they can have had.
        stack.callback(torch.cuda.manual_seed_all, torch.initial_seed())


def _keep_accelerate(stack: contextlib.ExitStack) -> None:
    """Its state is one for the whole process, and belongs to the caller's own `Accelerator`."""
    for kind in (PartialState, AcceleratorState, GradientState):
        state: dict[str, Any] = kind._shared_state
        stack.callback(_refill, state, dict(state))


def _refill(state: dict[str, Any], before: dict[str, Any]) -> None:
    state.clear()
    state.update(before)


def _set_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
