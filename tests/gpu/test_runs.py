"""Whole runs on a GPU, and the commands that take them."""

from __future__ import annotations

import gc
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.distributed.launch import launcher
from tests.faults.running import ranks_of, start
from tests.gpu.engines import digests
from tests.runs import Run, check_same, train_forked, train_here

SHORT = ["--train.epochs", "2", "--train.precision", "bf16", "--train.ema_decay", "0.9"]


@pytest.fixture(scope="module")
def run(device: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return Run(folder, train_here(folder, *SHORT))


def test_a_run_says_on_which_device_it_was(run: Run, device: str) -> None:
    assert run.exit_code == 0
    results = run.json("results.json")
    assert results["test"]["accuracy"] > 0.5
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    assert name in str(results)


def test_a_stopped_run_goes_on_to_the_same_bits(run: Run, tmp_path: Path) -> None:
    """A limit of time that is over at the first log point."""
    folder = tmp_path / "run"
    assert train_here(folder, *SHORT, "--train.max_seconds", "0.001") == 75
    assert Run(folder, 75).json("status.json")["state"] == "stopped"
    code = train_here(folder, *SHORT, "--train.max_seconds", "null")
    check_same(Run(folder, code), run)


def test_evaluate_finds_the_figures_of_the_results(run: Run, capsys: Capture) -> None:
    code, output, errors = run_command(capsys, "evaluate", run.folder)
    assert (code, errors) == (0, "")
    assert "the same as in results.json, to the last digit" in output


def test_a_picture_is_classified(run: Run, tmp_path: Path, capsys: Capture) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    code, output, _ = run_command(capsys, "predict", run.folder, tmp_path / "picture.png")
    assert code == 0
    assert "picture.png" in output


def test_an_export_gives_the_answers_of_the_network(run: Run, capsys: Capture) -> None:
    """The command compares them itself."""
    code, output, errors = run_command(capsys, "export", run.folder, "--format", "torchscript")
    assert code == 0, errors
    assert output


def test_a_batch_beyond_the_memory_is_divided_where_the_recipe_lets_it(
    gpu: None, tmp_path: Path, capsys: Capture
) -> None:
    """The process may have less than one piece takes, and more than eight take."""
    keys = {"train.batch_size": 1024, "model.args": {"widths": [128, 128, 128]}}
    whole_bytes, pieces_bytes = (peak_bytes({**keys, "train.microbatches": n}) for n in (1, 8))
    assert pieces_bytes < whole_bytes / 2
    forget_memory()  # what torch keeps for later would be used again
    all_bytes = torch.cuda.get_device_properties(0).total_memory
    limit_bytes = torch.cuda.memory_reserved() + 0.8 * whole_bytes
    torch.cuda.set_per_process_memory_fraction(limit_bytes / all_bytes)
    words = ["--train.batch_size", "1024", "--model.args", '{"widths": [128, 128, 128]}']
    words += ["--train.epochs", "1"]
    try:
        assert train_here(tmp_path / "whole", *words, "--train.microbatches", "1") != 0
        assert "train.batch_size" in capsys.readouterr().err
        forget_memory()
        assert train_here(tmp_path / "pieces", *words, "--train.microbatches", "null") == 0
        pinned = yaml.safe_load((tmp_path / "pieces" / "config.yaml").read_text())
        assert pinned["train"]["microbatches"] > 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def peak_bytes(keys: dict[str, Any]) -> int:
    forget_memory()
    before_bytes = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    digests(keys, steps=1)
    return torch.cuda.max_memory_allocated() - before_bytes


def forget_memory() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def test_a_dead_rank_is_named(gpu: None, tmp_path: Path) -> None:
    """Over NCCL where there are two GPUs, or else over gloo, by which they share one."""
    words = ["--train.epochs", "10000", "--timeout_seconds", "30"]
    env: dict[str, Any] = {"ACCELERATE_USE_CPU": "false"}
    launched = start(tmp_path / "run", *words, launcher=launcher(2), **env)
    try:
        ranks_of(launched)[1].kill()
        output, _ = launched.communicate(timeout=90)
    finally:
        launched.kill()
    assert launched.returncode == 1
    assert f"rank 1 on {platform.node()}" in output, output


def test_processes_that_share_a_gpu_have_the_bits_of_one(
    device: str, run: Run, tmp_path: Path
) -> None:
    env = {"ACCELERATE_USE_CPU": str(device == "cpu").lower()}
    check_same(train_forked(tmp_path / "run", 2, *SHORT, **env), run)
