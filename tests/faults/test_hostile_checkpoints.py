"""Checkpoints from somebody else: what does not fit the run is one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from tests.checkpoints import forge, forge_state, seal
from tests.faults.conftest import SHORT
from tests.runs import Run, train_here
from trainer.base.errors import FormatVersionError, UserError
from trainer.checkpoint.reading import FORMAT_VERSION, OLDEST_FORMAT_VERSION, open_checkpoint

Change = Callable[[dict[str, Any]], Any]


def put(key: str, value: Any) -> Change:
    return lambda state: state.update({key: value})


def put_run(**values: Any) -> Change:
    return lambda state: state["run"].update(values)


@pytest.mark.parametrize(
    ("version", "age"), [(FORMAT_VERSION + 1, "a later"), (OLDEST_FORMAT_VERSION - 1, "an earlier")]
)
def test_another_version_says_so_whatever_else_it_has(sound: Path, version: int, age: str) -> None:
    def change(state: dict[str, Any]) -> None:
        state.clear()
        state["format_version"] = version

    forge_state(sound, change)
    with pytest.raises(FormatVersionError, match=f"format_version {version} is from {age} version"):
        open_checkpoint(sound)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", ".."])
def test_a_manifest_that_names_a_file_outside_is_refused(sound: Path, name: str) -> None:
    seal(sound, **{name: {"bytes": 1, "sha256": "0" * 64}})
    with pytest.raises(UserError, match="must be the name of a file in this folder"):
        open_checkpoint(sound)


def test_a_state_that_names_a_file_outside_is_refused(sound: Path) -> None:
    forge_state(sound, put("files", ["../model.safetensors"]))
    with pytest.raises(UserError, match=r"'\.\./model.safetensors' is not in the manifest"):
        open_checkpoint(sound)


@pytest.mark.parametrize("text", [b"", b"\x80\x02}q\x00.", b"[]", b"[" * 100_000])
@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_json_that_we_never_write_is_refused(sound: Path, name: str, text: bytes) -> None:
    (sound / name).write_bytes(text)
    if name != "manifest.json":
        seal(sound)
    with pytest.raises(UserError, match=name):
        open_checkpoint(sound)


def newest(run: Path) -> Path:
    return run / "checkpoints" / "step-00000010"


def lose(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[min(tensors)]


def gain(tensors: dict[str, torch.Tensor]) -> None:
    tensors["999.x"] = torch.ones(1)


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)].flatten()[:-1].clone()


def retype(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)].double()


@pytest.mark.parametrize(
    ("name", "change"),
    [("model", lose), ("best", reshape), ("model", retype), ("optimizer", gain),
     ("optimizer", reshape)],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(
    run: Path, refused: Callable[..., str], name: str, change: Change
) -> None:
    file = newest(run) / f"{name}.safetensors"
    tensors = load_file(file)
    change(tensors)
    forge(newest(run), file.name, save(tensors))
    assert refused().startswith(f"{file}: does not fit this run: ")


def test_an_optimiser_without_any_state_is_that_of_a_first_step(run: Path) -> None:
    """A parameter that never had a gradient has no state: allowed, for all of them too."""
    forge(newest(run), "optimizer.safetensors", save({}))
    assert train_here(run, *SHORT) == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put_run(best_accuracy=None), "best.safetensors"),
        (put("optimizer", {"0.lr": 1.0}), "optimizer: '0.lr'"),
        (lambda state: state["files"].remove("model.safetensors"), "model.safetensors"),
        (put("fingerprints", {}), "data.root: the images differ"),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    run: Path, refused: Callable[..., str], change: Change, named: str
) -> None:
    forge_state(newest(run), change)
    message = refused()
    assert named in message
    assert str(newest(run)) in message


def test_the_untouched_copy_resumes(run: Path, trained: Path) -> None:
    """What all these folders were before they were changed."""
    assert train_here(run, *SHORT) == 0
    assert Run(run, 0).digest == Run(trained, 0).digest
