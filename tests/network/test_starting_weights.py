"""Starting weights that fit a network more or less, in real files."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.runs import Run, train_here
from tests.weights import load_weights
from trainer.base.errors import UserError
from trainer.base.tensor_files import Tensors
from trainer.config.schema import ModelConfig
from trainer.network import starting_weights, weights_sources
from trainer.network.model_state import copy_tensors
from trainer.network.weight_changes import adapt_channels

SHORT = ["--train.epochs", "1", "--data.train_size", "200"]
CLASSES = ("cat", "dog", "fox")


def net(seed: int = 0, classes: int = 3, channels: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, classes)
    )


def saved(path: Path, model: nn.Module | None = None, change: Callable[[str], str] = str) -> Path:
    model = model or net()
    save_file({change(name): value for name, value in model.state_dict().items()}, path)
    return path


def is_filled(model: nn.Module, names: Tensors | None = None) -> bool:
    wanted = names or net().state_dict()
    return all(torch.equal(model.state_dict()[name], value) for name, value in wanted.items())


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "own.name."]


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
def test_a_prefix_of_all_names_is_taken_off_and_said(prefix: str, tmp_path: Path) -> None:
    model = net(seed=1)
    fit = load_weights(model, saved(tmp_path / "w.safetensors", change=lambda name: prefix + name))
    assert is_filled(model)
    assert fit.notes == ((f"its names are taken without their prefix {prefix!r}",) * bool(prefix))


def test_a_known_prefix_of_some_names_is_taken_off(tmp_path: Path) -> None:
    """As of a program that keeps the backbone apart from a head of another name."""
    file = saved(
        tmp_path / "w.safetensors",
        change=lambda name: f"head.fc{name[1:]}" if name[0] == "3" else f"model.backbone.{name}",
    )
    model = net(seed=1)
    fit = load_weights(model, file)
    assert is_filled(model[:3], net()[:3].state_dict())
    assert sorted(fit.new) == ["3.bias", "3.weight"]
    assert sorted(fit.left_over) == ["head.fc.bias", "head.fc.weight"]
    assert fit.notes[1:] == ("head: 3 classes, new",)


def test_the_names_of_the_network_may_have_the_prefix(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("backbone", net(seed=1)[:3])
    model.add_module("fc", nn.Linear(72, 3))
    load_weights(model, saved(tmp_path / "w.safetensors", net()[:3]))
    assert is_filled(model.backbone, net()[:3].state_dict())


def test_another_head_is_new_and_the_same_on_every_build(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", net(classes=1000))
    model, built = net(seed=1), net(seed=1)
    fit = load_weights(model, file)
    assert is_filled(model[:3], net(classes=1000)[:3].state_dict())
    assert torch.equal(model[3].weight, built[3].weight)
    assert fit.notes == ("head: 1,000 -> 3 classes, new",)
    assert fit.describe() == [
        ("block", "loaded", "new", "left over"),
        ("0", "2", "-", "-"),
        ("1", "5", "-", "-"),
        ("3", "-", "2", "2"),
    ]


@pytest.mark.parametrize("kept", [False, True])
def test_a_new_head_with_large_weights_is_halved_until_it_is_quiet(
    kept: bool, tmp_path: Path
) -> None:
    """As of timm's EfficientNets, whose weights grow as classes get fewer."""
    theirs = net(classes=5)
    file = saved(tmp_path / "w.safetensors", theirs)
    model = net(seed=1)
    torch.nn.init.uniform_(model[3].weight, -0.7, 0.7)
    built = model[3].weight.detach().clone()
    load_weights(model, file, ("cat", "dog", "fox"), ("fox", "a", "b", "c", "d") if kept else None)
    found = model[3].weight
    assert torch.equal(found[:2], built[:2] / 4)
    assert 72**-0.5 < found[:2].abs().max() < 2 * 72**-0.5
    assert torch.equal(found[2], theirs[3].weight[0] if kept else built[2] / 4)


