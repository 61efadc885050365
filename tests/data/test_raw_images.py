"""Images that stay in their file: the same pixels, little memory, and clear errors."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY
from tests.data.idx_files import idx_bytes, write_idx_folder
from tests.runs import Run, check_same, train_here
from trainer.base.errors import RankError, UserError
from trainer.config.schema import DataConfig
from trainer.data.dataset import Dataset
from trainer.data.loading import load
from trainer.data.sources import digits


def write_npy(folder: Path, *shape: int, train: int = 600, test: int = 40) -> DataConfig:
    random = np.random.default_rng(1)
    for part, count in (("train", train), ("test", test)):
        values = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        np.save(folder / f"my_{part}_features.npy", values)
        np.save(folder / f"my_{part}_targets.npy", np.arange(count) % 4)
    return DataConfig(name="npy", root=str(folder))


def both(config: DataConfig) -> tuple[Dataset, Dataset]:
    """Load the set into memory, and with its images left on the disk."""
    return load(config, 3), load(replace(config, memory_limit_mb=0), 3)


def check_equal(resident: Dataset, on_disk: Dataset) -> None:
    assert on_disk.fingerprint == resident.fingerprint
    assert torch.equal(on_disk.scaling.mean, resident.scaling.mean)
    assert torch.equal(on_disk.scaling.deviation, resident.scaling.deviation)
    for name in ("train", "validation", "test"):
        expected, found = getattr(resident, name), getattr(on_disk, name)
        assert isinstance(expected.images, torch.Tensor)
        assert not isinstance(found.images, torch.Tensor)
        assert found.images.shape == expected.images.shape
        assert torch.equal(found.targets, expected.targets)
        order = torch.randperm(len(expected), generator=torch.Generator().manual_seed(2))
        for indices in (order, order[:0], torch.tensor([0, 1, 2, 1, 5, 5])):
            for ours, theirs in zip(found.fetch(indices), expected.fetch(indices), strict=True):
                assert torch.equal(ours, theirs)
                assert ours.stride() == theirs.stride() or len(ours) == 0


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3), (1, 1, 3)])
def test_npy_files_on_the_disk_are_the_same_set(tmp_path: Path, shape: tuple[int, ...]) -> None:
    check_equal(*both(write_npy(tmp_path, *shape)))


def test_idx_files_on_the_disk_are_the_same_set(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    check_equal(*both(DataConfig(name="idx", root=str(tmp_path), validation_size=8)))


def test_a_part_of_the_images_in_use_is_the_same_set(tmp_path: Path) -> None:
    config = replace(write_npy(tmp_path, 5, 6), train_size=123, test_size=17)
    check_equal(*both(config))


def test_the_limit_holds_for_each_file(tmp_path: Path) -> None:
    config = write_npy(tmp_path, 100, 100, train=101, test=100)  # 1.01 and 1.00 MB
    data = load(replace(config, memory_limit_mb=1), 3)
    assert not isinstance(data.train.images, torch.Tensor)
    assert isinstance(data.test.images, torch.Tensor)


def test_images_stay_in_their_file_on_any_device(tmp_path: Path) -> None:
    data = load(replace(write_npy(tmp_path, 5, 6), memory_limit_mb=0), 3)
    moved = data.to("meta")
    images, targets = moved.train.fetch(torch.tensor([4, 2]))
    assert images.device.type == targets.device.type == "cpu"
    assert moved.scaling.mean.device.type == "meta"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((90, 4, 5), dtype=np.float32), "have the type float32; save them as uint8"),
        (np.zeros((90, 4, 5), dtype=np.uint8, order="F"), "Fortran order; save them in C order"),
    ],
)
def test_a_file_that_cannot_stay_on_the_disk_is_refused(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    config = write_npy(tmp_path, 4, 5, train=90)
    np.save(tmp_path / "my_train_features.npy", values)
    load(config, 3)
    with pytest.raises(UserError, match=rf"my_train_features\.npy: .*memory_limit_mb.*{message}"):
        load(replace(config, memory_limit_mb=0), 3)


def test_a_gzipped_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    write_idx_folder(tmp_path, packed=True)
    config = DataConfig(name="idx", root=str(tmp_path), validation_size=8, memory_limit_mb=0)
    with pytest.raises(UserError, match=r"ubyte\.gz: .*memory_limit_mb.*gzipped; unpack"):
        load(config, 3)


@pytest.mark.parametrize("change", [b"more", None])
def test_an_idx_file_of_another_length_is_refused(tmp_path: Path, change: bytes | None) -> None:
    arrays = write_idx_folder(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    content = idx_bytes(arrays[path.name])
    path.write_bytes(content + change if change else content[:-1])
    config = DataConfig(name="idx", root=str(tmp_path), memory_limit_mb=0)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte: \d+ bytes long, but .*announ"):
        load(config, 3)


def cut_off(path: Path) -> None:
    os.truncate(path, 5000)


def overwrite(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:200] + b"other" + content[205:])
    os.utime(path, (1, 1))  # a test is faster than a clock of files


def overwrite_and_restore_the_time(path: Path) -> None:
    status = path.stat()
    inverted = np.load(path) ^ 1
    with path.open("r+b") as file:
        np.save(file, inverted)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("spoil", [cut_off, overwrite, overwrite_and_restore_the_time])
def test_a_file_that_changes_during_the_run_is_named(tmp_path: Path, spoil: Any) -> None:
    data = load(replace(write_npy(tmp_path, 5, 6), memory_limit_mb=0), 3)
    spoil(tmp_path / "my_train_features.npy")
    with pytest.raises(RankError, match=r"my_train_features\.npy: was changed .*at first 18128"):
        data.train.fetch(torch.tensor([500, 1]))
    data.test.fetch(torch.tensor([7]))


def test_a_file_that_gets_another_name_is_still_read(tmp_path: Path) -> None:
    data = load(replace(write_npy(tmp_path, 5, 6), memory_limit_mb=0), 3)
    before = data.train.images[:]
    (tmp_path / "my_train_features.npy").rename(tmp_path / "other.npy")
    assert torch.equal(data.train.images[:], before)


def test_a_read_that_comes_back_short_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A read of more than 2 GiB comes back short, and any on a network may.
    whole, on_disk = both(write_npy(tmp_path, 5, 6))
    at_once = os.preadv

    def short(descriptor: int, buffers: list[memoryview], place: int) -> int:
        return at_once(descriptor, [buffers[0][:1000]], place)

    monkeypatch.setattr(os, "preadv", short)
    assert torch.equal(on_disk.train.images[:], whole.train.images[:])


EPOCH = """
import sys, torch
from pathlib import Path
from trainer.data.batches import Batches
from trainer.config.schema import DataConfig, RunConfig, TrainConfig
from trainer.data.loading import load

