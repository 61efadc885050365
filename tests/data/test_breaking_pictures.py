"""Pictures that break while a run reads them: the run ends and names them."""

from __future__ import annotations

import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.data.picture_folders import write_pictures
from tests.faults.running import steps_logged
from tests.runs import train_forked
from trainer.api import UserError, train

RECIPE = REPOSITORY / "configs" / "folder.yaml"
DATA = {"store_size": 9, "augment": "none", "scaling": "imagenet", "cache": "none"}
LONG = ["--model.args", '{"widths": [8]}', "--train.epochs", "2000", "--train.batch_size", "16"]
LONG += [word for key, value in DATA.items() for word in (f"--data.{key}", str(value))]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_pictures(tmp_path / "own", ("train",), count=20, size=(16, 12), channels=3)


def spoil(file: Path) -> None:
    """Overwrite a file in its place: whoever has it open reads the other bytes."""
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))


def test_python_gets_an_error_of_the_user_that_names_the_picture(
    root: Path, tmp_path: Path
) -> None:
    def spoil_all(record: dict[str, Any]) -> None:
        for picture in root.rglob("*.png"):
            spoil(picture)

    with pytest.raises(UserError, match=r"own/train/(cat|dog)/0\d\d\.png: was changed since"):
        train(
            RECIPE,
            output_dir=str(tmp_path / "run"),
            on_epoch=spoil_all,
            threads=1,
            tracking={"wandb": "disabled"},
            model={"args": {"widths": [8]}},
            train={"epochs": 20, "batch_size": 16},
            data={"root": str(root), **DATA},
        )


def test_the_rank_that_reads_it_names_the_member_of_its_archive(root: Path, tmp_path: Path) -> None:
    """And not the copy in the cache, which it reads."""
    packed, run = tmp_path / "own.tar.gz", tmp_path / "run"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(root, "own")

    def spoil_in_training() -> None:
        while steps_logged(run) == 0:
            time.sleep(0.01)
        (copy,) = (tmp_path / "cache").rglob("*.tar")
        spoil(copy)

    spoiling = threading.Thread(target=spoil_in_training, daemon=True)
    spoiling.start()
    ended = train_forked(run, 2, "--config", str(RECIPE), "--data.root", str(packed), *LONG)
    assert ended.exit_code == 2, ended.errors
    named = [line for line in ended.errors.splitlines() if "was changed since" in line]
    assert named and named[0].startswith("rank "), ended.errors
    assert f": {packed}: own/train/" in named[0]
    assert "Traceback" not in ended.errors
    assert not (run / "model.safetensors").exists()
