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

from trainer.base import kernels

Environment = dict[str, str]

ANY_PROCESSOR = "any x86-64 with AVX2 (portable kernels)"

NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def describe(
    device: torch.device, evaluation_batch_size: int | None, *, is_portable: bool = False
) -> Environment:
    """Describe what affects rounding or the random streams and may differ after a resume.

    Args:
        evaluation_batch_size: `train.evaluation_batch_size`, which the machine may limit.
        is_portable: whether the run has portable kernels, so that the processor does not matter.
    """
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "processor": ANY_PROCESSOR if is_portable else _processor(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "CUDA": str(torch.version.cuda) if on_gpu else "none",
        "cuDNN": str(torch.backends.cudnn.version()) if on_gpu else "none",  # type: ignore[no-untyped-call]
        "kernel variables": " ".join(kernels.kernel_variables()) or "none",
        "float32": _float32(device),
        "train.evaluation_batch_size": str(evaluation_batch_size or "null"),
    }


def is_portable(environment: Environment) -> bool:
    """Return whether an environment is one of portable kernels."""
    return environment.get("processor") == ANY_PROCESSOR


def differences(ours: Environment, theirs: Environment) -> list[str]:
    """Return what differs, each as `name: ours against theirs`."""
    return [
        f"{name} {ours[name]} against {theirs[name]}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
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
