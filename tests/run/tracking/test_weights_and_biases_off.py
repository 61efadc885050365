"""Weights & Biases missing, broken, out of reach or dead: one warning, and the run goes on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.offline_run import OfflineRun
from tests.run.tracking.tracked import ACCELERATE, STEPS, seconds, track

pytestmark = pytest.mark.usefixtures("nobodys_account")


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
