"""The folder of a run's checkpoints: what is kept, set aside and removed, and what it says."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.checkpoints import small_state
from trainer.base.errors import UserError
from trainer.checkpoint.reading import open_checkpoint
from trainer.checkpoint.writing import Checkpoints, NoCheckpoints, rename_damaged, step_folders
from trainer.config.schema import CheckpointConfig


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep=9, on_error="continue"))


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, {}, small_state(step))
        checkpoints.wait(needed=True)


def save_onto_a_full_disk(checkpoints: Checkpoints, step: int) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = {"model": {"weight": torch.zeros(400_000), "bias": torch.zeros(100_000)}}
    checkpoints.save(step, files | {"best": {"weight": torch.zeros(250_000)}}, {}, first=full)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {record.name for record in caplog.records} <= {"lockstep"}
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}
    return [record.getMessage() for record in caplog.records]


# ------------------------------------------------------------------ saving


def test_a_step_that_is_saved_already_stays_as_it_is(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    before = (checkpoints.folder / "step-00000001").stat()
    save(checkpoints, 1)
    assert (checkpoints.folder / "step-00000001").stat() == before
    assert names(checkpoints) == ["step-00000001"]


def test_a_failed_save_says_what_it_takes_what_is_free_and_what_there_is(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(folder: Path) -> SimpleNamespace:
        assert folder.is_dir()
        return SimpleNamespace(free=10**12)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    expected = (
        f"{checkpoints.folder}: the checkpoint of step {{}} could not be saved (No space left on "
        "device): it takes 3.0 MB, and 1000000.0 MB are free; the newest one is {}"
    )
    save_onto_a_full_disk(checkpoints, 1)
    checkpoints.wait()
    save(checkpoints, 1, 2)
    save_onto_a_full_disk(checkpoints, 3)
    with pytest.raises(UserError) as error:
        checkpoints.wait(needed=True)
    assert messages(caplog) == [f"{expected.format(1, 'none')}; the training goes on"]
    assert str(error.value) == expected.format(3, "step-00000002")


def test_whether_the_last_save_has_failed_is_known(checkpoints: Checkpoints) -> None:
    assert (checkpoints.lost, checkpoints.failed) == (False, False)
    held, in_time = threading.Event(), []
    checkpoints.save(1, {}, small_state(1), first=lambda: in_time.append(held.wait(5)))
    assert not checkpoints.failed
    held.set()
    while not (checkpoints.folder / "step-00000001").exists():
        time.sleep(0.01)
    time.sleep(0.1)  # it is done now
    assert not checkpoints.failed
    checkpoints.wait()
    assert in_time == [True], "asking does not wait"
    assert (checkpoints.lost, checkpoints.failed) == (False, False)
    save_onto_a_full_disk(checkpoints, 2)
    while not checkpoints.failed:
        time.sleep(0.01)
    checkpoints.wait()
    assert (checkpoints.lost, checkpoints.failed) == (True, False)
    save(checkpoints, 2)
    assert not checkpoints.lost


def test_closing_waits_for_the_last_save_and_says_how_it_failed(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    held = threading.Event()
    threading.Timer(0.2, held.set).start()
    checkpoints.save(1, {}, small_state(1), first=lambda: held.wait(20))
    checkpoints.close()
    assert names(checkpoints) == ["step-00000001"]
    again = Checkpoints(checkpoints.folder, checkpoints.config)
    save_onto_a_full_disk(again, 2)
    again.close()
    (message,) = messages(caplog)
    assert message.endswith("the newest one is step-00000001")
    for closed in (checkpoints, again):
        with pytest.raises(RuntimeError, match="after shutdown"):
            save(closed, 3)


def test_half_of_a_checkpoint_goes_where_the_other_half_finds_no_room(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(checkpoints, 1)
    monkeypatch.setattr("trainer.checkpoint.writing.write_json", no_room)
    checkpoints.save(2, {"model": {"weight": torch.zeros(9)}}, small_state(2))
    with pytest.raises(UserError, match="step 2 could not be saved"):
        checkpoints.wait(needed=True)
    assert names(checkpoints) == ["step-00000001"]


def test_an_old_one_that_cannot_be_removed_is_named_and_the_new_one_is_there(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    few = Checkpoints(checkpoints.folder, CheckpointConfig(keep=1))
    save(few, 1)
    blocked = few.folder / ".step-00000001"
    blocked.mkdir()
    (blocked / "precious").touch()
    save(few, 2)
    assert names(few) == [".step-00000001", "step-00000001", "step-00000002"]
    (message,) = messages(caplog)
    assert message.startswith(f"{few.folder}: an old checkpoint could not be removed: [Errno")


# ------------------------------------------------------------------ what counts


def test_checkpoints_come_by_their_steps_and_copies_do_not_count(tmp_path: Path) -> None:
    own = ["step-00000009", "step-00000010", "step-99999999", "step-100000000"]
    for name in (*own, "step-00000009.bak", "my-step-00000001", "superseded-step-00000003"):
        (tmp_path / name).mkdir()
    assert [path.name for path in step_folders(tmp_path)] == own
    (aside,) = step_folders(tmp_path, "superseded-")
    assert aside.name == "superseded-step-00000003"


def test_two_names_of_one_step_come_in_their_own_order(tmp_path: Path) -> None:
    for name in ("step-7", "step-007", "step-07"):
        (tmp_path / name).mkdir()
    assert [path.name for path in step_folders(tmp_path)] == ["step-007", "step-07", "step-7"]


def test_a_folder_holds_its_own_checkpoints_under_any_of_its_names(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    save(checkpoints, 1)
    link = tmp_path / "link"
    link.symlink_to(checkpoints.folder)
    copy = tmp_path / "step-00000001"
    shutil.copytree(checkpoints.folder / copy.name, copy)
    assert checkpoints.contains(open_checkpoint(link / copy.name))
    assert not checkpoints.contains(open_checkpoint(copy))
    assert not NoCheckpoints().contains(open_checkpoint(link / copy.name))


def test_a_run_that_saves_nothing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    none = NoCheckpoints()
    assert not none.saves_any
    none.wait(needed=True)
    assert not none.failed
    assert none.newest() is None
    none.close()
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ set aside


def test_damaged_ones_are_numbered_where_the_name_is_taken(tmp_path: Path) -> None:
    (tmp_path / "damaged-step-00000001-4").symlink_to("nowhere")
    for _ in range(4):
        folder = tmp_path / "step-00000001"
        folder.mkdir()
        rename_damaged(folder, "damaged")
    first = "damaged-step-00000001"
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [first, *(f"{first}-{number}" for number in (2, 3, 4, 5))]
    assert (tmp_path / "damaged-step-00000001-4").is_symlink()


def test_where_a_damaged_one_has_gone_is_said(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    save(checkpoints, 1, 2)
    state = checkpoints.folder / "step-00000002" / "state.json"
    state.unlink()
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.folder.name == "step-00000001"
    (message,) = messages(caplog)
    assert message.startswith(f"{state}: missing")
    assert message.endswith("; it is now damaged-step-00000002, going back to the one before")


def test_what_came_after_is_out_of_the_way_until_the_run_has_come_by_again(
    checkpoints: Checkpoints,
) -> None:
    save(checkpoints, 1, 2, 3, 4)
    checkpoints.supersede_after(2)
    superseded = ["superseded-step-00000003", "superseded-step-00000004"]
    assert names(checkpoints) == ["step-00000001", "step-00000002", *superseded]
    save(checkpoints, 3)
    kept = [f"step-0000000{step}" for step in (1, 2, 3)]
    assert names(checkpoints) == [*kept, superseded[1]]
    checkpoints.supersede_after(2)
    assert names(checkpoints) == [*kept[:2], *superseded]
