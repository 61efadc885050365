"""What a run does before its first step: a user who waits for seconds looks for a faster trainer.

The seconds themselves are measured by benchmarks/startup.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.data.idx_files import write_idx_folder
from tests.distributed.launch import environment
from tests.runs import train_apart, train_here

SLOW = {"matplotlib", "scipy", "sklearn", "sympy", "torch._dynamo", "torch._inductor", "wandb"}
SLOW |= {"torch.distributed.tensor"}
"""each as slow to import as a third of torch or more"""


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_nothing_slow_is_imported_before_the_first_step(tmp_path: Path, optimizer: str) -> None:
    write_idx_folder(tmp_path / "data", packed=True)
    run = train_apart(
        tmp_path / "run", "--data.name", "idx", "--data.root", str(tmp_path / "data"),
        "--optimizer.name", optimizer, "--train.max_seconds", "0.001", "--train.clip_norm", "1",
        launcher=[sys.executable, "-X", "importtime"], report=True,
    )  # fmt: skip
    assert run.exit_code == 75, run.errors
    assert run.json("status.json")["step"] >= 1
    imported = set(re.findall(r"\| +([\w.]+)$", run.errors, re.MULTILINE))
    assert {"torch", "accelerate"} <= imported
    assert sorted((SLOW | {"boto3"}) & imported) == []


def test_a_module_that_is_left_out_can_be_imported_afterwards() -> None:
    """By a plug-in, or by what reads a data set from a bucket."""
    code = """
import sys
from trainer.base.unused_imports import without_boto3

with without_boto3():
    import accelerate
assert "boto3" not in sys.modules
import boto3
with without_boto3():
    import boto3 as again
assert again is boto3
"""
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def test_nothing_slow_is_imported_to_classify_a_picture(tmp_path: Path) -> None:
    assert train_here(tmp_path / "run", "--train.epochs", "1") == 0
    Image.new("L", (8, 8), 90).save(tmp_path / "one.png")
    words = ["-X", "importtime", "-m", "trainer", "predict", tmp_path / "run", tmp_path / "one.png"]
    found = subprocess.run(
        [sys.executable, *words], env=environment(), capture_output=True, text=True, check=True
    )
    assert "one.png" in found.stdout
    imported = set(re.findall(r"\| +([\w.]+)$", found.stderr, re.MULTILINE))
    assert "torch" in imported
    assert sorted(SLOW & imported) == []
