"""`python -m trainer doctor`: whether disk and memory are large enough."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from tests.commands.doctor.conftest import SHORT, Doctor
from tests.runs import words
from trainer.commands.doctor import diagnosis, rank_checks, resources, run_checks
from trainer.commands.doctor.finding import Findings
from trainer.config import command_line


@pytest.mark.parametrize(
    ("free", "on_error", "state"),
    [
        (10**5, "continue", "warning"),
        (10**5, "stop", "problem"),
        (10**4, "continue", "problem"),
        (10**7, "stop", "ok"),
    ],
)
def test_a_full_disk(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    free: int, on_error: str, state: str,
) -> None:  # fmt: skip
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))
    found = doctor(*words(tmp_path / "run", "--checkpoint.on_error", on_error))
    (finding,) = found["disk"]
    assert finding["state"] == state
    assert "4 checkpoints of" in finding["text"]
    assert doctor.code == (2 if state == "problem" else 0)


def test_too_little_memory(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = functools.partial(rank_checks.RankReport, available_bytes=1000)
    monkeypatch.setattr(diagnosis, "RankReport", report)
    doctor.fails("memory", "training takes about", *words(tmp_path / "run"))


def test_a_gpu_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    of_step = resources.ResourceNeeds(weights=10, checkpoint=20, training=100, evaluation=50)
    of_evaluation = dataclasses.replace(of_step, training=50, evaluation=100)
    tries = itertools.product((of_step, of_evaluation), ((110, "ok"), (109, "problem")))
    for needs, (free, state) in tries:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 200))
        assert resources.check_gpu_memory(needs, torch.device("cuda")).state == state


def needs_of(folder: Path, *more: str) -> resources.ResourceNeeds:
    """Return the estimate for a run."""
    run = run_checks.load(command_line.parse(words(folder, *more)), Findings())
    assert run is not None
    return run.needs


def test_activations_grow_with_the_micro_batch(tmp_path: Path) -> None:
    """Each sample keeps some tens of maps of 8 x 8 numbers: quicknet on digits."""
    small, middle, large = (
        needs_of(tmp_path, "--train.batch_size", size).training for size in ("60", "120", "180")
    )
    assert large - middle == middle - small > 15 * 16 * 8 * 8 * 4


def test_the_size_of_a_checkpoint_is_that_of_a_real_one(run: Path, tmp_path: Path) -> None:
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    real_bytes = sum(path.stat().st_size for path in checkpoint.iterdir())
    assert needs_of(tmp_path, *SHORT).checkpoint == pytest.approx(real_bytes, rel=0.1)