def test_rows_of_equal_classes_are_kept(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", net(classes=5))
    model, built, theirs = net(seed=1), net(seed=1), net(classes=5)
    names = ("fox", "crane", "crane", "owl", "cat")
    fit = load_weights(model, file, ("cat", "crane", "fox"), names)
    assert fit.notes == ("head: 5 -> 3 classes, 2 kept by their names, 1 new",)
    for name in ("weight", "bias"):
        ours, own, other = (getattr(each[3], name) for each in (model, built, theirs))
        assert torch.equal(ours, torch.stack([other[4], own[1], other[0]]))  # crane is two birds


def test_classes_in_another_order_are_put_in_ours(tmp_path: Path) -> None:
    model = net(seed=1)
    fit = load_weights(model, saved(tmp_path / "w.safetensors"), CLASSES, ("fox", "cat", "dog"))
    assert torch.equal(model[3].weight, net()[3].weight[[1, 2, 0]])
    assert fit.notes == ("head: 3 classes, 3 kept by their names",)


@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (3, 5), (1, 3)])
def test_a_grey_image_gives_the_same_whatever_the_channels(
    theirs: int, ours: int, tmp_path: Path
) -> None:
    file = saved(tmp_path / "w.safetensors", net(channels=theirs))
    model = net(seed=1, channels=ours)
    fit = load_weights(model, file)
    how = "summed" if ours == 1 else "repeated"
    assert fit.notes == (f"first layer: {theirs} -> {ours} channels, {how}",)
    if 5 not in (theirs, ours):  # whose two further channels count as red and green again
        grey = torch.rand(2, 1, 8, 8)
        both = (
            one.eval()(grey.expand(-1, count, -1, -1))
            for one, count in ((model, ours), (net(channels=theirs), theirs))
        )
        assert torch.allclose(*both, atol=1e-5)


def test_the_filters_are_adapted_as_timm_does() -> None:
    weight = torch.arange(6.0).view(2, 3, 1, 1)
    assert adapt_channels(weight, 1).flatten().tolist() == [3.0, 12.0]
    four = adapt_channels(weight, 4).flatten().tolist()
    assert four == [x * 0.75 for x in (0, 1, 2, 0, 3, 4, 5, 3)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_that_of_the_network(dtype: torch.dtype, tmp_path: Path) -> None:
    model = net(seed=1)
    load_weights(model, saved(tmp_path / "w.safetensors", net().to(dtype)))
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, net()[0].weight.to(dtype).float())


def test_a_file_of_an_old_torch_without_counts_of_batches_is_taken(tmp_path: Path) -> None:
    state = {k: v for k, v in net().state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "w.safetensors")
    model = net(seed=1)
    load_weights(model, tmp_path / "w.safetensors")
    assert is_filled(model, state)


def test_a_tensor_of_two_names_may_be_in_the_file_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
            self.again.weight = self.first.weight
            self.head = nn.Linear(4, 3)

    wanted = Tied()
    state = {k: v for k, v in wanted.state_dict().items() if k != "again.weight"}
    save_file(state, tmp_path / "w.safetensors")
    model = Tied()
    load_weights(model, tmp_path / "w.safetensors")
    assert is_filled(model, wanted.state_dict())


def test_only_what_is_taken_is_read(tmp_path: Path) -> None:
    names = {"lockstep/pixel_mean": torch.zeros(1), "another": torch.zeros(1)}
    save_file(net(classes=5).state_dict() | names, tmp_path / "w.safetensors")
    found = weights_sources.find(ModelConfig(weights=str(tmp_path / "w.safetensors")))
    assert found is not None
    start = starting_weights.read(net(), found, CLASSES)
    assert start.weights is found
    assert sorted(start.fit.left_over) == ["3.bias", "3.weight", "another"]
    assert start.tensors.keys() == {name for name in net().state_dict() if name[0] != "3"}


