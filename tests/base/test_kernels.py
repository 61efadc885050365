"""Portable kernels: chosen in time, in every process and command, and refused where impossible."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
import yaml

from tests.conftest import REPOSITORY
from tests.distributed.launch import environment, launcher
from tests.golden import running
from tests.runs import DIGITS, Run, check_same, train_apart, train_here
from trainer import api
from trainer.base import kernels, numerics, portable_math
from trainer.base.errors import UserError
from trainer.config import command_line

PORTABLE = ["--train.kernels", "portable", "--train.epochs", "1", "--data.augment", "rotate_crop"]

RECIPE = REPOSITORY / "configs" / "digits.yaml"

OTHER_LIBRARY = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2"}
"""makes glibc take its functions for older processors, which round differently"""


def command(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        cwd=REPOSITORY,
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    done = train_apart(tmp_path_factory.mktemp("portable") / "run", *PORTABLE)
    assert done.exit_code == 0, done.errors
    return done


def test_it_is_recorded(run: Run) -> None:
    results = run.json("results.json")
    assert results["train"]["kernels"] == "portable"
    assert results["equality"] == {"in_bits": True, "because": []}
    found = results["environment"]
    assert found["cpu capability"] == "AVX2"
    assert found["processor"] == numerics.ANY_PROCESSOR
    for name, value in kernels.PORTABLE_VARIABLES.items():
        assert f"{name}={value}" in found["kernel variables"].split()
    assert "deterministic, portable" in run.output


def test_another_launcher_and_c_library_give_the_same(run: Run, tmp_path: Path) -> None:
    there = train_apart(tmp_path / "run", *PORTABLE, launcher=launcher(2), **OTHER_LIBRARY)
    check_same(there, run)


def test_commands_compute_with_the_kernels_of_the_run(run: Run, tmp_path: Path) -> None:
    verified = command("verify", str(run.folder / "receipt.json"), "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["in_bits"]
    evaluated = command("evaluate", str(run.folder), "--json")
    assert json.loads(evaluated.stdout)["equals_results_json"], evaluated.stderr
    diagnosed = command("doctor", "--config", str(run.folder / "config.yaml"))
    words = " ".join(diagnosed.stdout.split())
    assert "portable: the same bits on every x86-64 Linux machine" in words
    assert "ends with the same weights on 1, 2, 4 processes and any cores." in words


def test_another_version_does_not_go_on(run: Run, tmp_path: Path) -> None:
    checkpoint = min(run.folder.glob("checkpoints/step-*"))
    before = numerics.describe(torch.device("cpu"), None, is_portable=True)
    there = before | {"torch": "1.0"}
    with pytest.raises(UserError, match=r"train\.kernels: portable .* rank 1 .*torch"):
        from trainer.ranks.collectives import compare_starts

        compare_starts([("weights", "images", before), ("weights", "images", there)])
    other = tmp_path / "run"
    state = json.loads((checkpoint / "state.json").read_text())
    assert numerics.is_portable(state["environment"])
    resumed = train_apart(other, *PORTABLE, "--resume", str(checkpoint), OMP_THREAD_LIMIT="1")
    assert resumed.exit_code == 2
    assert "OMP_THREAD_LIMIT: is 1, which chooses other kernels" in resumed.errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--threads 2", "threads: must be null or 1 where train.kernels is portable, found 2"),
        ("--train.precision bf16", "train.precision: must be fp32 where"),
        ("--train.reduction fast", "train.reduction: must be exact where"),
        ("--optimizer.name rmsprop", "optimizer.name: must be another than rmsprop where"),
    ],
)
def test_what_it_cannot_keep_is_refused(words: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        command_line.parse(["--config", str(DIGITS), "--train.kernels", "portable", *words.split()])
    assert str(caught.value).startswith(message)


def test_a_process_that_has_torch_with_other_kernels_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in kernels.PORTABLE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"before torch is imported.*ATEN_CPU_CAPABILITY=avx2"):
        kernels.choose("portable")
    monkeypatch.setattr(kernels, "missing_features", lambda: ["AVX2", "FMA"])
    with pytest.raises(UserError, match=r"here: AVX2, FMA; add --train\.kernels native to"):
        kernels.choose("portable")


def test_a_process_of_the_api_may_start_with_the_variables(tmp_path: Path) -> None:
    settings: Any = {"tracking": {"wandb": "disabled"}, "train": {"epochs": 1}}
    with pytest.raises(UserError, match="before torch is imported"):
        api.train(RECIPE, output_dir=tmp_path / "none", **settings)
    program = f"""
import sys, torch
from trainer.api import train
train("configs/digits.yaml", output_dir=sys.argv[1], **{settings})
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        cwd=REPOSITORY,
        env=environment(**kernels.PORTABLE_VARIABLES),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_set_in_time", True)


@pytest.mark.usefixtures("portable")
def test_functions_are_rounded_correctly() -> None:
    numbers = random.Random(1)
    with mpmath.workdps(80):
        for angle in [0.0, math.pi / 2, math.pi, *(numbers.uniform(-7, 7) for _ in range(500))]:
            assert portable_math.cos(angle) == float(mpmath.cos(mpmath.mpf(angle)))
        for _ in range(200):
            base, exponent = numbers.random(), numbers.choice([0, 1, 2, 17, 0.9, 2.5])
            expected = float(mpmath.mpf(base) ** mpmath.mpf(exponent))
            assert portable_math.power(base, exponent) == expected
    for kind in (torch.float32, torch.float64):
        values = torch.rand(1000, dtype=kind)
        assert np.array_equal(portable_math.square_root(values).numpy(), np.sqrt(values.numpy()))


@pytest.mark.usefixtures("portable")
def test_optimisers_and_networks_whose_bits_differ_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each operator is noted while they are tried, before the first step."""
    plugin = tmp_path / "rooted.py"
    plugin.write_text("""
from models.lab import LabCNN

class Rooted(LabCNN):
    def forward(self, images):
        return super().forward(images.square().add(1.0) ** 0.5)
""")
    for words, message in (
        (["--optimizer.name", "torch:NAdam"], "optimizer.name: torch:NAdam computes sqrt,"),
        (
            ["--model.name", f"{plugin}:Rooted", "--model.args", "{}"],
            f"model.name: {plugin}:Rooted computes sqrt, which processors round differently",
        ),
    ):
        assert train_here(tmp_path / "run", *PORTABLE, *words) == 2
        assert message in capsys.readouterr().err


def test_the_recipe_of_the_tests_is_that_of_the_readme() -> None:
    ours, theirs = (yaml.safe_load(path.read_text()) for path in (DIGITS, RECIPE))
    assert theirs["train"].pop("kernels") == "portable"
    assert ours == theirs


def test_the_digest_in_the_readme(tmp_path: Path) -> None:
    """As anybody gets it who has these versions."""
    if running.versions() != json.loads(running.FILE.read_text())["versions"]:
        pytest.skip("the digest is of other versions")
    run = train_apart(tmp_path / "run", "--train.kernels", "portable")
    assert run.exit_code == 0, run.errors
    assert run.digest in (REPOSITORY / "README.md").read_text()
