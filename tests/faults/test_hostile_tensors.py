"""Safetensors files from somebody else run no code, and what does not fit is one message."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from tests.checkpoints import forge
from tests.conftest import REPOSITORY
from tests.weights import load_weights
from trainer.base.errors import UserError
from trainer.checkpoint.reading import open_checkpoint


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
        ({}, "lacks 'weight' and 1 more"),
        ({"weight": torch.ones(3, 2)}, "lacks 'bias'"),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(3)},
            "'weight' is 2 x 3, where 3 x 2 is expected",
        ),
        (
            {"weight": torch.ones(3, 2).char(), "bias": torch.ones(3)},
            "it has weight as I8, where F32 is expected",
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
from tests.weights import load_weights

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
    """A file without content of 256 MiB, read with 64 MiB to spare."""
    path, size = tmp_path / "huge.safetensors", 2**28
    path.write_bytes(tensor("U8", [size], size, 0))
    os.truncate(path, path.stat().st_size + size)
    command = [sys.executable, "-c", BOUNDED, str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not fit the model: 'weight' is 268435456, where 3 x 2 is expected" in done.stdout
