"""What besides the configuration decides how numbers round, and so whether bits can be equal."""

from __future__ import annotations

import torch

Environment = dict[str, str]


def describe(device: torch.device) -> Environment:
    """The machine and the libraries, as far as they enter the rounding."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda) if on_gpu else "none",
    }


def differences(ours: Environment, theirs: Environment) -> list[str]:
    """What differs, each as `name: ours against theirs`."""
    return [
        f"{name} {ours[name]} against {theirs[name]}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]


def choose_deterministic_kernels() -> None:
    """Where torch has a kernel that adds in a fixed order, use it; warn where it has none."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