def test_a_number_of_a_parameter_must_be_finite_under_each_of_its_names(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
            self.again.weight = self.first.weight
            self.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))
            self.head = nn.Linear(4, 3)

    path, state = tmp_path / "w.safetensors", copy_tensors(Tied())
    save_file(state, path)
    load_weights(Tied(), path)  # of a buffer it may be infinite
    save_file(state | {"again.weight": torch.full((4, 4), torch.inf)}, path)
    with pytest.raises(UserError) as caught:
        load_weights(Tied(), path)
    assert str(caught.value) == (
        f"model.weights: {path}: again.weight has numbers that are not finite, from which nothing "
        "could be learnt; take the weights of an earlier epoch"
    )


def test_a_network_may_refuse_what_fits(tmp_path: Path) -> None:
    model = net()

    def refuse(*_: object) -> None:
        raise RuntimeError("not these")

    model.register_load_state_dict_pre_hook(refuse)
    with pytest.raises(UserError, match=r"model\.weights: .*w\.safetensors: not these"):
        load_weights(model, saved(tmp_path / "w.safetensors"))


def with_nan() -> nn.Module:
    model = net()
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("theirs", "ours", "parts"),
    [
        (
            nn.ModuleDict({"stem": nn.Conv2d(1, 2, 3), "block_1": nn.Conv2d(2, 2, 3)}),
            nn.ModuleDict(
                {"stem": nn.Conv2d(1, 2, 3), "block1": nn.Conv2d(2, 2, 3), "fc": nn.Linear(8, 3)}
            ),
            [
                "it lacks 'block1.weight' and 1 more",
                "nearest in the file: 'block_1.weight'",
                "2 of the model's 6 tensors fit",
            ],
        ),
        (net(), nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3)), ["0.weight"]),
        (
            net(),
            nn.Sequential(nn.Linear(64, 3), nn.BatchNorm1d(3)),
            ["2 x 1 x 3 x 3, where 3 x 64 is expected", "no head that could be replaced"],
        ),
        (with_nan(), net(), ["0.weight has numbers that are not finite"]),
    ],
)
def test_what_does_not_fit_is_named(
    theirs: nn.Module, ours: nn.Module, parts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"model\.weights: .*w\.safetensors") as caught:
        load_weights(ours, saved(tmp_path / "w.safetensors", theirs))
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    state = {name: value.to(torch.int8) for name, value in net().state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="as I8, where F32 is expected; quantised"):
        load_weights(net(), tmp_path / "w.safetensors")


def cut(path: Path) -> None:
    saved(path)
    path.write_bytes(path.read_bytes()[:-8])


def end_like_an_archive(path: Path) -> None:
    path.write_bytes(bytes(100) + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 46, 0, 0))


def claim_a_huge_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda path: path.touch(), "not a valid safetensors file"),
        (cut, "not a valid safetensors file"),
        (end_like_an_archive, "not a valid safetensors file"),
        (claim_a_huge_header, "not a valid safetensors file"),
        (lambda path: None, "No such file"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: path.mkdir(), "neither the folder of a finished run"),
        (lambda path: (path.mkdir(), (path / "config.yaml").touch()), "its run is not finished"),
        (lambda path: torch.save(net().state_dict(), path), "python -m trainer convert-weights"),
        (os.mkfifo, "is no regular file"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(
    make: Callable[[Path], object], part: str, tmp_path: Path
) -> None:
    make(path := tmp_path / "it's.pth")
    with pytest.raises(UserError, match=r"model\.weights: ") as caught:
        load_weights(net(), path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_link_is_followed_and_the_ending_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(saved(tmp_path / "w.bin"))
    load_weights(net(seed=1), tmp_path / "link")


def test_a_run_starts_from_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bits as from the file without the prefix, and the screen says so."""
    assert train_here(tmp_path / "first", *SHORT) == 0
    tensors = load_file(tmp_path / "first" / "model.safetensors")
    for name, prefix in (("plain", ""), ("other", "module.")):
        file = tmp_path / f"{name}.safetensors"
        save_file({f"{prefix}{key}": value for key, value in tensors.items()}, file)
        assert train_here(tmp_path / name, *SHORT, "--model.weights", str(file)) == 0
    said = capsys.readouterr().out
    assert said.count("taken without their prefix 'module.'") == 1
    assert said.count("block") == 2
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
