"""Choose the kernels of torch and of the libraries below it, before torch is imported.

Torch, oneDNN and MKL look at the processor and take kernels that were written for it, each with
its own order of additions. Their variables limit them to those that every x86-64 processor with
AVX2 computes alike; they are read once, when the libraries are loaded or first used.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from pathlib import Path
from typing import Literal

from trainer.base.errors import UserError

Kernels = Literal["native", "portable"]

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

PORTABLE_VARIABLES = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
"""of train.kernels: portable"""

_NEEDED_FEATURES = ("avx2", "fma")

_set_in_time = False
"""whether this process, or the one that it was forked from, set them before it imported torch"""


def choose(kernels: Kernels) -> None:
    """Set what `train.kernels` needs; called by whatever computes, before it imports torch.

    A process that has chosen portable kernels keeps them, also for native runs that follow.

    Raises:
        UserError: portable kernels, but the processor has not what they need, torch was imported
            with other ones, or a variable asks for other ones.
    """
    global _set_in_time  # noqa: PLW0603 - what is chosen is chosen for the whole process
    if kernels == "native":
        return
    _check_processor()
    _check_variables()
    if "torch" not in sys.modules:
        os.environ.update(PORTABLE_VARIABLES)
        _set_in_time = True
    elif not are_portable():
        words = " ".join(f"{name}={value}" for name, value in PORTABLE_VARIABLES.items())
        raise UserError(
            "train.kernels: portable has to be chosen before torch is imported, and this process "
            "has imported torch with native kernels; start Python again and train before anything "
            f"imports torch, or start it with {words}, or choose train.kernels: native"
        )


def are_portable() -> bool:
    """Return whether this process computes with portable kernels; that never changes once it does.

    They were chosen here, or the process was started with their variables.
    """
    return _set_in_time or _started_with_them()


def kernel_variables() -> list[str]:
    """Return the variables of KERNEL_VARIABLES that are set, `NAME=value`, sorted by their names.

    Those that Lockstep sets in every run are left out.
    """
    return [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if KERNEL_VARIABLES.fullmatch(name) and OUR_VARIABLES.get(name) != value
    ]


def missing_features() -> list[str]:
    """Return what this machine lacks of what portable kernels need; empty: it has all."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return [f"x86-64 Linux (this is {platform.system()} on {platform.machine()})"]
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    flags = found[1].split() if found else []
    return [name.upper() for name in _NEEDED_FEATURES if name not in flags]


def _check_processor() -> None:
    if missing := missing_features():
        raise UserError(
            f"train.kernels: portable needs x86-64 Linux and a processor with AVX2 and FMA; missing"
            f" here: {', '.join(missing)}; add --train.kernels native to the command, which gives "
            f"the bits of this kind of processor"
        )


def _check_variables() -> None:
    for word in kernel_variables():
        name, _, value = word.partition("=")
        if PORTABLE_VARIABLES.get(name) != value:
            raise UserError(
                f"{name}: is {value}, which chooses other kernels than train.kernels: portable; "
                f"unset it"
            )


@functools.cache
def _started_with_them() -> bool:
    try:
        started = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:  # not Linux
        return False
    return all(f"{name}={value}".encode() in started for name, value in PORTABLE_VARIABLES.items())
