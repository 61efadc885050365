"""Weights & Biases, by the file that a real offline run writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.distributed.launch import run_forked
from tests.offline_run import OfflineRun
from tests.runs import train_forked

STEPS = [
    {
        "event": "step",
        "epoch": 1 + (step - 1) // 3,
        "step": step,
        "loss": 2 / step,
        "lr": 1e-3 * step,
    }
    for step in range(1, 6)
]
EPOCH = {
    "event": "epoch",
    "epoch": 1,
    "train_loss": 1.25,
    "train_accuracy": 0.5,
    "validation_loss": None,
    "validation_accuracy": 0.75,
    "weights_sha256": "9377ad42",
    "seconds": 2.5,
    "samples_per_second": 1000.0,
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


DRIVER = """
import json, logging, os, signal, sys, time
from pathlib import Path
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
from trainer.run.tracking import tracker as guard, weights_and_biases
from trainer.run.tracking.weights_and_biases import start
assert "wandb" not in sys.modules
out, mode = Path("run"), sys.argv[1]
inputs = json.loads(Path("inputs.json").read_text())
begin = time.monotonic()
PREPARE
tracker = start({"seed": 7, "train": {"epochs": 2}}, out, mode, PROJECT, "abc123", 0)
print("start_s", time.monotonic() - begin)
if tracker:
    tracker.log(inputs["steps"][:3])
    BETWEEN
    tracker.log([inputs["epoch"]])
    tracker.log(inputs["steps"][3:])
    begin = time.monotonic()
    tracker.finish(inputs["results"] if FINISHED else None, stopped=not FINISHED)
print("finish_s", time.monotonic() - begin)
print("wandb imported", "wandb" in sys.modules)
"""

ACCELERATE = "from accelerate import PartialState; PartialState()"
"""what every run has done; its import takes seconds"""

CALLERS_RUN = """
import atexit, wandb
theirs = wandb.init(project="theirs", mode="offline", dir=".", settings=wandb.Settings(silent=True))
atexit.register(lambda: print("caller's run is open", wandb.run is theirs))
"""

RESULTS: dict[str, Any] = {
    "test": {
        "accuracy": 0.625,
        "lab_accuracy": 0.5,
        "augmented": {"by": "flip", "accuracy": 0.75, "loss": 0.25},
        "loss": 0.75,
        "samples": 8,
        "per_class": [
            {"name": "T-shirt/top", "support": 4, "correct": 3, "accuracy": 0.75,
             "precision": 0.6, "recall": 0.75, "f1": 0.667},
            {"name": "Shirt", "support": 4, "correct": 2, "accuracy": 0.5,
             "precision": 0.667, "recall": 0.5, "f1": 0.571},
        ],
        "worst_class": "Shirt",
        "confusion": [[3, 1], [2, 2]],
    }
}  # fmt: skip


@pytest.fixture(autouse=True)
def nobodys_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work without the key, netrc file and settings of the user who runs the tests."""
    for name in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)


