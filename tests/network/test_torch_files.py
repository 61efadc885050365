"""Files of torch.save: which are known as such, and where their tensors are found."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.network import torch_files

STATE = {"a": torch.ones(2), "b": torch.zeros(3)}


def saved(tmp_path: Path, content: object, **keys: Any) -> Path:
    torch.save(content, tmp_path / "w.pth", **keys)
    return tmp_path / "w.pth"


def found(tmp_path: Path, content: object, key: str | None = None) -> tuple[list[str], str]:
    """The names of the tensors, and their place."""
    tensors, place = torch_files.read(saved(tmp_path, content), key)
    return list(tensors), place


def refusal(read: Callable[[], object]) -> str:
    """What a message says after the path of the file."""
    with pytest.raises(UserError) as caught:
        read()
    before, _, text = str(caught.value).partition("w.pth: ")
    assert re.fullmatch("/.*/", before)
    return text


def test_both_forms_of_its_files_are_known(tmp_path: Path) -> None:
    for archive in (True, False):
        path = saved(tmp_path, STATE, _use_new_zipfile_serialization=archive)
        assert torch_files.is_from_torch_save(path)
        assert torch_files.how_to_convert(path) == (
            "is a file of torch.save, a pickle, which could run code and is not read; convert it "
            f"to safetensors once: python -m trainer convert-weights {path}"
        )


def test_other_files_are_not_taken_for_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for name in ("data.pkl", "a/data.pkl/b"):
            archive.writestr(name, "x")
    (tmp_path / "some.bin").write_bytes(b"\x80\x02\x8a\x0b" + bytes(9))
    for path in (tmp_path, tmp_path / "nothing", *tmp_path.iterdir()):
        assert torch_files.how_to_convert(path) is None


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (STATE, ""),
        (STATE | {"model": {"c": torch.ones(1)}}, ""),
        ({"epoch": 3, "model": STATE}, "model"),
        ({"model": {"state_dict": {"module": STATE}}}, "model.state_dict.module"),
        ({"net": STATE, "model": "its name"}, "net"),
        (
            {"net": {"x": torch.ones(1)}, "module": {"x": torch.ones(1)}, "model_ema": STATE},
            "model_ema",
        ),
    ],
)
def test_tensors_are_found_where_programs_keep_them(
    content: object, place: str, tmp_path: Path
) -> None:
    assert found(tmp_path, content) == (["a", "b"], place)


def test_a_place_may_be_named(tmp_path: Path) -> None:
    content = {"of": {"mine": STATE | {"epoch": 3, "model": {"c": torch.ones(1)}}}, "model": STATE}
    assert found(tmp_path, content, "of.mine") == (["a", "b"], "of.mine")
    assert found(tmp_path, {"mine": STATE}, "mine") == (["a", "b"], "mine")
    # What is named is what is taken.
    text = refusal(lambda: found(tmp_path, {"mine": {"model": STATE}}, "mine"))
    assert text == (
        'has no tensors by their names in mine, but ["model"]; name their place with --key'
    )


def test_names_may_be_numbers_and_are_texts_then(tmp_path: Path) -> None:
    assert found(tmp_path, {1: torch.ones(1), "more": [torch.ones(1)]}) == (["1"], "")


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    content = {"model": {"epoch": 3}, **{f"{number}" * 41: number for number in range(11)}}
    names = ["model", *(f"{number}" * 40 for number in range(9))]
    listed = "[" + ", ".join(f'"{name}"' for name in names) + "]"
    text = refusal(lambda: found(tmp_path, content, "mine"))
    assert text == f"has no mine; at its top: {listed}"
    text = refusal(lambda: found(tmp_path, content, "model.mine"))
    assert text == 'has no model.mine; in model: ["epoch"]'
    text = refusal(lambda: found(tmp_path, content, "model.epoch.mine"))
    assert text == "has no model.epoch.mine; in model.epoch: a int"
    text = refusal(lambda: found(tmp_path, {"model": {"epoch": 3}}))
    assert text == (
        'has no tensors by their names in model, but ["epoch"]; name their place with --key'
    )
    text = refusal(lambda: found(tmp_path, [torch.ones(1)]))
    assert text == "has no tensors by their names, but a list; name their place with --key"


def test_a_sparse_tensor_is_refused(tmp_path: Path) -> None:
    text = refusal(lambda: found(tmp_path, {**STATE, "x": torch.eye(2).to_sparse()}))
    assert text == "x is a sparse or quantized tensor, which is not converted"


def test_what_the_loader_refuses_is_said_in_one_short_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(content: object = None) -> str:
        path = tmp_path / "w.pth" if content is None else saved(tmp_path, content)
        return refusal(lambda: torch_files.read(path))

    refused = (
        "torch's weights-only loader refuses it: it is damaged, or has objects in it that only "
        "running its code could make; save only the state_dict where it came from"
    )
    assert read() == "No such file or directory"
    assert read(nn.Linear(1, 1)) == refused
    (tmp_path / "w.pth").touch()
    assert read() == refused
    for error, words in (
        (ValueError("many  words\n" * 40), ("many words " * 40)[:200]),
        (OSError(), "OSError"),
        (ValueError("Unsupported operand 1"), None),
        (RuntimeError("so Weights only load failed"), None),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", fail)
        expected = f"torch's weights-only loader refuses it: {words}" if words else refused
        assert read() == expected


def test_it_is_read_without_running_code_and_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}
    monkeypatch.setattr(torch, "load", lambda path, **keys: asked.update(keys, path=path) or STATE)
    path = tmp_path / "w.pth"
    assert torch_files.read(path) == (STATE, "")
    assert asked == {"path": path, "map_location": "cpu", "weights_only": True}
