"""Pictures decoded once: .npy files of their pixels, in a folder that is whole or not there."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.files import sync, write_json
from trainer.data.pictures import decoding
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.sources import npy
from trainer.data.sources.picture_index import in_parallel
from trainer.data.sources.source_data import LabelledImages

Labelled = Sequence[tuple[str, int]]
"""names of files and labels"""

_ABOUT = "about.json"


@dataclass(frozen=True)
class Target:
    """What pictures are made into.

    Args:
        image_size: height and width in pixels.
        channels: 1 or 3.
        grey_range: of those of more than 8 bits a channel, the values that become black and white.
    """

    image_size: tuple[int, int]
    channels: int
    grey_range: GreyRange | None


def is_there(entry: Path) -> bool:
    """Whether the folder holds everything that was written."""
    try:
        sizes: dict[str, int] = _about(entry)["size_bytes"]
        return all((entry / name).stat().st_size == size for name, size in sizes.items())
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        return False


def write(
    entry: Path,
    root: Path,
    parts: Mapping[str, Labelled],
    target: Target,
    check: Callable[[], None],
    alone: bool,
) -> None:
    """Decode the pictures of each part into a new folder, and note those that are broken.

    Where two do it at the same time, one of them wins.

    Args:
        check: called at the end; where it raises, nothing is kept.
        alone: whether the caller keeps others of this machine away, so that what they have begun
            is left over from killed ones.

    Raises:
        OSError: the folder cannot be written.
    """
    if alone:
        for leftover in entry.parent.glob(f".{entry.name}.{platform.node()}.*"):
            shutil.rmtree(leftover)
    temporary = entry.with_name(f".{entry.name}.{platform.node()}.{os.getpid()}")
    temporary.mkdir()
    try:
        bad: dict[str, str] = {}
        for part, labelled in parts.items():
            bad |= _write_part(temporary, part, root, labelled, target)
        check()
        sizes = {path.name: path.stat().st_size for path in temporary.iterdir()}
        about = {"parts": dict(parts), "bad": bad, "size_bytes": sizes}
        write_json(temporary / _ABOUT, about)
        if entry.exists() and not is_there(entry):
            shutil.rmtree(entry)
        try:
            temporary.rename(entry)
            sync(entry.parent)
        except OSError:
            if not is_there(entry):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def bad_pictures(entry: Path) -> list[str]:
    """What is wrong with each picture that could not be decoded."""
    return list(_about(entry)["bad"].values())


def read(entry: Path, part: str, root: Path, limit_bytes: float) -> LabelledImages:
    """The pictures of a part that could be decoded.

    Args:
        limit_bytes: images of more stay in their file.

    Raises:
        UserError: the files were damaged.
    """
    about = _about(entry)
    return LabelledImages(
        images=npy.read_features(entry / f"{part}_features.npy", limit_bytes),
        labels=npy.read_targets(entry / f"{part}_targets.npy"),
        images_file=str(root / part),
        labels_file=str(root / part),
        names=tuple(name for name, _ in about["parts"][part] if name not in about["bad"]),
    )


def _about(entry: Path) -> Any:
    try:
        return json.loads((entry / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{entry}: is damaged ({error}); remove this folder of the cache and start again"
        ) from error


def _write_part(
    folder: Path, part: str, root: Path, labelled: Labelled, target: Target
) -> dict[str, str]:
    """The pixels one after the other, then the labels; returns what is wrong with broken ones."""
    names = [name for name, _ in labelled]
    bad: dict[str, str] = {}
    labels: list[int] = []
    path = folder / f"{part}_features.npy"
    with path.open("wb") as file:
        # NumPy pads a header, so that the first number of a shape can grow in its place.
        _write_header(file, len(names), target)
        begin = file.tell()
        for (name, label), result in zip(
            labelled, _decode(root, names, target, f"decoding {part}"), strict=True
        ):
            if isinstance(result, str):
                bad[name] = result
            else:
                file.write(result.data)
                labels.append(label)
        file.seek(0)
        _write_header(file, len(labels), target)
        assert file.tell() == begin
    sync(path)
    np.save(folder / f"{part}_targets.npy", np.array(labels, dtype=np.int64))
    sync(folder / f"{part}_targets.npy")
    return bad


def _write_header(file: Any, count: int, target: Target) -> None:
    shape = (count, *target.image_size, *([3] if target.channels == 3 else []))
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _decode(
    root: Path, names: Sequence[str], target: Target, what: str
) -> Iterator[npt.NDArray[np.uint8] | str]:
    """Pixels in the order of a .npy file, (height, width, channels), or what is wrong."""

    def decode(name: str) -> npt.NDArray[np.uint8] | str:
        try:
            path = root / name
            pixels = decoding.decode(path, target.channels, target.image_size, target.grey_range)
        except UserError as error:
            return str(error)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    return in_parallel(decode, names, what)
