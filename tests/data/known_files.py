"""Write small files in the formats of published data sets, independently of their readers."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.io

from tests.data.idx_files import idx_bytes
from trainer.data.sources.known_sets.published import KnownSet, PublishedFile


def published_here(known: KnownSet, folder: Path) -> KnownSet:
    """Return the set with the checksums of the files in `folder`, as if they were published."""

    def here(file: PublishedFile) -> PublishedFile:
        path = file.find(folder)
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path else "0" * 64
        return replace(file, checksum=f"sha256:{digest}")

    return replace(
        known,
        files=tuple(here(file) for file in known.files),
        unpacked=tuple(here(file) for file in known.unpacked),
    )


def colour_images(count: int, size: int = 32) -> np.ndarray:
    """Return images (n, height, width, 3) whose first pixel tells their number and its place."""
    images = np.random.default_rng(3).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    images[:, 0, 1] = [[number % 256, 100, 200] for number in range(count)]
    return images


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Write a gzipped archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def cifar_members(folder: str, names: list[str], labels: int, each: int) -> dict[str, bytes]:
    """Return CIFAR's files: `each` images a file; the last label of image n is n % 10."""
    members = {}
    images = colour_images(each * len(names))
    for position, name in enumerate(names):
        records = b""
        for number in range(position * each, (position + 1) * each):
            planes = images[number].transpose(2, 0, 1).tobytes()
            records += bytes([7] * (labels - 1) + [number % 10]) + planes
        members[f"{folder}/{name}"] = records
    return members


def write_cifar10(folder: Path, each: int = 20) -> None:
    """Write CIFAR-10's archive, with six files of `each` images."""
    names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    members = cifar_members("cifar-10-batches-bin", [*names, "test_batch.bin"], 1, each)
    write_tar(folder / "cifar-10-binary.tar.gz", members)


def write_svhn(folder: Path, count: int = 30) -> None:
    """Write SVHN's files; the label of image n is n % 10 + 1, 10 for the digit 0."""
    for name in ("train", "test"):
        scipy.io.savemat(
            folder / f"{name}_32x32.mat",
            {
                "X": colour_images(count).transpose(1, 2, 3, 0),
                "y": (np.arange(count) % 10 + 1).astype(np.uint8)[:, None],
            },
            do_compression=True,
        )


def write_emnist(folder: Path, variant: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write EMNIST's archive with one of its sets, the same images in both parts."""
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for part in ("train", "test"):
            start = f"gzip/emnist-{variant}-{part}"
            content = {"images-idx3": images.transpose(0, 2, 1), "labels-idx1": labels}
            for kind, values in content.items():
                archive.writestr(f"{start}-{kind}-ubyte.gz", gzip.compress(idx_bytes(values)))


def write_qmnist(folder: Path, images: np.ndarray, digits: np.ndarray) -> None:
    """Write QMNIST's files, with eight numbers for each image."""
    rows = np.stack([digits, *[np.full(len(digits), 30_000 + k) for k in range(7)]], axis=1)
    start = bytes([0, 0, 0x0C, 2]) + b"".join(size.to_bytes(4, "big") for size in rows.shape)
    for part in ("train", "test"):
        packed = gzip.compress(idx_bytes(images))
        (folder / f"qmnist-{part}-images-idx3-ubyte.gz").write_bytes(packed)
        packed = gzip.compress(start + rows.astype(">i4").tobytes())
        (folder / f"qmnist-{part}-labels-idx2-int.gz").write_bytes(packed)


def write_medmnist(folder: Path, name: str, images: np.ndarray) -> None:
    """Write a set of MedMNIST: the images for training, the first four and two for the rest."""
    arrays = {}
    for part, count in (("train", len(images)), ("val", 4), ("test", 2)):
        arrays[f"{part}_images"] = images[:count]
        arrays[f"{part}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(folder / f"{name}.npz", **arrays)
