"""Creating networks: names, arguments, plug-ins, and the messages where they are wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import models
from trainer.base.errors import UserError
from trainer.config import plugins
from trainer.network import creation

GOOD = """
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_channels, image_size, hidden, slope=0.1):
        super().__init__()
        height, width = image_size
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * height * width, hidden),
            nn.LeakyReLU(slope),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, images):
        return self.layers(images)
"""


def create(name: str, arguments: dict[str, Any] | None = None) -> nn.Module:
    return creation.create(
        name, arguments or {}, num_classes=10, in_channels=1, image_size=(28, 28)
    )


def message(name: str, arguments: dict[str, Any] | None = None) -> str:
    with pytest.raises((ValueError, UserError)) as caught:
        create(name, arguments)
    return str(caught.value)


def write(folder: Path, code: str) -> str:
    file = folder / "net.py"
    file.write_text(code)
    return f"{file}:Net"


def body(code: str) -> str:
    """A network whose constructor runs `code`, which begins in line 4 of its file."""
    return f"from torch import nn\nclass Net(nn.Module):\n def __init__(self):\n  {code}\n"


def test_unknown_name_lists_the_registered_ones() -> None:
    text = message("quicknett")
    assert "'quicknett'; did you mean quicknet?" in text
    for name in models.names():
        assert name in text
    assert "path/to/file.py:ClassName" in text and "timm:NAME" in text


@pytest.mark.parametrize("name", ["", "qqqqqq", "tim:ghostnet_100"])
def test_unknown_name_with_nothing_close(name: str) -> None:
    text = message(name)
    assert f"no model is called {name!r}. Registered are airbench, alexnet_small," in text


def test_unknown_argument() -> None:
    assert message("wide_resnet", {"dropuot": 0.1}) == (
        "wide_resnet has no argument 'dropuot'; did you mean dropout or drop_path? "
        "It takes depth, widen_factor, dropout, drop_path, squeeze_excitation."
    )
    assert message("lab_cnn", {"x": 1}) == "lab_cnn has no argument 'x'. It takes none."


@pytest.mark.parametrize("key", ["num_classes", "in_channels", "image_size"])
def test_what_the_data_determine_is_no_argument(key: str) -> None:
    text = message("quicknet", {key: 3})
    assert f"quicknet gets {key} from the data" in text


def test_a_registered_network_is_known() -> None:
    @plugins.register_model("zz_test_only")
    class Flat(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.linear = nn.Linear(4, num_classes)

    try:
        assert isinstance(create("zz_test_only"), Flat)
    finally:
        plugins._registered.pop()
    with pytest.raises(ValueError, match="choose another name"):
        plugins.register_model("lab_cnn")


def test_plugin(tmp_path: Path) -> None:
    network = create(write(tmp_path, GOOD), {"hidden": 5})
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) == 784 * 5 + 5 + 5 * 10 + 10


def test_plugin_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    models.check_output(
        create("net.py:Net", {"hidden": 5}), num_classes=10, in_channels=1, image_size=(28, 28)
    )


def test_plugin_is_given_only_what_its_signature_takes(tmp_path: Path) -> None:
    signatures = {
        "self, num_classes": ["num_classes"],
        "self, *, image_size, x=1": ["image_size"],
        "self, **others": ["image_size", "in_channels", "num_classes"],
        "self, num_classes, /": None,
    }
    for index, (signature, given) in enumerate(signatures.items()):
        file = tmp_path / f"net{index}.py"
        file.write_text(
            "from torch import nn\n"
            "class Net(nn.Module):\n"
            f" def __init__({signature}):\n"
            "  given = dict(locals())\n"
            "  super().__init__()\n"
            "  given |= given.pop('others', {})\n"
            "  self.given = sorted(k for k in given if k not in ('self', '__class__', 'x'))\n"
        )
        if given is None:
            assert "cannot be built: TypeError" in message(f"{file}:Net")
        else:
            assert create(f"{file}:Net").given == given


def test_plugin_without_a_constructor(tmp_path: Path) -> None:
    name = write(tmp_path, "from torch import nn\nclass Net(nn.Module):\n x = 1\n")
    assert isinstance(create(name), nn.Module)
    assert "It takes none." in message(name, {"hidden": 5})


def test_plugins_of_one_file_name_stay_apart(tmp_path: Path) -> None:
    networks = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        name = write(tmp_path / folder, GOOD + f"    folder = {folder!r}\n")
        networks.append(create(name, {"hidden": 2}))
    assert [network.folder for network in networks] == ["a", "b"]
    assert "net" not in sys.modules
    assert type(networks[0]).__module__ != type(networks[1]).__module__


def test_plugin_file_is_missing(tmp_path: Path) -> None:
    assert message(f"{tmp_path}/none.py:Net").endswith(f"there is no file {tmp_path}/none.py")


def test_plugin_names_no_class(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert message(f"{tmp_path}/net.py").endswith(f"write {tmp_path}/net.py:name")


def test_plugin_class_is_missing(tmp_path: Path) -> None:
    name = write(tmp_path, GOOD)
    text = message(f"{name}t")
    assert "has no network 'Nett'; did you mean Net? it defines Net" in text
    nothing = message(write(tmp_path, "from torch.nn import ReLU\nNet = 3"))
    assert nothing.endswith("has no network 'Net'; it defines no function or class")


def test_plugin_class_is_not_a_module(tmp_path: Path) -> None:
    text = message(write(tmp_path, "class Net: pass"))
    assert text.endswith("Net is not a subclass of torch.nn.Module.")


def test_plugin_function(tmp_path: Path) -> None:
    code = GOOD + "\ndef build(num_classes, image_size, width=3, in_channels=1):\n"
    code += "    return Net(num_classes, in_channels, image_size, width)\n"
    name = f"{write(tmp_path, code).removesuffix('Net')}build"
    assert create(name).layers[1].out_features == 3
    assert create(name, {"width": 5}).layers[1].out_features == 5
    assert "has no argument 'hidden'. It takes width." in message(name, {"hidden": 5})
    text = message(write(tmp_path, "def Net(): pass"))
    assert text.endswith("net.py:Net returns a NoneType, where a torch.nn.Module must be.")
    text = message(write(tmp_path, "from torch import nn\nNet = nn.Linear(64, 10)"))
    assert "Net is a network already" in text


def test_a_plugin_that_ends_the_process(tmp_path: Path) -> None:
    assert "does not run: SystemExit: 3 (net.py, line 1)" in message(write(tmp_path, "exit(3)"))
    assert "cannot be built: SystemExit" in message(write(tmp_path, body("raise SystemExit(3)")))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import torch\nclass Net(:\n", "SyntaxError"),
        ("\n\n1 / 0\n", "ZeroDivisionError: division by zero (net.py, line 3)"),
        ("import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing'"),
    ],
)
def test_plugin_file_does_not_run(tmp_path: Path, code: str, found: str) -> None:
    before = set(sys.modules)
    text = message(write(tmp_path, code))
    assert "net.py:Net does not run: " in text and found in text
    assert not {name for name in set(sys.modules) - before if "plugin" in name}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("nn.Linear(3)", "cannot be built: TypeError: "),
        ("self.layer = nn.ReLU()", "cannot be built: AttributeError: "),
        ("1 / 0", "cannot be built: ZeroDivisionError: division by zero (net.py, line 4)"),
        ("raise ValueError('size must be even')", "net.py:Net: size must be even"),
    ],
)
def test_plugin_constructor_fails(tmp_path: Path, code: str, found: str) -> None:
    assert found in message(write(tmp_path, body(code)))


def test_plugin_arguments(tmp_path: Path) -> None:
    name = write(tmp_path, GOOD)
    assert message(name).endswith("net.py:Net needs a value for hidden.")
    text = message(name, {"hiden": 5})
    assert "has no argument 'hiden'; did you mean hidden? It takes hidden, slope." in text
