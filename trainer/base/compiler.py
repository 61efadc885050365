"""Choose and describe the kernels that torch.compile makes, where `train.compile` asks for it.

What is compiled must be a function of the configuration: the same for a shape of images whatever
shapes have come before, and never left out in silence.
"""

from __future__ import annotations

import functools
import importlib
import subprocess
from typing import Any, Literal

import torch

from trainer.base.errors import UserError

Compile = Literal["none", "default", "max-autotune"]

KEY = "train.compile"

_MOST_SHAPES = 1_000_000

DYNAMO_SETTINGS = {
    # Torch would go on without compiled kernels after eight shapes.
    "recompile_limit": _MOST_SHAPES,
    "accumulated_recompile_limit": _MOST_SHAPES,
    "fail_on_recompile_limit_hit": True,
}
FUNCTORCH_SETTINGS = {
    # `replay` computes a backward pass again for each sample of a micro-batch.
    "donated_buffer": False,
    # Where the backward pass cannot be compiled, that shows in the forward pass.
    "force_non_lazy_backward_lowering": True,
}


def options(mode: Compile, device: torch.device) -> dict[str, Any]:
    """Return the settings of inductor, torch's compiler, for `train.compile`."""
    found: dict[str, Any] = {
        # Dropout draws what it draws without a compiler, from the run's streams.
        "fallback_random": True,
        # In bf16 and fp16 a fused kernel would go on with numbers that are not rounded yet. The
        # backward pass of a maximum looks for it among rounded ones: if none is equal, it divides
        # by zero.
        "emulate_precision_casts": True,
    }
    if device.type == "cpu":
        # For the same reason: a kernel of the backward pass that computes an activation again may
        # have other functions of a vector's numbers than of a single one.
        from trainer.base.kept_activations import KEEP_ACTIVATIONS

        found["custom_partitioner_fn"] = KEEP_ACTIVATIONS
    if mode == "max-autotune":
        # Without the graphs of CUDA, which would put a step's results where the next one writes.
        found |= torch._inductor.list_mode_options("max-autotune-no-cudagraphs")
    return found


def prepare(device: torch.device) -> None:
    """Set what torch takes from no argument: every shape is compiled, and by itself.

    Imports the compiler, which takes seconds.
    """
    import torch._dynamo
    import torch._functorch.config
    import torch._inductor.config

    for name, value in DYNAMO_SETTINGS.items():
        setattr(torch._dynamo.config, name, value)
    for name, value in FUNCTORCH_SETTINGS.items():
        setattr(torch._functorch.config, name, value)
    if device.type == "cpu":
        # In this process, as its pool of processes would outlive a killed run.
        torch._inductor.config.compile_threads = 1


def describe(mode: Compile, device: torch.device) -> str:
    """Return what made the compiled kernels, and for which instructions.

    Raises:
        UserError: there is no compiler on this machine.
    """
    prepare(device)
    if device.type == "cuda":
        return f"{mode}, inductor, Triton {_triton_version()}"
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    return f"{mode}, inductor, {_cpp_compiler()}, {pick_vec_isa() or 'no vector instructions'}"


def errors() -> tuple[type[Exception], ...]:
    """Return what torch raises where it cannot compile."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return (TorchDynamoException, FailOnRecompileLimitHit, CppCompileError, InvalidCxxCompiler)


@functools.cache
def _cpp_compiler() -> str:
    """Return the first line that the C++ compiler of torch says of itself."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        name = get_cpp_compiler()
        asked = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        raise UserError(
            f"{KEY}: compiling for the CPU needs a C++ compiler, and this machine has none that "
            f"works ({_gist(error)}); install g++, name one in the variable CXX, or choose "
            f"{KEY}: none"
        ) from error
    return asked.stdout.partition("\n")[0].strip()


def _triton_version() -> str:
    try:
        triton = importlib.import_module("triton")  # which a CPU's torch lacks, for mypy too
    except ImportError as error:
        raise UserError(
            f"{KEY}: compiling for a GPU needs Triton, which is not installed with this torch; "
            f"install it, or choose {KEY}: none"
        ) from error
    return str(triton.__version__)


def refused(what: str, error: Exception) -> UserError:
    """Return the message that something cannot be compiled."""
    return UserError(f"{KEY}: {what} cannot be compiled ({_gist(error)}); choose {KEY}: none")


def _gist(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    of_compiler = [line for line in lines if " error: " in line]
    return next(iter([*of_compiler, *lines, type(error).__name__]))[:300]
