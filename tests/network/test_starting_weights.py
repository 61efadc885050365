"""Starting weights from other programs, in real files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.distributed.launch import environment
from tests.runs import Run, train_here
from trainer.base.errors import UserError
from trainer.network.starting_weights import load_weights

SHORT = ["--train.epochs", "1", "--data.train_size", "200"]


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))


def saved(path: Path, prefix: str) -> Path:
    save_file({f"{prefix}{name}": value for name, value in net().state_dict().items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_a_prefix_of_all_names_is_taken_off_and_said(
    prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = net(seed=1)
    load_weights(model, saved(tmp_path / "w.safetensors", prefix))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in net().state_dict().items())
    said = [f"are taken without their prefix {prefix!r}"] if prefix else []
    assert [record.getMessage().partition("its names ")[2] for record in caplog.records] == said


@pytest.mark.parametrize(
    ("prefix", "model", "hint"),
    [
        (
            "module.",
            nn.Sequential(nn.Conv2d(1, 5, 3)),
            "its names have the prefix 'module.', and without it, it has '1.bias'",
        ),
        ("", nn.ModuleDict({"net": net()}), "names of the model have the prefix 'net.', which"),
        ("module.", nn.ModuleDict({"net": net()}), "its names have the prefix 'module.'"),
    ],
)
def test_what_does_not_fit_says_what_a_prefix_has_to_do_with_it(
    prefix: str, model: nn.Module, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"does not fit the model: it lacks") as caught:
        load_weights(model, saved(tmp_path / "w.safetensors", prefix))
    assert hint in str(caught.value)


def test_without_a_prefix_none_is_spoken_of(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit the model") as caught:
        load_weights(nn.Sequential(nn.Conv2d(1, 5, 3)), saved(tmp_path / "w.safetensors", ""))
    assert "the prefix" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrapped", "archive"),
    [("it's.pth", False, True), ("w.ckpt", True, True), ("old.tar", False, False)],
)
def test_a_pickle_is_not_read_and_the_advice_converts_it(
    name: str, wrapped: bool, archive: bool, tmp_path: Path
) -> None:
    weights = net().state_dict()
    content = {"state_dict": weights, "epoch": 3} if wrapped else weights
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=archive)
    model = net(seed=1)
    with pytest.raises(UserError, match=r"a file of torch\.save, a pickle") as caught:
        load_weights(model, tmp_path / name)
    assert "\n" not in str(caught.value)
    command = str(caught.value).partition("once: python ")[2]
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True, env=environment())
    load_weights(model, (tmp_path / name).with_suffix(".safetensors"))
    assert torch.equal(model[0].weight, net()[0].weight)


def test_a_file_that_only_has_the_ending_of_one_is_read(tmp_path: Path) -> None:
    load_weights(net(seed=1), saved(tmp_path / "w.bin", ""))


def test_nothing_there_is_no_pickle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file") as caught:
        load_weights(net(), tmp_path / "w.pth")
    assert "pickle" not in str(caught.value)


def test_a_run_starts_from_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same bits as from the file without the prefix, and the screen says so."""
    assert train_here(tmp_path / "first", *SHORT) == 0
    tensors = load_file(tmp_path / "first" / "model.safetensors")
    for name, prefix in (("plain", ""), ("other", "module.")):
        file = tmp_path / f"{name}.safetensors"
        save_file({f"{prefix}{key}": value for key, value in tensors.items()}, file)
        caplog.clear()
        assert train_here(tmp_path / name, *SHORT, "--model.weights", str(file)) == 0
    assert caplog.text.count("taken without their prefix 'module.'") == 1
    assert Run(tmp_path / "plain", 0).digest == Run(tmp_path / "other", 0).digest


BATCH_IN_BUFFER = """
from torch import nn, zeros
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(64, num_classes)
        self.register_buffer("seen", zeros(1, 64))
    def forward(self, images):
        self.seen = images.detach().flatten(1)
        return self.head(images.flatten(1))
"""


def test_a_file_may_have_a_buffer_that_follows_the_batch(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(BATCH_IN_BUFFER)
    tensors = nn.Linear(64, 10).state_dict()
    tensors = {f"head.{name}": value for name, value in tensors.items()} | {
        "seen": torch.ones(1, 64)
    }
    save_file(tensors, tmp_path / "w.safetensors")
    words = ["--model.name", f"{tmp_path / 'net.py'}:Net", "--model.args", "{}"]
    words += ["--model.weights", str(tmp_path / "w.safetensors")]
    assert train_here(tmp_path / "run", *SHORT, *words) == 0
