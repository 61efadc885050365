"""Refuse variables of the environment that would change the arithmetic of a run.

Only the configuration decides that. `accelerate launch` passes its flags on as variables, and also
the answers once given to `accelerate config`; Accelerate follows some of them silently.
"""

from __future__ import annotations

import os

from trainer.base.errors import UserError
from trainer.config.schema import RunConfig

SWITCHES = {
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_FSDP": "--use_fsdp",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
    "ACCELERATE_USE_SAGEMAKER": "Amazon SageMaker",
}
"""variables of Accelerate that replace its whole way of training, and the flags that set them"""

FPMATH_VARIABLES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
"""of oneDNN: whether float32 on a CPU may be computed in lower precision"""

TF32_VARIABLES = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
"""whether float32 on a GPU is computed in TF32, whatever a program asks for"""

OFF = ("", "0", "false", "no", "none", "off")


def check_settings(config: RunConfig) -> None:
    """Make sure that no variable contradicts the arithmetic of the configuration.

    Raises:
        UserError: names the variable, the flag of `accelerate launch` that sets it, and what to do.
    """
    for name, flag in SWITCHES.items():
        if _value(name) not in OFF:
            raise _by_accelerate(name, flag, "Lockstep distributes the work in its own way")
    if _value("ACCELERATE_DYNAMO_BACKEND") not in OFF:
        raise _by_accelerate(
            "ACCELERATE_DYNAMO_BACKEND", "--dynamo_backend", "a compiled step has other bits"
        )
    if _value("ACCELERATE_GRADIENT_ACCUMULATION_STEPS") not in (*OFF, "1"):
        raise _by_accelerate(
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
            "--gradient_accumulation_steps",
            "a run goes by train.accumulation and train.microbatches",
        )
    precision = config.train.precision
    # "no" is what the launcher sets if nobody has asked for anything.
    if _value("ACCELERATE_MIXED_PRECISION") not in (*OFF, precision):
        raise _by_accelerate(
            "ACCELERATE_MIXED_PRECISION",
            "--mixed_precision",
            f"a run goes by train.precision, which is {precision}",
        )
    _check_float32(precision)


def _check_float32(precision: str) -> None:
    for name in FPMATH_VARIABLES:
        if _value(name) not in ("", "strict"):
            raise UserError(
                f"{name}: is {os.environ[name]}, which computes float32 in lower precision; "
                f"unset it, a run goes by train.precision, which is {precision}"
            )
    for name in TF32_VARIABLES:
        if name in os.environ and (_value(name) not in OFF) != (precision == "tf32"):
            raise UserError(
                f"{name}: is {os.environ[name]}, against train.precision, which is {precision}; "
                f"unset it, and choose TF32 by train.precision: tf32"
            )


def _by_accelerate(name: str, flag: str, why: str) -> UserError:
    return UserError(
        f"{name}: is {os.environ[name]}, set by {flag} of accelerate launch, a default of "
        f"accelerate config or this shell, but {why}; leave it out, as the files in launch/ do"
    )


def _value(name: str) -> str:
    return os.environ.get(name, "").strip().lower()
