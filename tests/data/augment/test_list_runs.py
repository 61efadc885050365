"""Runs with a list of transforms: resumed in another spelling, and computed again."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from tests.commands.command import Capture, run_command
from tests.runs import Run, check_same, train_here

SHORT = ["--schedule.name", "constant", "--data.train_size", "300"]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("code") / "mine.py"
    file.write_text(
        "from trainer.api import register_augmentation\n"
        "@register_augmentation('dim', numbers=1)\n"
        "def dim(images, numbers):\n"
        "    return (images * (1 - numbers[:, :, None, None] / 4)).to(images.dtype)\n"
    )
    return f"{file}:dim"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, plugin: str) -> Run:
    """Train two epochs without a stop."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    policy = f"[random_resized_crop, {plugin}, {{rotate: {{degrees: 10}}}}, trivial_augment_wide]"
    assert train_here(folder, *SHORT, "--data.augment", policy, "--train.epochs", "2") == 0
    return Run(folder, 0)


def test_a_run_goes_on_in_another_spelling(run: Run, plugin: str, tmp_path: Path) -> None:
    folder = tmp_path / "resumed"
    policies = (
        f"[{{random_resized_crop: {{}}}}, {plugin}, {{rotate: {{degrees: 10.0}}}}, "
        "{trivial_augment_wide: {magnitude: 1}}]",
        f"[random_resized_crop, {plugin}, rotate: {{degrees: 1.0e+1}}, trivial_augment_wide]",
    )
    for epochs, policy in enumerate(policies, start=1):
        more = ["--data.augment", policy, "--train.epochs", str(epochs)]
        assert train_here(folder, *SHORT, *more) == 0
    check_same(Run(folder, 0), run)


def test_another_strength_is_another_run(
    run: Run, plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = f"[random_resized_crop, {plugin}, {{rotate: {{degrees: 9}}}}, trivial_augment_wide]"
    more = ["--data.augment", policy, "--train.epochs", "3"]
    assert train_here(run.folder, *SHORT, *more) == 2
    assert "'degrees': 9.0" in capsys.readouterr().err


def test_a_run_is_computed_again_where_its_code_is_named(run: Run, capsys: Capture) -> None:
    code, _, message = run_command(capsys, "verify", run.folder)
    assert code == 2
    _, option, value = shlex.split(message[message.index("yourself: ") :])
    assert option == "--data.augment"
    assert yaml.safe_load(value)[2] == {"rotate": {"degrees": 10.0}}
    code, output, errors = run_command(capsys, "verify", run.folder, option, value)
    assert (code, errors) == (0, "")
    assert "bit" in output