def run_python(
    code: str, folder: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, with all that it does when it ends."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def track(
    folder: Path,
    mode: str,
    *,
    prepare: str = ACCELERATE,
    between: str = "",
    finished: bool = True,
    project: str | None = "lab",
    to_its_end: bool = False,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """A run of five steps and an epoch with pictures, tracked in its own process.

    Args:
        to_its_end: by an interpreter that ends like a user's; else by one that is forked.
    """
    run = folder / "run"
    run.mkdir(exist_ok=True)
    for place, name in enumerate(("curves", "confusion", "mistakes")):
        Image.new("RGB", (20 + place, 10), (place, 0, 0)).save(run / f"{name}.png")
    inputs = {"steps": STEPS, "epoch": EPOCH, "results": RESULTS}
    (folder / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    code = DRIVER.replace("PREPARE", prepare).replace(
        "BETWEEN", between.strip().replace("\n", "\n    ")
    )
    code = code.replace("FINISHED", str(finished)).replace("PROJECT", repr(project))
    if to_its_end:
        return run_python(code, folder, mode, **variables)
    done = run_forked(1, folder, "-c", code, mode, **variables)
    assert done.returncode == 0, done.stderr
    return done


def seconds(done: subprocess.CompletedProcess[str], name: str) -> float:
    return next(float(line.split()[1]) for line in done.stdout.splitlines() if name in line)


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


@pytest.mark.parametrize(
    ("mode", "level"), [("auto", "INFO"), ("offline", "WARNING"), ("online", "WARNING")]
)
def test_not_installed_is_one_line(tmp_path: Path, mode: str, level: str) -> None:
    done = track(tmp_path, mode, prepare="sys.modules['wandb'] = None")
    assert done.stderr == f"{level} Weights & Biases is off: the package wandb is not installed\n"


def test_a_broken_installation_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("raise TypeError('wrong protobuf')", encoding="utf-8")
    done = track(tmp_path, "auto")
    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING Weights & Biases is off from here on")
    assert line.endswith("wrong protobuf")


def assert_kept_offline(
    done: subprocess.CompletedProcess[str], folder: Path, limit_s: float
) -> None:
    """One warning, soon, and an offline run that holds everything."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING Weights & Biases: this run is kept offline: ")
    assert seconds(done, "start_s") < limit_s
    run = OfflineRun(folder / "run")
    assert run.rows[5]["train/loss"] == STEPS[4]["loss"]
    assert "pictures/curves>path" in run.rows[max(run.rows)]


@pytest.mark.parametrize(
    ("mode", "variables"), [("auto", {"WANDB_API_KEY": "too-short"}), ("online", {})]
)
def test_without_a_good_key_it_neither_asks_nor_fails(
    tmp_path: Path, mode: str, variables: dict[str, str]
) -> None:
    done = track(tmp_path, mode, **variables)
    assert_kept_offline(done, tmp_path, 20)
    assert "too-short" not in done.stderr
    assert ("wandb login" in done.stderr) == (mode == "online")


# Port 9 of this machine (discard) has no listener, so this is a network that refuses.
NOWHERE = "http://127.0.0.1:9"


def test_a_server_out_of_reach_falls_back(tmp_path: Path) -> None:
    text = f"machine 127.0.0.1:9\n  login user\n  password {'0123456789' * 4}\n"
    (tmp_path / "netrc").write_text(text, encoding="utf-8")
    prepare = f"{ACCELERATE}; weights_and_biases.INIT_TIMEOUT_S = 2"
    done = track(tmp_path, "auto", prepare=prepare, WANDB_BASE_URL=NOWHERE)
    assert_kept_offline(done, tmp_path, 20)


def test_a_dead_service_ends_the_tracking_with_one_warning(tmp_path: Path) -> None:
    between = (
        "import psutil\n"
        "for child in psutil.Process().children(recursive=True):\n"
        "    child.kill()\n"
        "time.sleep(0.3)\n"
    )
    done = track(tmp_path, "offline", between=between)
    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING Weights & Biases is off from here on")
    assert seconds(done, "finish_s") < 60, "it does not wait as for one that may answer"


def test_a_hanging_service_is_left_behind(tmp_path: Path) -> None:
    between = (
        "import psutil\n"
        "for child in psutil.Process().children(recursive=True):\n"
        "    child.suspend()\n"
        "    with Path('stopped.txt').open('a') as file:\n"
        "        print(child.pid, file=file)\n"
        "guard.FINISH_TIMEOUT_S = weights_and_biases.GOODBYE_TIMEOUT_S = 0.5\n"
    )
    # Neither Python's exit nor our pipe waits.
    done = track(tmp_path, "offline", between=between, to_its_end=True)
    assert "WARNING Weights & Biases is off from here on" in done.stderr
    (stopped,) = (tmp_path / "stopped.txt").read_text().split()
    assert not Path(f"/proc/{stopped}/exe").exists()
