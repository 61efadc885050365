"""Safetensors files that somebody made to do harm: no memory, no error but a message."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from tests.checkpoints import forge, seal
from tests.conftest import REPOSITORY
from trainer.base.errors import UserError
from trainer.checkpoint.reading import open_checkpoint
from trainer.network.starting_weights import load_weights


def header(text: bytes | str, announced: int | None = None, rest: bytes = b"") -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content) if announced is None else announced) + content + rest


def tensor(dtype: str, shape: list[int], begin: int, end: int, rest: int) -> bytes:
    entry = {"weight": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}
    return header(json.dumps(entry), rest=bytes(rest))


CONTENTS = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "an announcement of 2^63 bytes": header("{}", 2**63),
    "an announcement of 2^64 - 1 bytes": header("{}", 2**64 - 1),
    "an announcement of 99 MB": header("{}", 99_000_000),
    "a header cut off": header('{"weight"', 100),
    "a header of no JSON": header(b"\x80\x02}q\x00."),
    "a header that nests": header("[" * 100_000),
    "a list": header("[]"),
    "a shape that overflows": tensor("F32", [2**40, 2**40], 0, 24, 24),
    "a negative shape": tensor("F32", [-1], 0, 24, 24),
    "more values than bytes": tensor("F32", [3, 20], 0, 24, 24),
    "offsets beyond the end": tensor("F32", [3, 2], 0, 2**40, 24),
    "offsets backwards": tensor("F32", [3, 2], 24, 0, 24),
    "a type that there is not": tensor("PICKLE", [3, 2], 0, 24, 24),
    "bytes that belong to nothing": tensor("F32", [3, 2], 0, 24, 48),
    "bytes cut off": tensor("F32", [3, 2], 0, 24, 20),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_malformed_safetensors_file_is_refused(
    sound: Path, tmp_path: Path, content: bytes
) -> None:
    forge(sound, "model.safetensors", content)
    with pytest.raises(UserError, match=r"model\.safetensors: no valid safetensors file"):
        open_checkpoint(sound)
    with pytest.raises(UserError, match=r"model\.weights: .*no valid safetensors file"):
        load_weights(nn.Linear(2, 3), sound / "model.safetensors")


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
            "holds 'x', which nothing",
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
    """As people keep them."""
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
from types import SimpleNamespace
import torch
from torch import nn
from trainer.checkpoint.reading import open_checkpoint
from trainer.base.errors import UserError
from trainer.training import resume_checks
from trainer.network.starting_weights import load_weights

model = nn.Linear(2, 3)
optimizer = SimpleNamespace(optimizer=torch.optim.SGD(model.parameters()), scaler=None)
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**26, resource.RLIM_INFINITY))
try:
    load_weights(model, Path(sys.argv[2]))
except UserError as error:
    print(error)
saved = open_checkpoint(Path(sys.argv[1]))
try:
    specs = {name: saved.specs(name) for name in ("model", "optimizer", "best", "average")}
    resume_checks.check(saved, specs, model, optimizer, False, 1, 15)
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_tensors_that_are_larger_than_the_memory_are_refused_by_their_shape(
    sound: Path, tmp_path: Path
) -> None:
    """Files without content, of 16 GiB and 128 MiB, read with 64 MiB to spare."""
    for path, size in (
        (tmp_path / "huge.safetensors", 2**34),
        (sound / "model.safetensors", 2**27),
    ):
        path.write_bytes(tensor("U8", [size], 0, size, 0))
        os.truncate(path, path.stat().st_size + size)
    seal(sound)
    command = [sys.executable, "-c", BOUNDED, str(sound), str(tmp_path / "huge.safetensors")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "does not fit the model: it lacks 'bias'" in lines[0]
    assert "'weight' is U8 of 17179869184" in lines[0]
    assert "model.safetensors: does not fit this run: lacks 'bias'" in lines[1]
