"""On a disk with room for one checkpoint and not for two, what is saved stays good."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import Run, check_same, train_forked, train_here
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig

LONG = ["--train.epochs", "4", "--checkpoint.every_steps", "10", "--checkpoint.keep", "1"]
LONG += ["--data.validation_size", "0"]  # otherwise the best checkpoint would stay as well
BLOCK_BYTES = 4096


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train_here(folder, *LONG) == 0
    return Run(folder, 0)


@pytest.fixture
def disk(undisturbed: Run, tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system with room for nearly two checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    failed = mount(folder, int(1.95 * checkpoint_bytes(undisturbed)))
    if failed:
        pytest.skip(f"no small file system can be mounted: {failed}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(folder: Path, size_bytes: int, *more: str) -> str:
    """Mount a file system in memory; return what went wrong."""
    options = ",".join([*more, f"size={size_bytes}"])
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return str(error)
    return mounted.stderr.strip() if mounted.returncode else ""


def checkpoint_bytes(run: Run) -> int:
    """Return what the last checkpoint takes on a disk."""
    (folder,) = (run.folder / "checkpoints").glob("step-*")
    blocks = [-(-path.stat().st_size // BLOCK_BYTES) for path in folder.iterdir()]
    return sum(blocks) * BLOCK_BYTES


def check_good(run: Run) -> None:
    """Check that there is one whole checkpoint, and nothing of those that failed."""
    folder = run.folder / "checkpoints"
    saved = Checkpoints(folder, CheckpointConfig()).newest()
    assert saved is not None
    assert list(folder.iterdir()) == [saved.folder]


def test_training_goes_on_without_the_checkpoints_that_do_not_fit(
    undisturbed: Run, disk: Path
) -> None:
    more = ["--checkpoint.on_error", "continue"]
    run = train_forked(disk / "run", 1, *LONG, *more)
    check_same(run, undisturbed)
    check_good(run)
    assert any(map(says_the_space, run.errors.splitlines())), run.errors
    assert "Traceback" not in run.errors


@pytest.mark.parametrize("processes", [1, 2])
def test_training_stops_and_goes_on_when_there_is_room(
    processes: int, undisturbed: Run, disk: Path
) -> None:
    more = ["--checkpoint.on_error", "stop"]
    stopped = train_forked(disk / "run", processes, *LONG, *more)
    assert stopped.exit_code == 2, stopped.errors
    status = stopped.json("status.json")
    assert (status["state"], status["exit_code"]) == ("failed", 2), stopped.errors
    said = stopped.errors.splitlines()
    assert len(list(filter(says_the_space, said))) == 1, stopped.errors
    assert "Traceback" not in stopped.errors
    check_good(stopped)
    assert 0 < stopped.json("status.json")["step"] < len(undisturbed.metrics("step"))
    assert not mount(disk, 100 * checkpoint_bytes(undisturbed), "remount")
    check_same(train_forked(disk / "run", 1, *LONG, *more), undisturbed)


def says_the_space(line: str) -> bool:
    """Tell whether a line says how much space a checkpoint needs, and how much is free."""
    return (
        re.search(r"\d.*\bfree\b|\bfree\b.*\d", line) is not None
        and len(re.findall(r"[\d.,]+ ?[kKMG]?i?B\b|[\d.,]+ bytes", line)) >= 2
    )
