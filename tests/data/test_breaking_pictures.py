"""Pictures that break while a run reads them: the run ends and names them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.data.picture_folders import write_pictures
from tests.runs import train_forked
from trainer.api import UserError, train
from trainer.base.errors import RankError

RECIPE = REPOSITORY / "configs" / "folder.yaml"
SHORT = ["--model.args", '{"widths": [8]}', "--train.epochs", "2", "--train.batch_size", "16"]
SHORT += ["--data.store_size", "9", "--data.augment", "none", "--data.scaling", "imagenet"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures whose heads are whole; the end of half of them is missing, not of the first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_pictures(tmp_path / "own", ("train",), count=20, size=(16, 12), channels=3)
    for picture in root.rglob("01*.png"):
        picture.write_bytes(picture.read_bytes()[:-100])
    return root


def test_python_gets_an_error_of_the_user_that_names_the_picture(
    root: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"own/train/(cat|dog)/01\d\.png: is not a picture"
    ) as caught:
        train(
            RECIPE,
            output_dir=str(tmp_path / "run"),
            threads=1,
            tracking={"wandb": "disabled"},
            train={"epochs": 2, "batch_size": 16},
            data={"root": str(root), "store_size": 9, "augment": "none", "scaling": "imagenet"},
        )
    assert isinstance(caught.value, RankError)


def test_the_rank_that_reads_it_names_the_member_of_its_archive(root: Path, tmp_path: Path) -> None:
    """And not the copy in the cache; of two processes the other one says nothing."""
    with tarfile.open(tmp_path / "own.tar.gz", "w:gz") as archive:
        archive.add(root, "own")
    more = ["--config", str(RECIPE), "--data.root", str(tmp_path / "own.tar.gz"), *SHORT]
    run = train_forked(tmp_path / "run", 2, *more)
    assert run.exit_code == 2, run.errors
    named = [line for line in run.errors.splitlines() if "is not a picture" in line]
    assert named, run.errors
    assert f"{tmp_path / 'own.tar.gz'}: own/train/" in named[0]
    assert "rank" in named[0]  # found by one in the run, and not by all at its start
    assert "Traceback" not in run.errors
    assert not (tmp_path / "run" / "model.safetensors").exists()
