"""Control and describe how numbers round, apart from the configuration: kernels and precision."""

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

KERNEL_VARIABLES = re.compile(
    "ATEN_CPU_CAPABILITY|CUBLAS_WORKSPACE_CONFIG|(DNNL|ONEDNN)_(MAX_CPU_ISA|CPU_ISA_HINTS"
    "|DEFAULT_FPMATH_MODE)|MKL_(CBWR|DISABLE_FAST_MM|DOMAIN_NUM_THREADS|DYNAMIC"
    "|ENABLE_INSTRUCTIONS|NUM_STRIPES|SERVICE_FORCE_INTEL)|OMP_(DYNAMIC|THREAD_LIMIT)|MIOPEN_.+"
    "|NPY_(DIS|EN)ABLE_CPU_FEATURES|OPENBLAS_CORETYPE|NVIDIA_TF32_OVERRIDE"
    "|PYTORCH_(JIT|JIT_DISABLE|MIOPEN_.+|TENSOREXPR.*)"
    "|TORCH_(ALLOW_TF32_CUBLAS_OVERRIDE|BLAS_PREFER_.+|CUDNN_USE_HEURISTIC_MODE_B"
    "|CUDNN_V8_API_DISABLED|LINALG_PREFER_.+|LINEAR_FLATTEN_3D|MKLDNN_.+|ROCM_.+)"
    "|(TORCH_COMPILE|TORCHDYNAMO|TORCHINDUCTOR)_(?!.*(CACHE|DEBUG|LOG|REPRO|THREADS|VERBOSE)).+"
)
"""environment variables that choose among the kernels of torch and of the libraries below it; the
last line is for nets that compile themselves"""

OUR_VARIABLES = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TORCHINDUCTOR_DETERMINISTIC": "1"}
"""those that Lockstep sets, the same in every run"""

NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def describe(device: torch.device, evaluation_batch_size: int | None) -> Environment:
    """Describe what affects rounding or the random streams and may differ after a resume.

    Args:
        evaluation_batch_size: `train.evaluation_batch_size`, which the machine may limit.
    """
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "processor": _processor(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "CUDA": str(torch.version.cuda) if on_gpu else "none",
        "cuDNN": str(torch.backends.cudnn.version()) if on_gpu else "none",  # type: ignore[no-untyped-call]
        "kernel variables": " ".join(_kernel_variables()) or "none",
        "float32": _float32(device),
        "train.evaluation_batch_size": str(evaluation_batch_size or "null"),
    }


def differences(ours: Environment, theirs: Environment) -> list[str]:
    """Return what differs, each as `name: ours against theirs`."""
    return [
        f"{name} {ours[name]} against {theirs[name]}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]


def _kernel_variables() -> list[str]:
    """Return those that are set, as `NAME=value`, in the order of their names."""
    return [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if KERNEL_VARIABLES.fullmatch(name) and OUR_VARIABLES.get(name) != value
    ]


def _float32(device: torch.device) -> str:
    """Return the precision in which convolutions and matrix products of float32 are computed."""
    backends: Any = torch.backends
    if device.type == "cuda":
        convolutions, products = backends.cudnn.conv, backends.cuda.matmul
    else:
        convolutions, products = backends.mkldnn.conv, backends.mkldnn.matmul
    return f"convolutions {convolutions.fp32_precision}, products {products.fp32_precision}"


def has_tf32(device: torch.device) -> bool:
    """Return whether a device can compute in TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def choose_precision(precision: str) -> None:
    """Make torch compute float32 in float32, or in TF32 if asked to, whatever was set before.

    Torch's own default is TF32 for convolutions on a GPU, and users' code may have set anything.
    """
    tf32 = precision == "tf32"
    backends: Any = torch.backends
    # Its older switches too, as torch refuses to read them where they say something else.
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    backends.cudnn.allow_tf32 = tf32
    for switch in float32_switches():
        switch.fp32_precision = "tf32" if tf32 else "ieee"


def float32_switches() -> tuple[Any, ...]:
    """Return the parts of torch that have `fp32_precision`: in general, and for each operation."""
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    return (
        *(backends, cudnn, cudnn.conv, cudnn.rnn, backends.cuda.matmul),
        *(mkldnn.conv, mkldnn.rnn, mkldnn.matmul),
    )


def choose_kernels(deterministic: bool) -> set[str]:
    """Use torch's kernels that add in a fixed order, where it has them, or leave torch the choice.

    On a CPU this changes neither the bits nor the speed of the project's own networks.

    Returns:
        The operations without such a kernel; the set grows as they are met.
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
    """Collect the operations that torch names in warnings only, and show all other warnings."""
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
    """Return the processor's model: libraries choose blocks by its caches too."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return platform.processor()
    fields = dict(re.findall(r"^(cpu family|model name|model)\s*: (.*)$", text, re.MULTILINE))
    parts = [fields.get(key, "") for key in ("model name", "cpu family", "model")]
    return "/".join(part for part in parts if part) or platform.machine()
