"""What besides the configuration decides how numbers round, and so whether bits can be equal."""

from __future__ import annotations

import os
import platform
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

Environment = dict[str, str]

# Set by a user or an administrator, they choose among the kernels of oneDNN, MKL and CUDA.
KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)

NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def describe(device: torch.device) -> Environment:
    """The machine and the libraries, as far as they enter the rounding or the random streams."""
    on_gpu = device.type == "cuda"
    variables = (f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if name in os.environ)
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "processor": _processor(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "CUDA": str(torch.version.cuda) if on_gpu else "none",
        "cuDNN": str(torch.backends.cudnn.version()) if on_gpu else "none",  # type: ignore[no-untyped-call]
        "kernel variables": " ".join(variables) or "none",
    }


def differences(ours: Environment, theirs: Environment) -> list[str]:
    """What differs, each as `name: ours against theirs`."""
    return [
        f"{name} {ours[name]} against {theirs[name]}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]


def choose_kernels(deterministic: bool) -> set[str]:
    """Where torch has a kernel that adds in a fixed order, use it, or do not insist on it.

    On a CPU this changes neither the bits nor the speed of the project's own networks.

    Returns:
        The operations met from now on that have no such kernel; it grows as they are met.
    """
    # Unlike use_deterministic_algorithms, this does not import torch's compiler, half as slow to
    # import as torch. Where a plug-in compiles, the compiler reads the variable.
    torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    if deterministic:
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
    if "torch._inductor.config" in sys.modules:
        torch._inductor.config.deterministic = deterministic
    # Filling fresh memory only shows a program that reads it before writing, and takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    return _collect_warnings() if deterministic else set()


def _collect_warnings() -> set[str]:
    """Torch names these operations in warnings alone: keep the names, and show the others."""
    found: set[str] = set()
    show = warnings.showwarning

    def collect(message: Warning | str, *more: Any, **named: Any) -> None:
        match = NOT_DETERMINISTIC.search(str(message))
        if match:
            found.add(match[1])
        else:
            show(message, *more, **named)

    warnings.showwarning = collect
    warnings.filterwarnings("always", message=r".*does not have a deterministic implementation")
    return found


def _processor() -> str:
    """The processor's model: libraries choose blocks by its caches too."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return platform.processor()
    fields = dict(re.findall(r"^(cpu family|model name|model)\s*: (.*)$", text, re.MULTILINE))
    parts = [fields.get(key, "") for key in ("model name", "cpu family", "model")]
    return "/".join(part for part in parts if part) or platform.machine()
