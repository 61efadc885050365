"""configs/sweeps: `wandb sweep` reads the files, and an agent starts their command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.tracking import GeneralTracker
from wandb.sdk.launch.sweeps import utils
from wandb.sdk.lib import config_util

from tests.conftest import REPOSITORY
from tests.distributed.launch import environment
from trainer.config import command_line
from trainer.config.schema import RunConfig, flatten
from trainer.run.tracking.accelerate_trackers import AccelerateTracker

SWEEPS = sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml"))


@pytest.fixture(params=SWEEPS, ids=lambda path: path.stem)
def sweep(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A sweep file, as wandb itself reads it."""
    found = utils.load_sweep_config(str(request.param))
    assert found is not None
    return found


def settings(sweep: dict[str, Any], end: int) -> dict[str, Any]:
    """A set of values as an agent gets it: the lower (0) or upper (-1) end of each range."""
    return {
        name: {"value": (rule.get("values") or [rule["min"], rule["max"]])[end]}
        for name, rule in sweep["parameters"].items()
    }


def command(sweep: dict[str, Any], end: int, *more: str) -> list[str]:
    """The command line that wandb's agent makes of the file for a set of values."""
    macros = utils.create_sweep_command_args({"args": settings(sweep, end)})
    words: list[str] = []
    for word in utils.create_sweep_command(list(sweep["command"])):
        is_macro = word.startswith("${") and word.endswith("}")
        words += [*macros[word[2:-1]], *more] if is_macro else [word]
    return words


def test_its_keys_are_those_of_a_configuration(sweep: dict[str, Any]) -> None:
    assert set(sweep["parameters"]) <= set(flatten(RunConfig()))
    assert (REPOSITORY / sweep["program"]).is_file()
    for end in (0, -1):
        arguments = [word for word in command(sweep, end) if word.startswith("--")]
        config = flatten(command_line.parse(arguments))
        assert {name: config[name] for name in sweep["parameters"]} == {
            name: given["value"] for name, given in settings(sweep, end).items()
        }


def test_its_metric_is_one_that_runs_log(sweep: dict[str, Any], tmp_path: Path) -> None:
    record = {"event": "epoch", "epoch": 1, "validation_accuracy": 0.5}
    logged = AccelerateTracker(GeneralTracker(_blank=True), tmp_path, 0).figures(record)
    assert sweep["metric"]["name"] in logged
    assert sweep["metric"]["goal"] == "maximize"


def test_the_agents_command_trains_into_a_folder_of_its_own(
    sweep: dict[str, Any], tmp_path: Path
) -> None:
    short = ["--data.name=digits", "--data.train_size=300", "--train.epochs=2", "--threads=1"]
    short += ["--model.args={}", "--train.average_epochs=null", "--tracking.wandb=offline"]
    # `python` has to be this one.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    values = tmp_path / "values.yaml"
    config_util.save_config_file_from_dict(str(values), settings(sweep, 0))
    variables = environment(
        PATH=path,
        WANDB_SWEEP_ID="sweep1",
        WANDB_RUN_ID="run1",
        WANDB_SWEEP_PARAM_PATH=str(values),
    )
    for name in ("train.py", "trainer", "models", "configs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    done = subprocess.run(
        command(sweep, 0, *short),
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "sweeps" / "sweep1" / "run1"
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["optimizer"]["lr"] == sweep["parameters"]["optimizer.lr"]["min"]
    # The agent's run, and no other, is what the server gets.
    assert "Weights & Biases" not in done.stderr
    (kept,) = (folder / "wandb").glob("offline-run-*")
    assert kept.name.endswith("-run1")
