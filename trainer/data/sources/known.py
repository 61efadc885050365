"""Find, download and verify the published files of Fashion-MNIST and MNIST."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.locks import lock_file
from trainer.data.sources import idx
from trainer.data.sources.download import DownloadError, cache_folder, download
from trainer.data.sources.source_data import LabelledImages, SourceData


@dataclass(frozen=True)
class KnownSet:
    """A published data set of four IDX files.

    Args:
        md5: of the published .gz files, in the order of `idx.NAMES`.
        sha256: of the unpacked files, in the same order; Debian's package gzips them again.
        mirrors: addresses that end in a slash, in the order in which they are tried.
        package: the Debian package that has the files; None if there is none.
        package_folder: where that package puts them.
    """

    name: str
    class_names: tuple[str, ...]
    md5: tuple[str, str, str, str]
    sha256: tuple[str, str, str, str]
    mirrors: tuple[str, ...]
    package: str | None = None
    package_folder: Path | None = None


@dataclass(frozen=True)
class Location:
    """A folder that may have the files of a known set.

    Args:
        origin: its name in messages.
    """

    folder: Path
    origin: str
    is_cache: bool = False


# Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017. MD5 as in the publisher's README; SHA-256 computed
# from those files.
FASHION_MNIST = KnownSet(
    name="fashion_mnist",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    md5=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    sha256=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    package="dataset-fashion-mnist",
    package_folder=Path("/usr/share/datasets/fashion-mnist"),
)

# LeCun, Cortes, Burges: The MNIST database. MD5 as in torchvision's list; SHA-256 as many
# independent projects publish it.
MNIST = KnownSet(
    name="mnist",
    class_names=tuple("0123456789"),
    md5=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    sha256=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)

KNOWN = {known.name: known for known in (FASHION_MNIST, MNIST)}


def prepare(known: KnownSet, root: str | None) -> None:
    """Download the files into the cache, unless they are on this machine.

    Processes that start at the same time wait for the one that downloads.

    Raises:
        UserError: says where the files were looked for and what to do.
    """
    if not lacks_files(known, root):
        return
    cache = cache_folder(known.name)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        without = "processes that start together download the same files, each for itself"
        with lock_file(cache / ".lock", f"downloads {known.name}", without) as is_exclusive:
            if is_exclusive:
                for leftover in cache.glob("tmp*"):  # of a download that was killed
                    leftover.unlink()
            names = _lacking(known, cache)
            md5 = dict(zip(idx.NAMES, known.md5, strict=True))
            download({f"{name}.gz": f"md5:{md5[name]}" for name in names}, known.mirrors, cache)
            for name in names:  # a damaged unpacked file would be found before the new one
                (cache / name).unlink(missing_ok=True)
    except DownloadError as error:
        raise UserError(f"{describe_missing(known)}\nNo mirror helped:\n{error}") from error
    except OSError as error:
        message = f"{describe_missing(known)}\nThe cache cannot be written: {error}"
        raise UserError(message) from error


def lacks_files(known: KnownSet, root: str | None) -> bool:
    """Return whether this machine has no undamaged set, so that `prepare` asks the mirrors.

    Raises:
        UserError: as `find`.
    """
    location = find(known, root)
    return location is None or (location.is_cache and bool(_lacking(known, location.folder)))


def read(known: KnownSet, root: str | None) -> SourceData:
    """Read the data set from the first location that has it, and verify every byte.

    Raises:
        UserError: no location has it, or a file is not what its name says.
    """
    location = find(known, root)
    if location is None:
        raise UserError(describe_missing(known))
    paths = idx.locate(location.folder, location.origin)
    train, test = idx.read_split(paths, idx.TRAIN), idx.read_split(paths, idx.TEST)
    for split in (train, test):
        _verify(known, split)
    return SourceData(train, test, known.class_names, location.origin)


def find(known: KnownSet, root: str | None) -> Location | None:
    """Return the first location that has the four files.

    Raises:
        UserError: `root` lacks some of the files, or another folder but the cache has only some.
    """
    if root is not None:
        folder = Path(root).expanduser()
        idx.locate(folder, "data.root")
        return Location(folder, f"data.root {folder}")
    for location in _locations(known):
        absent = idx.missing(location.folder)
        if not absent:
            return location
        if len(absent) < len(idx.NAMES) and not location.is_cache:
            idx.locate(location.folder, location.origin)
    return None


def _locations(known: KnownSet) -> Iterator[Location]:
    """Yield the locations in the order in which they are searched."""
    if data := os.environ.get("LOCKSTEP_DATA"):
        for name in dict.fromkeys((known.name, known.name.replace("_", "-"))):
            folder = Path(data).expanduser() / name
            yield Location(folder, f"$LOCKSTEP_DATA/{name} in {data}")
    if known.package_folder is not None:
        origin = f"Debian package {known.package} in {known.package_folder}"
        yield Location(known.package_folder, origin)
    cache = cache_folder(known.name)  # last: it takes the import of pooch
    yield Location(cache, f"cache {cache}", is_cache=True)


def describe_missing(known: KnownSet) -> str:
    """Say where the files were looked for, and what to do about it."""
    lines = [f"data.name: the files of {known.name} were not found, or are damaged. Looked in:"]
    if not os.environ.get("LOCKSTEP_DATA"):
        lines.append("- $LOCKSTEP_DATA (not set)")
    lines += [f"- {location.folder}" for location in _locations(known)]
    lines.append(
        f"Set data.root to a folder with {', '.join(idx.NAMES)} (each with or without .gz), or "
        f"LOCKSTEP_DATA to a folder that has them in {known.name}"
        + (f", or: apt-get install {known.package}" if known.package else "")
    )
    return "\n".join(lines)


def _lacking(known: KnownSet, folder: Path) -> list[str]:
    """Return the names whose file is missing or is not the published one."""
    return [name for name in idx.NAMES if not _is_published(known, folder, name)]


def _is_published(known: KnownSet, folder: Path, name: str) -> bool:
    import pooch

    path = idx.find(folder, name)
    if path is None:
        return False
    position = idx.NAMES.index(name)
    if pooch.file_hash(str(path), alg="md5") == known.md5[position]:
        return True
    try:
        values = idx.read(path, dimensions=3 if "images" in name else 1)
    except UserError:
        return False
    return _sha256(values) == known.sha256[position]


def _verify(known: KnownSet, split: LabelledImages) -> None:
    assert isinstance(split.images, np.ndarray)  # no limit was given
    for path, values in (
        (split.images_file, split.images[:, 0]),
        (split.labels_file, split.labels),
    ):
        name = Path(path).name.removesuffix(".gz")
        expected = known.sha256[idx.NAMES.index(name)]
        found = _sha256(values.astype(np.uint8, copy=False))
        if found != expected:
            raise UserError(
                f"{path}: {_identify(found)}, not {name} of {known.name} (SHA-256 of the unpacked "
                f"file {found}, published {expected}); get the published file, or set data.name to "
                "idx for your own files"
            )


def _identify(sha256: str) -> str:
    """Say which file it really is."""
    for known in KNOWN.values():
        if sha256 in known.sha256:
            return f"this is {idx.NAMES[known.sha256.index(sha256)]} of {known.name}"
    return "this is an unknown or altered file"


def _sha256(values: npt.NDArray[np.uint8]) -> str:
    """Return the SHA-256 of the unpacked IDX file with these values."""
    digest = hashlib.sha256(idx.header(values.shape))
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
