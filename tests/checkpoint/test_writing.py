"""Checkpoints: whole or not at all, and what was saved is what comes back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.checkpoints import small_state
from trainer.base.errors import UnreadableError, UserError
from trainer.base.tensor_files import weights_sha256
from trainer.checkpoint.reading import open_checkpoint
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig, OptimizerConfig
from trainer.training.optimizer_state import load_optimizer_state, optimizer_state
from trainer.training.optimizers import build


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep=2))


def save(checkpoints: Checkpoints, step: int, best_step: int | None = None) -> Path:
    tensors = {"weight": torch.full((3, 2), float(step)), "scalar": torch.tensor(step)}
    checkpoints.save(step, {"model": tensors}, small_state(step), best_step=best_step)
    checkpoints.wait(needed=True)
    return checkpoints.folder / f"step-{step:08d}"


def test_what_was_saved_comes_back(checkpoints: Checkpoints) -> None:
    channels_last = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    shared = torch.randn(5)
    tensors = {"a": channels_last, "b": shared, "c": shared, "d": torch.tensor(7)}
    scaler = {"scale": 65536.0, "_growth_tracker": 3}
    checkpoints.save(12, {"model": tensors}, small_state(12) | {"note": "ü", "scaler": scaler})
    checkpoints.wait()
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.folder.name == "step-00000012"
    assert (saved.state["note"], saved.state["scaler"]) == ("ü", scaler)
    assert saved.tensors("best") == saved.specs("best") == {}
    loaded = saved.tensors("model")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_the_newest_are_kept_and_nothing_else_is_left(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3, 10):
        save(checkpoints, step)
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["step-00000003", "step-00000010"]


def test_the_best_stays_as_long_as_it_is_the_best(checkpoints: Checkpoints) -> None:
    for step, best_step in ((1, 1), (2, 1), (3, 1), (4, 1), (5, 5)):
        save(checkpoints, step, best_step)
        assert checkpoints.folder.joinpath(f"step-{best_step:08d}").is_dir()
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["step-00000004", "step-00000005"]


def test_the_training_may_change_its_tensors_while_they_are_written(
    checkpoints: Checkpoints,
) -> None:
    held, weight = threading.Event(), torch.zeros(1000)
    checkpoints.save(1, {"model": {"weight": weight}}, small_state(), first=lambda: held.wait(20))
    weight.fill_(1.0)
    assert checkpoints.newest() is None
    held.set()
    checkpoints.wait()
    saved = checkpoints.newest()
    assert saved is not None
    assert torch.equal(saved.tensors("model")["weight"], torch.zeros(1000))


def test_a_save_that_fails_costs_nothing_that_was_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(on_error="continue"))
    stopping = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(on_error="stop"))
    save(checkpoints, 1)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    big = {"model": {"weight": torch.zeros(500_000)}}
    checkpoints.save(2, big, small_state(), first=full)
    checkpoints.wait()
    message = (
        r"step 2 could not be saved \(No space left on device\): it takes 2.0 MB, and .* MB are"
    )
    assert re.search(message, caplog.text)
    assert "the newest one is step-00000001; the training goes on" in caplog.text
    for which, needed in ((checkpoints, True), (stopping, False)):
        which.save(2, big, small_state(), first=full)
        with pytest.raises(UserError, match=message):
            which.wait(needed=needed)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]
    save(checkpoints, 2)
    assert len(list(checkpoints.folder.iterdir())) == 2


def test_leftovers_of_a_killed_save_are_removed(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    (checkpoints.folder / ".step-00000002").mkdir()
    checkpoints.remove_leftovers()
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]


def test_without_a_checkpoint_there_is_none(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "extend"])
def test_damage_is_named_set_aside_and_the_one_before_used(
    checkpoints: Checkpoints, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(checkpoints, 1)
    path = save(checkpoints, 2) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "truncate":
        content = content[:-1]
    elif damage == "extend":
        content += b"0"
    path.write_bytes(content)
    if damage == "remove":
        path.unlink()
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.state["run"]["step"] == 1
    assert name in caplog.text
    assert (checkpoints.folder / "damaged-step-00000002").is_dir()


def test_a_half_written_checkpoint_does_not_count(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    hidden = checkpoints.folder / ".step-00000002"
    shutil.copytree(checkpoints.folder / "step-00000001", hidden)
    (hidden / "manifest.json").unlink()
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.folder.name == "step-00000001"
    save(checkpoints, 2)
    assert not hidden.exists()


def test_the_manifest_is_that_of_the_documentation(checkpoints: Checkpoints) -> None:
    """Size and SHA-256 of each file, and a checksum of them; computed here by other means."""
    checkpoints.save(1, {"model": {"a": torch.ones(3)}, "best": {}}, small_state())
    checkpoints.close()
    folder = checkpoints.folder / "step-00000001"
    names = ["model.safetensors", "best.safetensors"]
    files = {}
    for name in sorted([*names, "state.json"]):
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        files[name] = {"bytes": len(content), "sha256": digest}
    checksum = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == {"files": files, "checksum": checksum}
    state = json.loads((folder / "state.json").read_text())
    assert (state["format_version"], state["files"]) == (4, names)


def test_what_may_not_be_read_is_no_damage_and_stays(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(checkpoints, 1)

    def forbidden(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("trainer.checkpoint.reading.describe", forbidden)
    with pytest.raises(UnreadableError) as error:
        checkpoints.newest()
    expected = f"{folder / 'model.safetensors'}: may not be read (Permission denied)"
    assert str(error.value) == expected
    assert folder.is_dir()


def test_a_later_format_is_refused(checkpoints: Checkpoints) -> None:
    checkpoints.save(1, {}, {"format_version": 99})
    checkpoints.wait()
    folder = checkpoints.folder / "step-00000001"
    with pytest.raises(UserError, match="format_version 99 is from a later version"):
        open_checkpoint(folder)


def test_a_pickle_in_disguise_is_not_run(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = save(checkpoints, 1)
    target = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(target),)  # type: ignore[return-value]

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError):
        open_checkpoint(folder)
    assert not target.exists()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "muon"])
def test_an_optimiser_goes_on_as_if_never_stopped(name: str, checkpoints: Checkpoints) -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for step in range(count):
            generator = torch.Generator().manual_seed(step)
            images = torch.randn(8, 2, 6, 6, generator=generator)
            optimizer.zero_grad()
            model(images.to(memory_format=torch.channels_last)).square().mean().backward()
            optimizer.step()

    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 3)
        )
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model, build(OptimizerConfig(name, lr=0.01), model, 3)  # type: ignore[arg-type]

    model, optimizer = start()
    steps(model, optimizer, 3)
    tensors, numbers = optimizer_state(optimizer)
    files = {"model": model.state_dict(), "optimizer": tensors}
    checkpoints.save(3, files, small_state(3) | {"optimizer": numbers})
    checkpoints.wait()
    steps(model, optimizer, 3)

    again, its_optimizer = start()
    saved = checkpoints.newest()
    assert saved is not None
    again.load_state_dict(saved.tensors("model"))
    load_optimizer_state(its_optimizer, saved.tensors("optimizer"), saved.state["optimizer"])
    assert again[0].weight.is_contiguous(memory_format=torch.channels_last)
    steps(again, its_optimizer, 3)
    assert weights_sha256(again.state_dict()) == weights_sha256(model.state_dict())


def test_the_digest_is_the_one_of_the_documentation() -> None:
    """The digest is that of the floating-point tensors, C-contiguous, in name order."""
    tensors = {
        "b": torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last),
        "a": torch.randn(4),
        "count": torch.tensor(3),
    }
    expected = hashlib.sha256(tensors["a"].numpy().tobytes() + tensors["b"].numpy().tobytes("C"))
    assert weights_sha256(tensors) == expected.hexdigest()