def memory_mb(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1000

torch.set_num_threads(1)
before = memory_mb("VmRSS")
data = DataConfig("npy", sys.argv[1], memory_limit_mb=10, validation="first")
config = RunConfig(data=data, train=TrainConfig(batch_size=500, microbatches=1))
batches = Batches(load(data, 0), config, torch.device("cpu"), 1, 0)
print(sum(len(batch.images) for batch in batches.iter_epoch(1, 0)), memory_mb("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_bounded_over_an_epoch(tmp_path: Path) -> None:
    for part, count in (("train", 200_000), ("test", 100)):
        path = tmp_path / f"my_{part}_features.npy"
        np.lib.format.open_memmap(path, "w+", np.uint8, (count, 28, 28))  # a sparse file
        np.save(tmp_path / f"my_{part}_targets.npy", np.arange(count) % 10)
    output = subprocess.check_output(
        [sys.executable, "-c", EPOCH, str(tmp_path)], cwd=REPOSITORY, text=True
    )
    images, peak_mb = map(float, output.split())
    assert images == 180_000
    assert peak_mb < 100  # of 157


@pytest.mark.usefixtures("report")
def test_a_run_has_the_same_bits_whether_its_images_are_in_memory_or_on_the_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = digits.read()
    for part, content in (("train", source.train), ("test", source.test)):
        np.save(tmp_path / f"digits_{part}_features.npy", np.asarray(content.images)[:, 0])
        np.save(tmp_path / f"digits_{part}_targets.npy", content.labels)
    words = ["--data.name", "npy", "--data.root", str(tmp_path), "--train.epochs", "2"]
    for limit in ("1000", "0"):
        assert train_here(tmp_path / limit, *words, "--data.memory_limit_mb", limit) == 0
    in_memory, on_disk = Run(tmp_path / "1000", 0), Run(tmp_path / "0", 0)
    check_same(on_disk, in_memory)
    for part in ("data", "test"):
        assert on_disk.json("results.json")[part] == in_memory.json("results.json")[part]
    for picture in ("mistakes.png", "confusion.png"):
        assert (on_disk.folder / picture).read_bytes() == (in_memory.folder / picture).read_bytes()
    assert (on_disk.folder / "report.html").exists()
    assert train_here(on_disk.folder, *words) == 0
    assert "nothing is left to do" in capsys.readouterr().out
