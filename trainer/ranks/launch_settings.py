"""Refuse variables of the environment that would change the arithmetic of a run.

Only the configuration decides that. `accelerate launch` passes its flags on as variables, and also
the answers once given to `accelerate config`; Accelerate follows some of them silently.
"""

from __future__ import annotations

import os

from trainer.base.errors import UserError
from trainer.config.schema import RunConfig

_OFF = ("", "0", "false", "no", "none", "off")
_OWN_WAY = "Lockstep distributes the work in its own way"

# Those of Accelerate: the flag that sets each, its values besides _OFF, and why not others.
_BY_ACCELERATE = {
    "ACCELERATE_USE_DEEPSPEED": ("--use_deepspeed", "", _OWN_WAY),
    "ACCELERATE_USE_FSDP": ("--use_fsdp", "", _OWN_WAY),
    "ACCELERATE_USE_MEGATRON_LM": ("--use_megatron_lm", "", _OWN_WAY),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("--use_parallelism_config", "", _OWN_WAY),
    "ACCELERATE_USE_SAGEMAKER": ("Amazon SageMaker", "", _OWN_WAY),
    "ACCELERATE_DYNAMO_BACKEND": ("--dynamo_backend", "", "a compiled step has other bits"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        "--gradient_accumulation_steps",
        "1",
        "a run goes by train.accumulation and train.microbatches",
    ),
    # "no" is what the launcher sets by default.
    "ACCELERATE_MIXED_PRECISION": (
        "--mixed_precision",
        "{precision}",
        "a run goes by train.precision, which is {precision}",
    ),
}

FPMATH_VARIABLES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
"""of oneDNN: whether float32 on a CPU may be computed in lower precision"""

TF32_VARIABLES = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
"""whether float32 on a GPU is computed in TF32, whatever a program asks for"""


def check_settings(config: RunConfig) -> None:
    """Make sure that no variable contradicts the arithmetic of the configuration.

    Raises:
        UserError: names the variable, the flag of `accelerate launch` that sets it, and what to do.
    """
    precision = config.train.precision
    for name, (flag, allowed, why) in _BY_ACCELERATE.items():
        if _value(name) not in (*_OFF, allowed.format(precision=precision)):
            raise UserError(
                f"{name}: is {os.environ[name]}, set by {flag} of accelerate launch, a default of "
                f"accelerate config or this shell, but {why.format(precision=precision)}; leave it "
                f"out, as the files in launch/ do"
            )
    for name in FPMATH_VARIABLES:
        if _value(name) not in ("", "strict"):
            raise UserError(
                f"{name}: is {os.environ[name]}, which computes float32 in lower precision; "
                f"unset it, a run goes by train.precision, which is {precision}"
            )
    for name in TF32_VARIABLES:
        if name in os.environ and (_value(name) not in _OFF) != (precision == "tf32"):
            raise UserError(
                f"{name}: is {os.environ[name]}, against train.precision, which is {precision}; "
                f"unset it, and choose TF32 by train.precision: tf32"
            )


def _value(name: str) -> str:
    return os.environ.get(name, "").strip().lower()
