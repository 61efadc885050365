"""Users' data sets, augmentations, optimisers and trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.distributed.launch import run_worker
from tests.runs import Run, train_forked, train_here
from trainer.base.errors import UserError
from trainer.config import plugin_checks, plugins
from trainer.config.plugins import register_augmentation, register_optimizer
from trainer.config.schema import RunConfig, replace

EXAMPLES = REPOSITORY / "examples"
PARTS = {
    "data.name": f"{EXAMPLES}/own_data.py:stripes",
    "data.augment": f"shift+{EXAMPLES}/own_augmentation.py:light",
    "optimizer.name": f"{EXAMPLES}/own_optimizer.py:Lion",
    "model.name": f"{EXAMPLES}/own_model.py:OwnModel",
}


def test_a_run_with_each_is_the_same_on_two_processes(tmp_path: Path) -> None:
    common: dict[str, Any] = {"train.epochs": 1, "train.batch_size": 128, "data.train_size": 500}
    # The last of three steps has 5 samples: pieces of 2 and 1.
    runs = [common | {key: name} for key, name in PARTS.items()]
    runs.append(common | PARTS | {"train.batch_size": 149, "data.mixup": 0.2})
    one, two = (
        run_worker(n, tmp_path / f"out-{n}", name="train", runs=runs, folder=str(tmp_path))
        for n in (1, 2)
    )
    assert one == two
    assert len({outcome["weights"] for outcome in one}) == len(runs)


@pytest.mark.parametrize("key", ["data.name", "data.augment", "optimizer.name"])
def test_it_goes_on_to_the_same_weights_but_not_with_other_code(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = PARTS[key]
    example, _, member = name.rpartition("+")[2].rpartition(":")
    file = tmp_path / "mine.py"
    file.write_text(Path(example).read_text())
    more = [f"--{key}", f"{file}:{member}", "--train.epochs", "2", "--data.train_size", "500"]
    assert train_here(tmp_path / "whole", *more) == 0
    assert train_here(tmp_path / "run", *more, "--train.max_seconds", "0.001") == 75
    code = file.read_text()
    file.write_text(code + "# changed\n")
    capsys.readouterr()
    assert train_here(tmp_path / "run", *more) == 2
    assert f"{key}: the code differs from that" in capsys.readouterr().err
    file.write_text(code)
    assert train_here(tmp_path / "run", *more) == 0
    assert Run(tmp_path / "run", 0).digest == Run(tmp_path / "whole", 0).digest


HEAD = """
import os, torch
from trainer.api import *
"""
AUGMENTATION = '@register_augmentation("mine", numbers=1)\ndef mine(images, numbers):\n '
OPTIMIZER = """
@register_optimizer("mine")
class Mine(torch.optim.SGD):
    def __init__(self, params, lr): super().__init__(params, lr); self.count = 0
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]: """
DATA = '@register_dataset("mine")\ndef mine(root):\n '
ARRAYS = "return OwnImages(torch.zeros(9, 4, 4), {labels}, torch.zeros(2, 4, 4), [0, 1])"


@pytest.mark.parametrize(
    ("key", "code", "expected"),
    [
        ("data.name", "x = 1", "the file has no data set 'mine'; it defines no function or class"),
        ("data.name", "import nowhere", "does not run: ModuleNotFoundError"),
        ("data.name", '@register_dataset("digits")\ndef mine(): pass', "choose another name"),
        ("data.name", DATA + "1 / 0", "mine fails: ZeroDivisionError: division by zero (mine.py,"),
        ("data.name", DATA + "return 3", "must return trainer.api.OwnImages, found int"),
        ("data.name", DATA + ARRAYS.format(labels="[0, 1]"), "has 9 images, but"),
        ("data.name", DATA + ARRAYS.format(labels="[[0], [1, 2]]"), "train_labels: not an array"),
        ("data.augment", DATA, "does not run"),
        ("data.augment", AUGMENTATION + "return images.float()", "must return images as it gets"),
        ("data.augment", AUGMENTATION + "return images[:1]", "must return images as it gets them"),
        ("data.augment", AUGMENTATION + "return images.nope", "mine fails: AttributeError"),
        (
            "data.augment",
            AUGMENTATION + "return images * (torch.rand(len(images), 1, 1, 1) < 0.5)",
            "other images at a second call",
        ),
        ("data.augment", AUGMENTATION + "return images.flip(0)", "differently in a smaller batch"),
        ("optimizer.name", OPTIMIZER + "1 / 0", "ZeroDivision"),
        ("optimizer.name", OPTIMIZER + "parameter.add_(torch.randn_like(parameter))",
         "other weights of the same gradients"),
        ("optimizer.name", OPTIMIZER + "self.count += 1; parameter.add_(self.count)",
         "another second step after a resume"),
        ("optimizer.name", OPTIMIZER + "self.state[parameter]['x'] = {1}",
         "neither tensors nor numbers"),
        ("optimizer.name", '@register_optimizer("mine")\ndef mine(params, lr): return 3',
         "int is not a torch.optim.Optimizer"),
        ("optimizer.name", '@register_optimizer("mine")\ndef mine(params): return 3',
         "unexpected keyword argument 'lr'"),
        ("tracking.plugin", "mime = dict", "no tracker 'mine'"),
    ],
)  # fmt: skip
def test_a_bad_one_is_one_clear_message(
    key: str, code: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + code)
    small = ["--data.train_size", "100", "--train.batch_size", "20", "--train.microbatches", "2"]
    assert train_here(tmp_path / "run", f"--{key}", f"{file}:mine", *small) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"{key}: ")
    assert expected in message
    assert "\n" not in message
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_tracker_that_fails_is_one_warning(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + '@register_tracker("mine")\nclass Mine:\n'
                    " def __init__(self, config, folder, step): pass\n"
                    " def log(self, record): raise RuntimeError('no room')\n")  # fmt: skip
    more = ["--tracking.plugin", f"{file}:mine", "--train.epochs", "1"]
    run = train_forked(tmp_path / "run", 1, *more)
    assert run.exit_code == 0
    assert run.errors.strip() == (
        f"tracking.plugin {file}:mine is off from here on; metrics.jsonl has everything: no room"
    )


def test_a_file_needs_no_decorator(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def halve(images, numbers): return images // 2\n")
    plugin = plugins.find("augmentation", f"{file}:halve")
    assert plugin.numbers == 0
    assert plugin.member(torch.tensor([6]), torch.zeros(1, 0)).tolist() == [3]
    with pytest.raises(UserError, match=r"no augmentation 'halv'; did you mean halve\?"):
        plugins.find("augmentation", f"{file}:halv")


def test_registering() -> None:
    with pytest.raises(ValueError, match="choose another name"):
        register_augmentation("flip_shift")
    with pytest.raises(ValueError, match="letters, digits"):
        register_optimizer("a:b")
    with pytest.raises(ValueError, match="0 or more"):
        register_augmentation("dim", numbers=-1)
    with pytest.raises(ValueError, match="letters, digits"):
        plugins.register_model("net.py")
    try:
        plugins.register_model("my-net.v2")(torch.nn.Linear)
        assert plugins.is_user_defined("model", "my-net.v2")
    finally:
        plugins._registered.pop()


@pytest.mark.parametrize(
    ("key", "stored", "given", "is_same"),
    [
        ("data.augment", "flip+a.py:f+b.py:g", "flip+/else/x.py:f+/else/b.py:g", True),
        ("data.augment", "flip+a.py:f+b.py:g", "rotate+a.py:f+b.py:g", False),
        ("data.augment", "flip+a.py:f+b.py:g", "flip+a.py:other+b.py:g", False),
        ("data.augment", "flip+a.py:f+b.py:g", "flip+b.py:g", False),
        ("model.name", "/there/net.py:Net", "here/mine.py:Net", True),
        ("model.name", "/c++/net.py:Net", "here/net.py:Net", True),
        ("model.name", "timm:hf-hub:a/net", "timm:local-dir:a/net", False),
        ("optimizer.name", "adamw", "mine.py:adamw", False),
    ],
)
def test_only_the_folder_of_a_file_may_change(
    key: str, stored: str, given: str, is_same: bool
) -> None:
    config = replace(RunConfig(), {key: stored})
    if is_same:
        plugin_checks.check_code(config, Path("run"), {key: given}, [key])
    else:
        with pytest.raises(UserError, match="but the run had"):
            plugin_checks.check_code(config, Path("run"), {key: given}, [key])


@pytest.mark.parametrize(
    ("key", "value"),
    [("optimizer.name", "theirs"), ("data.augment", "flip+theirs"), ("data.name", "theirs"),
     ("model.name", "theirs")],
)  # fmt: skip
def test_a_part_that_another_program_has_registered_is_unknown(key: str, value: str) -> None:
    config = replace(RunConfig(), PARTS | {"data.augment": "flip"})
    plugin_checks.check_code(config, Path("run"), PARTS | {"data.augment": "flip"}, plugins.CODE)
    with pytest.raises(UserError, match=f"{key}: theirs of run was registered in the"):
        config = replace(RunConfig(), {key: value})
        plugin_checks.check_code(config, Path("run"), {}, plugins.CODE)


def test_code_without_lines_is_refused() -> None:
    names: dict[str, Any] = {}
    exec("def hidden(images, numbers): return images", names)
    register_augmentation("hidden")(names["hidden"])
    try:
        with pytest.raises(UserError, match="put it into a file"):
            plugins.fingerprints(replace(RunConfig(), {"data.augment": "hidden"}))
    finally:
        plugins._registered.pop()


def test_a_class_of_a_notebook_has_the_lines_of_its_methods() -> None:
    assert plugins._lines_of(torch.optim.SGD) is not None
    kind = type("Mine", (), {"__module__": "__main__", "fit": test_registering})
    source = plugins._lines_of(kind)
    assert source is not None and b"def test_registering" in source
