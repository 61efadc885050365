"""Weights & Biases, by the file that a real offline run writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.offline_run import OfflineRun
from tests.run.tracking.tracked import ACCELERATE, EPOCH, RESULTS, STEPS, track
from tests.runs import train_forked

pytestmark = pytest.mark.usefixtures("nobodys_account")

CALLERS_RUN = """
import atexit, wandb
theirs = wandb.init(project="theirs", mode="offline", dir=".", settings=wandb.Settings(silent=True))
atexit.register(lambda: print("caller's run is open", wandb.run is theirs))
"""


def test_an_offline_run_holds_everything(tmp_path: Path) -> None:
    done = track(tmp_path, "auto")
    assert done.stderr == "", "offline without a key is not worth a message"
    run = OfflineRun(tmp_path / "run")
    assert (run.run.run_id, run.run.project, run.run.display_name) == ("abc123", "lab", "run")
    assert run.config["seed"] == 7
    assert run.config["train"] == {"epochs": 2}
    assert run.exit_code == 0

    for step in STEPS:
        row = run.rows[step["step"]]
        assert (row["train/loss"], row["train/lr"]) == (step["loss"], step["lr"])
        assert row["epoch"] == step["epoch"]
    row = run.rows[3]
    for key in EPOCH.keys() - {"event", "epoch", "validation_loss"}:
        assert row[f"epoch/{key}"] == EPOCH[key]
    assert "epoch/validation_loss" not in row

    last = run.rows[max(run.rows)]
    assert last["test/accuracy"] == 0.625
    assert last["test/lab_accuracy"] == 0.5
    assert last["test/augmented_accuracy"] == 0.75
    assert last["test/class_accuracy/T-shirt/top"] == 0.75
    assert last["test/class_accuracy/Shirt"] == 0.5
    assert run.summary["test/worst_class"] == "Shirt"
    per_class = run.table("test/per_class")
    assert per_class["columns"] == list(RESULTS["test"]["per_class"][0])
    assert per_class["data"] == [list(row.values()) for row in RESULTS["test"]["per_class"]]
    assert run.table("test/confusion_table")["data"] == [
        ["T-shirt/top", "T-shirt/top", 3],
        ["T-shirt/top", "Shirt", 1],
        ["Shirt", "T-shirt/top", 2],
        ["Shirt", "Shirt", 2],
    ]
    for name in ("curves", "confusion", "mistakes"):
        path = last[f"pictures/{name}>path"]
        assert path in run.files
        logged = (run.folder / "files" / path).read_bytes()
        assert logged == (tmp_path / "run" / f"{name}.png").read_bytes()


VARIABLES = {
    "WANDB_PROJECT": "mine",
    "WANDB_NAME": "by me",
    "WANDB_ENTITY": "us",
    "WANDB_RUN_GROUP": "group",
    "WANDB_JOB_TYPE": "job",
    "WANDB_NOTES": "a note",
    "WANDB_TAGS": "red,blue",
}


def test_its_own_variables_decide_what_the_recipe_leaves_open(tmp_path: Path) -> None:
    done = track(tmp_path, "auto", project=None, WANDB_DIR="other", **VARIABLES)
    assert done.stderr == ""
    assert not (tmp_path / "run" / "wandb").exists()
    run = OfflineRun(tmp_path / "other").run
    assert (run.project, run.display_name, run.entity) == ("mine", "by me", "us")
    assert (run.run_group, run.job_type, run.notes) == ("group", "job", "a note")
    assert list(run.tags) == ["red", "blue"]


def test_a_run_takes_its_id_from_the_environment(tmp_path: Path) -> None:
    more = ["--train.epochs", "1", "--data.train_size", "200", "--tracking.wandb", "offline"]
    run = train_forked(tmp_path / "run", 1, *more, WANDB_RUN_ID="id-of-mine")
    assert run.exit_code == 0, run.errors
    found = OfflineRun(run.folder).run
    assert (found.run_id, found.project, found.display_name) == ("id-of-mine", "lockstep", "run")


def test_a_run_that_the_caller_has_open_stays_open(tmp_path: Path) -> None:
    done = track(tmp_path, "offline", prepare=ACCELERATE + CALLERS_RUN, to_its_end=True)
    assert "caller's run is open True" in done.stdout
    run = OfflineRun(tmp_path / "run")
    assert (run.run.run_id, run.exit_code) == ("abc123", 0)
    assert run.rows[5]["train/loss"] == STEPS[4]["loss"]


def test_a_long_run_that_was_stopped_is_whole_and_closed_as_such(tmp_path: Path) -> None:
    many = "tracker.log([{'event': 'step', 'epoch': 1, 'step': s, 'loss': 1 / s, 'lr': 0.1}"
    between = f"{many} for s in range(4, 1001)])"
    # A key would be used without the mode, which wandb also knows under an old name.
    variables = {"WANDB_MODE": "dryrun", "WANDB_API_KEY": "0" * 40, "WANDB_PROJECT": "mine"}
    done = track(tmp_path, "auto", between=between, finished=False, **variables)
    assert done.stderr == ""
    run = OfflineRun(tmp_path / "run")
    assert [run.rows[step]["train/loss"] for step in range(6, 1001)] == [
        1 / step for step in range(6, 1001)
    ]
    assert (run.exit_code, run.is_preempted) == (1, True)
    assert not any("test/accuracy" in row for row in run.rows.values())
    assert run.run.project == "lab", "the recipe's comes first"


@pytest.mark.parametrize(("mode", "variable"), [("disabled", "offline"), ("auto", "disabled")])
def test_disabled_does_not_even_import_it(tmp_path: Path, mode: str, variable: str) -> None:
    done = track(tmp_path, mode, prepare="", WANDB_MODE=variable)
    assert "wandb imported False" in done.stdout
    assert done.stderr == ""
    assert not (tmp_path / "run" / "wandb").exists()
