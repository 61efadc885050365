"""Plug-ins of several files: what they import, that it runs once, and what their digest covers."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import models
import trainer
from tests.runs import Run, train_here
from trainer.base.errors import UserError
from trainer.config import plugins
from trainer.config.schema import RunConfig, replace
from trainer.network import creation

BLOCKS = """
from torch import nn

class Block(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))
    word = "{word}"
"""
NET = """
from {source} import Block

class Net(Block):
    pass
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, code in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)


def create(name: str) -> Any:
    return creation.create(name, {}, num_classes=10, in_channels=1, image_size=(8, 8))


def source(name: str) -> str | None:
    config = replace(RunConfig(), {"model.name": name})
    return plugins.fingerprints(config)["model.name"]


@pytest.mark.parametrize(
    ("net", "files", "statement"),
    [
        ("net.py", ["blocks.py"], "blocks"),
        ("net.py", ["parts/__init__.py", "parts/blocks.py"], "parts.blocks"),
        ("net.py", ["parts/blocks.py"], "parts.blocks"),
        ("nets/net.py", ["nets/__init__.py", "nets/blocks.py"], ".blocks"),
        ("nets/net.py", ["nets/__init__.py", "nets/blocks.py"], "nets.blocks"),
        ("nets/net.py", ["nets/__init__.py", "nets/blocks.py"], "blocks"),
        ("a/b/net.py", ["a/__init__.py", "a/b/__init__.py", "a/blocks.py"], "..blocks"),
        ("my-net.v2.py", ["blocks.py"], "blocks"),
        # Names of Lockstep's and of Python's own mean the user's files in the user's files.
        ("net.py", ["models.py"], "models"),
        ("net.py", ["models/__init__.py", "models/blocks.py"], "models.blocks"),
        ("net.py", ["trainer.py"], "trainer"),
        ("net.py", ["random.py"], "random"),
        ("net.py", ["types.py"], "types"),
    ],
)
def test_a_file_beside_is_imported_and_belongs_to_the_digest(
    net: str, files: list[str], statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    code = dict.fromkeys(files, "") | {files[-1]: BLOCKS.format(word="first")}
    write(tmp_path, code | {net: NET.format(source=statement)})
    name = f"{tmp_path / net}:Net"
    paths, known = list(sys.path), {key: sys.modules.get(key) for key in ("models", "random")}
    assert create(name).word == "first"
    digest = source(name)
    assert sys.path == paths
    assert {key: sys.modules.get(key) for key in known} == known
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".pyc"]
    # Of the same size and within the same second, as bytecode is not told apart.
    write(tmp_path, {files[-1]: BLOCKS.format(word="other")})
    assert create(name).word == "other"
    assert source(name) != digest
    write(tmp_path, {files[-1]: BLOCKS.format(word="first")})
    create(name)
    assert source(name) == digest
    moved_folder = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved_folder)
    moved = f"{moved_folder / net}:Net"
    create(moved)
    assert source(moved) == digest


def test_names_that_lie_beside_hide_nothing_that_is_not_there(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "trainer.py": "x = 1",
            "models.py": "x = 2",
            "timm.py": "import random\nfrom models.quicknet import QuickNet\n"
            "from trainer.api import register_model\nimport models, trainer\n"
            "class Net(QuickNet):\n  random, models, trainer = random, models, trainer\n",
        },
    )
    network = create(f"{tmp_path / 'timm.py'}:Net")
    assert isinstance(network, models.quicknet.QuickNet)
    assert (network.models.x, network.trainer.x, network.random) == (2, 1, random)
    assert sys.modules["models"] is models
    assert sys.modules["trainer"] is trainer


def test_two_folders_may_have_files_of_the_same_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder, {"blocks.py": BLOCKS.format(word=folder)})
        write(tmp_path / folder, {"net.py": NET.format(source="blocks")})
    networks = [create(f"{tmp_path}/{folder}/net.py:Net") for folder in ("a", "b", "a")]
    assert [network.word for network in networks] == ["a", "b", "a"]
    assert type(networks[0]) is type(networks[2])
    assert "blocks" not in sys.modules


def test_what_is_imported_late_or_from_the_path_belongs_to_the_digest_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        {
            "net.py": "import importlib\nfrom torch import nn\nfrom zz_shared import size\n"
            "class Net(nn.Module):\n"
            "  def __init__(self, num_classes):\n"
            "    super().__init__()\n"
            "    from blocks import Block\n"
            "    self.block = Block(num_classes)\n"
            "    self.more = importlib.import_module('.more', __package__)\n",
            "blocks.py": BLOCKS.format(word="x"),
            "more.py": "",
            "path/zz_shared.py": "from zz_deep import size",
            "path/zz_deep.py": "size = 1",
        },
    )
    monkeypatch.syspath_prepend(tmp_path / "path")
    name = f"{tmp_path / 'net.py'}:Net"
    try:
        create(name)
        covered = plugins._source("model", name).decode().rpartition("__package__)\n")[2]
        assert [line.split()[0] for line in covered.splitlines()[1:]] == [
            "blocks", "more", "zz_deep", "zz_shared",
        ]  # fmt: skip
    finally:
        for module in ("zz_shared", "zz_deep"):
            sys.modules.pop(module, None)


