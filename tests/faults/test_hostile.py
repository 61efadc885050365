"""Files from somebody else: they run no code, and what does not fit is one message."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from tests.checkpoints import forge, forge_state, seal
from tests.commands.command import run_command
from tests.conftest import REPOSITORY
from tests.runs import Run, contents, train_here
from trainer.base.errors import FormatVersionError, UserError
from trainer.checkpoint.reading import FORMAT_VERSION, OLDEST_FORMAT_VERSION, open_checkpoint
from trainer.config import stored_config
from trainer.network.starting_weights import load_weights

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]

Change = Callable[[dict[str, Any]], Any]

# ------------------------------------------------------------------ files of weights


def header(text: bytes | str, announced: int | None = None, rest: bytes = b"") -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content) if announced is None else announced) + content + rest


def tensor(dtype: str, shape: list[int], end: int, rest: int) -> bytes:
    entry = {"weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}
    return header(json.dumps(entry), rest=bytes(rest))


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


CONTENTS = {
    "nothing": b"",
    "an announcement of 2^63 bytes": header("{}", 2**63),
    "a header cut off": header('{"weight"', 100),
    "a header that nests": header("[" * 100_000),
    "a shape that overflows": tensor("F32", [2**40, 2**40], 24, 24),
    "offsets beyond the end": tensor("F32", [3, 2], 2**40, 24),
    "an unknown type": tensor("PICKLE", [3, 2], 24, 24),
    "bytes cut off": tensor("F32", [3, 2], 24, 20),
    "a pickle": pickle.dumps(Bomb(Path("executed"))),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_malformed_safetensors_file_is_refused(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    forge(sound, "model.safetensors", content)
    with pytest.raises(UserError, match=r"model\.safetensors: not a valid safetensors file"):
        open_checkpoint(sound)
    with pytest.raises(UserError, match=r"model\.weights: .*model\.safetensors"):
        load_weights(nn.Linear(2, 3), sound / "model.safetensors")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("tensors", "difference"),
    [
        ({}, "lacks 'bias', 'weight'"),
        ({"weight": torch.ones(3, 2)}, "lacks 'bias'"),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(3)},
            "'weight' is F32 of 2 x 3, where F32",
        ),
        (
            {"weight": torch.ones(3, 2), "bias": torch.ones(3), "x": torch.ones(1)},
            "has 'x', which nothing",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_difference(
    tmp_path: Path, tensors: dict[str, torch.Tensor], difference: str
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(tensors))
    with pytest.raises(UserError, match=rf"model\.weights: .*does not fit .*{difference}"):
        load_weights(nn.Linear(2, 3), path)


def test_weights_of_half_precision_behind_a_link_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save({"weight": torch.full((3, 2), 0.5).half(), "bias": torch.ones(3).half()}))
    (tmp_path / "link").symlink_to(path)
    model = nn.Linear(2, 3)
    load_weights(model, tmp_path / "link")
    assert model.weight.dtype == torch.float32
    assert model.weight.eq(0.5).all()


BOUNDED = """
import resource, sys
from pathlib import Path
from torch import nn
from trainer.base.errors import UserError
from trainer.network.starting_weights import load_weights

with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**26, resource.RLIM_INFINITY))
try:
    load_weights(nn.Linear(2, 3), Path(sys.argv[1]))
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_weights_that_are_larger_than_the_memory_are_refused_by_their_shape(tmp_path: Path) -> None:
    """A file without content of 16 GiB, read with 64 MiB to spare."""
    path, size = tmp_path / "huge.safetensors", 2**34
    path.write_bytes(tensor("U8", [size], size, 0))
    os.truncate(path, path.stat().st_size + size)
    command = [sys.executable, "-c", BOUNDED, str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not fit the model: it lacks 'bias'" in done.stdout
    assert "'weight' is U8 of 17179869184" in done.stdout


# ------------------------------------------------------------------ checkpoints


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train_here(folder, *SHORT) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run with both epochs done and no results yet."""
    shutil.copytree(trained, tmp_path / "run")
    for name in ("status.json", "results.json"):
        (tmp_path / "run" / name).unlink()
    return tmp_path / "run"


@pytest.fixture
def refused(run: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Start the run again, which must end in one message and leave its checkpoints as they are."""

    def check(*more: str) -> str:
        before = contents(run / "checkpoints")
        capfd.readouterr()
        assert train_here(run, *SHORT, *more) == 2
        message = capfd.readouterr().err
        assert "Traceback" not in message
        assert contents(run / "checkpoints") == before
        return message

    return check


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


# ------------------------------------------------------------------ configurations


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that could be imported, and leaves a file where it is."""
    target = tmp_path / "executed"
    (tmp_path / "hostile_module.py").write_text(f"""
from pathlib import Path
Path({str(target)!r}).touch()
class Thing: ...
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return target


CONFIGURATIONS = {
    "a class by its name": "data: hostile_module.Thing\n",
    "a class as a section": "data: {class_path: hostile_module.Thing}\n",
    "a class in the arguments": "model: {args: 3, class_path: hostile_module.Thing}\n",
    "another file": "data: ../data.yaml\n",
    "a tag of Python": "seed: !!python/object/apply:os.system ['touch executed']\n",
    "an unknown key": "sneed: 3\n",
    "a list": "[1, 2]\n",
    "text": "seed\n",
    "a wrong type": "seed: text\n",
    "a value out of range": "seed: -3\n",
    "a key that is not text": "{[1]: 2}\n",
    "not a date": "seed: 2001-99-99\n",
    "nested deeply": "[" * 2**17,
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_is_plain_values_or_refused(
    tmp_path: Path, canary: Path, text: str | bytes
) -> None:
    (tmp_path.parent / "data.yaml").write_text("name: digits\n")
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        stored_config.read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert not canary.exists()


def test_a_plug_in_that_the_folder_names_is_not_run(
    run: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).touch()\n")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: quicknet", f"name: {plugin}:Net"))
    assert "a run of another configuration" in refused()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b'{"event": "other"}\n'),
        ("metrics.jsonl", b'{"event": "step", "epoch": "x", "step": []}\n'),
        ("results.json", b'{"environment": 3}'),
        ("results.json", b"[" * 100_000),
        ("config.yaml", b"data: hostile_module.Thing\n"),
    ],
)
def test_comparing_with_a_damaged_run_is_one_message(
    trained: Path,
    run: Path,
    canary: Path,
    name: str,
    content: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run / "results.json").write_text(json.dumps({"final_weights_sha256": "another"}))
    (run / name).write_bytes(content)
    exit_code, _, message = run_command(capsys, "compare", trained, run)
    assert exit_code == 2
    assert message.startswith(f"{run / name}: ")
    assert "Traceback" not in message
    assert not canary.exists()
