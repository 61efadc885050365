"""Settings of a launcher or the environment that change the arithmetic are refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import environment, own_words
from tests.runs import Run, command, train_here
from trainer.config.schema import RunConfig, replace
from trainer.ranks import launch_settings

SHORT = ["--train.epochs", "1", "--data.train_size", "200"]
LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]

DEFAULT_CONFIG = """
compute_environment: LOCAL_MACHINE
distributed_type: "NO"
mixed_precision: "{precision}"
num_machines: 1
num_processes: 1
use_cpu: true
dynamo_config:
  dynamo_backend: "{backend}"
"""


def launched(folder: Path, *flags: str, **answers: str) -> Run:
    """Do a run by `accelerate launch`, with these answers once given to `accelerate config`."""
    home = folder / "home"
    (home / "accelerate").mkdir(parents=True)
    answers = {"precision": "no", "backend": "NO"} | answers
    (home / "accelerate" / "default_config.yaml").write_text(DEFAULT_CONFIG.format(**answers))
    words = command(folder / "run", *SHORT, launcher=[*LAUNCH, *flags])
    variables = environment(HF_HOME=str(home))
    finished = subprocess.run(
        words, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    return Run(folder / "run", finished.returncode, finished.stdout, finished.stderr)


@pytest.mark.parametrize(
    ("flags", "answers", "name"),
    [
        (["--dynamo_backend", "inductor"], {}, "ACCELERATE_DYNAMO_BACKEND: is INDUCTOR"),
        ([], {"backend": "EAGER"}, "ACCELERATE_DYNAMO_BACKEND: is EAGER"),
    ],
)
def test_a_flag_and_a_default_of_accelerate_are_refused(
    tmp_path: Path, flags: list[str], answers: dict[str, str], name: str
) -> None:
    run = launched(tmp_path, *flags, **answers)
    assert run.exit_code != 0
    assert own_words(run.errors).count(name) == 1, run.errors
    assert not run.folder.exists()


def test_plain_defaults_of_accelerate_do_the_run_of_python(tmp_path: Path) -> None:
    assert train_here(tmp_path / "plain", *SHORT) == 0
    run = launched(tmp_path)
    assert run.exit_code == 0, run.errors
    assert run.digest == Run(tmp_path / "plain", 0).digest


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "ACCELERATE_USE_FSDP: is true, set by --use_fsdp"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "by --use_deepspeed of accelerate launch"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "by --use_megatron_lm of accelerate launch"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "by --use_parallelism_config"),
        ({"ACCELERATE_USE_SAGEMAKER": "true"}, "ACCELERATE_USE_SAGEMAKER: is true"),
        ({"ACCELERATE_DYNAMO_BACKEND": "EAGER"}, "a compiled step has other bits"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "a run goes by train.accumulation"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "train.precision, which is fp32"),
        ({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, "which computes float32 in lower precision"),
        ({"DNNL_DEFAULT_FPMATH_MODE": "any"}, "DNNL_DEFAULT_FPMATH_MODE: is any"),
        ({"NVIDIA_TF32_OVERRIDE": "1"}, "choose TF32 by train.precision: tf32"),
        ({"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE: is 1"),
    ],
)
def test_a_variable_that_changes_the_arithmetic_is_refused_by_name(
    variables: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert train_here(tmp_path / "run", *SHORT) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.startswith(next(iter(variables)))
    assert not (tmp_path / "run").exists()


def test_settings_that_change_nothing_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = {
        "ACCELERATE_MIXED_PRECISION": "bf16",  # as the run has it
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_DYNAMO_MODE": "default",
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "NVIDIA_TF32_OVERRIDE": "0",
        "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    }
    for name, value in harmless.items():
        monkeypatch.setenv(name, value)
    launch_settings.check_settings(replace(RunConfig(), {"train.precision": "bf16"}))


def test_tf32_needs_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_here(tmp_path / "run", *SHORT, "--train.precision", "tf32") == 2
    assert "train.precision: tf32 needs a GPU" in capsys.readouterr().err