def test_an_error_in_the_second_file_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"net.py": "from blocks import Block", "blocks.py": "\n1 / 0"})
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"net.py:Net does not run: ZeroDivision.*blocks.py, line"):
        create(f"{tmp_path / 'net.py'}:Net")
    assert set(sys.modules) == before
    write(tmp_path, {"blocks.py": BLOCKS.format(word="x"), "net.py": NET.format(source="blocks")})
    assert isinstance(create(f"{tmp_path / 'net.py'}:Net"), nn.Module)


# ---------------------------------------------------------------------- parts of all kinds

PARTS = """
import torch
from trainer.api import *
from numbers_of_mine import factor
from pathlib import Path

with Path(__file__).with_name("count").open("a") as file:
    file.write("x")

@register_dataset("mine")
def mine(root):
    images = (torch.arange(60 * 64) * 37 % 251).view(60, 8, 8)
    return OwnImages(images, [0, 1, 2] * 20, images, [0, 1, 2] * 20)

@register_augmentation("shade", numbers=1)
def shade(images, numbers):
    return (images * (factor - numbers[:, :, None, None] / 2)).to(torch.uint8)

@register_optimizer("plain")
class Plain(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, factor * lr)

def net(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))

@register_tracker("follow")
class Follow:
    def __init__(self, config, folder, step): pass
    def log(self, record): pass
    def finish(self, results): pass
"""
KEYS = {
    "data.name": "mine",
    "data.augment": "shade",
    "optimizer.name": "plain",
    "model.name": "net",
    "tracking.plugin": "follow",
}


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, str]:
    write(tmp_path, {"parts.py": PARTS, "numbers_of_mine.py": "factor = 1.0\n"})
    return {key: f"{tmp_path / 'parts.py'}:{word}" for key, word in KEYS.items()}


def words_of(parts: dict[str, str]) -> list[str]:
    pairs = [word for key, name in parts.items() for word in (f"--{key}", name)]
    small = ["--train.batch_size", "20", "--train.epochs", "2", "--data.validation_size", "12"]
    return [*pairs, *small, "--model.args", "{}"]


def test_a_file_with_all_parts_runs_once(tmp_path: Path, parts: dict[str, str]) -> None:
    assert train_here(tmp_path / "run", *words_of(parts)) == 0
    assert (tmp_path / "count").read_text() == "x"


@pytest.mark.parametrize("key", [key for key in KEYS if key != "tracking.plugin"])
def test_a_resume_notices_another_second_file(
    key: str, tmp_path: Path, parts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"data.name": "digits", "data.augment": "none", "optimizer.name": "sgd"}
    words = words_of({**own, "model.name": "quicknet", key: parts[key]})
    words += ["--data.train_size", "60"] if key != "data.name" else []
    assert train_here(tmp_path / "run", *words, "--train.max_seconds", "0.001") == 75
    file = tmp_path / "numbers_of_mine.py"
    file.write_text("factor = 0.9\n")
    capsys.readouterr()
    assert train_here(tmp_path / "run", *words) == 2
    assert f"{key}: the code differs from that" in capsys.readouterr().err
    file.write_text("factor = 1.0\n")
    assert train_here(tmp_path / "run", *words) == 0
    assert Run(tmp_path / "run", 0).json("status.json")["state"] == "finished"


def test_the_second_file_of_a_tracker_may_change(tmp_path: Path, parts: dict[str, str]) -> None:
    """It cannot change the run, though it lies in one folder with the network's file."""
    code = "from torch import nn\ndef net(num_classes):\n"
    code += " return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    write(tmp_path, {"net.py": code})
    words = ["--model.name", f"{tmp_path / 'net.py'}:net", "--model.args", "{}"]
    words += ["--tracking.plugin", parts["tracking.plugin"], "--train.epochs", "2"]
    words += ["--data.train_size", "60", "--data.validation_size", "12"]
    assert train_here(tmp_path / "run", *words, "--train.max_seconds", "0.001") == 75
    (tmp_path / "numbers_of_mine.py").write_text("factor = 0.9\n")
    assert train_here(tmp_path / "run", *words) == 0


def test_one_name_in_two_files(tmp_path: Path) -> None:
    """Each file's own is found, whichever was registered last."""
    code = "from trainer.api import *\n@register_augmentation('same')\ndef same(images, numbers):\n"
    for folder in ("a", "b"):
        write(tmp_path / folder, {"mine.py": f"{code}  return images + {ord(folder)}\n"})
    found = [plugins.find("augmentation", f"{tmp_path}/{f}/mine.py:same") for f in "aba"]
    zero = torch.zeros(1)
    assert [int(one.member(zero, zero)) for one in found] == [97, 98, 97]
