"""`convert-weights`: files of torch.save as safetensors, and nothing of them is run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.commands.command import Capture, run_command
from trainer.base.errors import UserError
from trainer.config.schema import ModelConfig
from trainer.network import weights_sources


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))


def state() -> dict[str, torch.Tensor]:
    return net().state_dict()


def averaged() -> dict[str, torch.Tensor]:
    return {name: value + 1 for name, value in state().items()}


def is_written(path: Path, wanted: dict[str, torch.Tensor]) -> bool:
    found = load_file(path)
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


@pytest.mark.parametrize(
    ("content", "key", "wanted"),
    [
        (state, "", state),
        (lambda: {"state_dict": state(), "epoch": 3, "arch": "net"}, "state_dict", state),
        (lambda: {"model": {"state_dict": state()}, "args": {}}, "model.state_dict", state),
        (lambda: {"model": state(), "model_ema": averaged()}, "model_ema", averaged),
        (lambda: {"state_dict": state(), "state_dict_ema": averaged()}, "state_dict_ema", averaged),
    ],
)
@pytest.mark.parametrize("archive", [True, False])
def test_the_weights_are_found_where_programs_keep_them(
    content: Callable[[], Any],
    key: str,
    wanted: Callable[[], dict[str, torch.Tensor]],
    archive: bool,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    file = tmp_path / "it's.pth"
    torch.save(content(), file, _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match="python -m trainer convert-weights") as caught:
        weights_sources.find(ModelConfig(weights=str(file)))
    assert str(caught.value).endswith(f"{tmp_path}/it'\"'\"'s.pth'")
    code, output, errors = run_command(capsys, "convert-weights", str(file), "--json")
    assert code == 0, errors
    assert json.loads(output)["key"] == key
    assert is_written(tmp_path / "it's.safetensors", wanted())
    assert weights_sources.find(ModelConfig(weights=str(tmp_path / "it's.safetensors")))


def test_views_of_one_storage_and_another_place(tmp_path: Path, capsys: Capture) -> None:
    base = torch.arange(6.0).view(2, 3)
    tensors = {"a": base, "b": base.t(), "c": base[0]}
    torch.save({"mine": tensors, "state_dict": state()}, tmp_path / "w.pt")
    code, output, errors = run_command(
        capsys, "convert-weights", str(tmp_path / "w.pt"), str(tmp_path / "out"), "--key", "mine"
    )
    assert code == 0, errors
    assert "3 tensors, 15 numbers, those of its mine" in output
    assert is_written(
        tmp_path / "out", {name: value.contiguous() for name, value in tensors.items()}
    )


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("ran").touch, ())


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (lambda path: torch.save({"x": Trap()}, path), "weights-only loader refuses it"),
        (lambda path: torch.save(net(), path), "save only the state_dict"),
        (lambda path: path.write_bytes(pickle.dumps(Trap())), "weights-only loader refuses it"),
        (lambda path: path.write_bytes(b"\x80\x02\x8a\x0a" + bytes(50)), "loader refuses it"),
        (lambda path: path.touch(), "loader refuses it"),
        (
            lambda path: torch.save(["no", "names"], path),
            "has no tensors by their names, but a list",
        ),
        (lambda path: torch.save({"epoch": 3}, path), 'but ["epoch"]'),
        (lambda path: torch.save({"x": torch.eye(2).to_sparse()}, path), "sparse or quantized"),
        (lambda path: None, "No such file"),
    ],
)
def test_what_is_more_or_less_than_weights_is_refused(
    write: Callable[[Path], object],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "w.pth")
    code, _, errors = run_command(capsys, "convert-weights", "w.pth")
    assert code == 2
    assert part in errors
    assert len(errors.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"w.pth"}


def test_nothing_is_overwritten(tmp_path: Path, capsys: Capture) -> None:
    torch.save(state(), tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_text("mine")
    code, _, errors = run_command(capsys, "convert-weights", str(tmp_path / "w.pth"))
    assert code == 2
    assert "exists already" in errors
    assert (tmp_path / "w.safetensors").read_text() == "mine"
