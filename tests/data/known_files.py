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
from PIL import Image

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


def jpeg(number: int) -> bytes:
    """Return a photograph of one colour, 24 pixels wide and 16 high, whose red is `number`."""
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (number, 100, 200)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def write_imagenette(folder: Path, each: int = 3) -> None:
    """Write Imagenette's small archive, with `each` pictures of every class in both parts."""
    classes = [
        *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
        *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
    ]
    members = {"imagenette2-160/noisy_imagenette.csv": b"path,label\n"}
    for part in ("train", "val"):
        for label, name in enumerate(classes):
            for number in range(each):
                file = f"imagenette2-160/{part}/{name}/{name}_{number}.JPEG"
                members[file] = jpeg(25 * label + 5 * number)
    write_tar(folder / "imagenette2-160.tgz", members)


def write_eurosat(folder: Path, each: int = 5) -> None:
    """Write EuroSAT's archive."""
    classes = [
        *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture"),
        *("PermanentCrop", "Residential", "River", "SeaLake"),
    ]
    with zipfile.ZipFile(folder / "EuroSAT.zip", "w") as archive:
        for label, name in enumerate(classes):
            for number in range(1, each + 1):
                picture = jpeg(25 * label + 5 * number)
                archive.writestr(f"2750/{name}/{name}_{number}.jpg", picture)


def write_flowers(folder: Path) -> None:
    """Write the files of Flowers: pictures 1 to 9, the first of class 3, the others of 1 and 2."""
    labels = np.array([[3, 1, 2, 1, 2, 1, 2, 1, 2]], dtype=np.uint8)
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels})
    parts = {"trnid": [[6, 7, 1]], "valid": [[8, 9]], "tstid": [[2, 3, 4, 5]]}
    scipy.io.savemat(folder / "setid.mat", {k: np.array(v, np.uint16) for k, v in parts.items()})
    members = {f"jpg/image_{number:05}.jpg": jpeg(10 * number) for number in range(1, 10)}
    write_tar(folder / "102flowers.tgz", members)


def write_pets(folder: Path) -> None:
    """Write the files of Pets, with three of its breeds."""
    breeds = {"Abyssinian": 1, "great_pyrenees": 16, "pug": 26}
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    pictures = {}
    for breed, label in breeds.items():
        for number in range(1, 5):
            pictures[f"images/{breed}_{number}.jpg"] = jpeg(label + 50 * number)
            part = "test" if number == 4 else "trainval"
            lists[part].append(f"{breed}_{number} {label} 1 1")
    write_tar(folder / "images.tar.gz", pictures | {"images/pug_1.mat": b"not a picture"})
    members = {f"annotations/{part}.txt": lines for part, lines in lists.items()}
    write_tar(
        folder / "annotations.tar.gz",
        {name: ("\n".join(lines) + "\n").encode() for name, lines in members.items()},
    )


def write_food(folder: Path) -> None:
    """Write Food-101's archive, with two of its classes in an order that is not the alphabet's."""
    classes = ["cheesecake", "cheese_plate"]
    lists: dict[str, list[str]] = {"train": [], "test": [], "classes": classes}
    members = {}
    for label, name in enumerate(classes):
        for number in range(4):
            members[f"food-101/images/{name}/{number}.jpg"] = jpeg(100 * label + 10 * number)
            lists["test" if number == 2 else "train"].append(f"{name}/{number}")
    for name, lines in lists.items():
        members[f"food-101/meta/{name}.txt"] = "\n".join(lines).encode()
    write_tar(folder / "food-101.tar.gz", members)
