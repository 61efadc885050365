"""Keep decoded pictures: a plan and .npy files of pixels, in a folder that is whole or absent."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.files import sync, write_json
from trainer.data.pictures import decoding
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.parallel import in_parallel
from trainer.data.sources import npy
from trainer.data.sources.picture_plan import LabelledFiles, PictureList, Plan, Target
from trainer.data.sources.source_data import LabelledImages

_PLAN = "plan.json"


@dataclass(frozen=True)
class DecodedPictures:
    """Pictures that are in the cache.

    Args:
        entry: their folder in the cache.
        class_names, parts, made_test: as planned.
        grey_range: of the plan's target.
        errors: what is wrong with each file that could not be decoded, by its name.
    """

    entry: Path
    class_names: tuple[str, ...]
    parts: Mapping[str, LabelledFiles]
    made_test: bool
    grey_range: GreyRange | None
    errors: Mapping[str, str]

    def labelled_files(self, part: str) -> LabelledFiles:
        """Return the files of a part that could be decoded."""
        return [(name, label) for name, label in self.parts[part] if name not in self.errors]

    def read(self, part: str, root: Path, limit_bytes: float) -> LabelledImages:
        """Read the images of a part.

        Args:
            limit_bytes: larger images stay in their file.

        Raises:
            UserError: the files are damaged.
        """
        labelled = self.labelled_files(part)
        return LabelledImages(
            images=npy.read_features(self.entry / f"{part}.npy", limit_bytes),
            labels=np.array([label for _, label in labelled], dtype=np.int64),
            images_file=str(root / part),
            labels_file=str(root / part),
            names=tuple(name for name, _ in labelled),
        )


def load(entry: Path) -> DecodedPictures | None:
    """Return what a folder has, without its pixels; None if it is missing or damaged."""
    try:
        plan: dict[str, Any] = json.loads((entry / _PLAN).read_text(encoding="utf-8"))
        sizes: dict[str, int] = plan.pop("size_bytes")
        if any((entry / name).stat().st_size != size for name, size in sizes.items()):
            return None
        plan["class_names"] = tuple(plan["class_names"])
        plan["grey_range"] = plan["grey_range"] and tuple(plan["grey_range"])
        return DecodedPictures(entry=entry, **plan)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(
    entry: Path, pictures: PictureList, plan: Plan, check: Callable[[], None], exclusive: bool
) -> DecodedPictures:
    """Decode the pictures of each part into a new folder, and note those that are broken.

    If two processes do it at the same time, one of them wins.

    Args:
        check: called at the end; if it raises, nothing is kept.
        exclusive: whether the caller keeps other processes of this machine away, so that unfinished
            folders are left over from killed ones.

    Raises:
        OSError: the folder cannot be written.
    """
    if exclusive:
        for leftover in entry.parent.glob(f".{entry.name}.{platform.node()}.*"):
            shutil.rmtree(leftover)
    temporary = entry.with_name(f".{entry.name}.{platform.node()}.{os.getpid()}")
    temporary.mkdir()
    try:
        errors: dict[str, str] = {}
        for part, labelled in plan.parts.items():
            names, path = [name for name, _ in labelled], temporary / f"{part}.npy"
            errors |= _write_pixels(path, pictures.root, names, plan.target)
        check()
        sizes = {path.name: path.stat().st_size for path in temporary.iterdir()}
        described = {
            "class_names": pictures.class_names,
            "parts": plan.parts,
            "made_test": pictures.makes_test,
            "grey_range": plan.target.grey_range,
            "errors": errors,
            "size_bytes": sizes,
        }
        write_json(temporary / _PLAN, described)
        if entry.exists() and not load(entry):
            shutil.rmtree(entry)
        try:
            temporary.rename(entry)
            sync(entry.parent)
        except OSError:
            if not load(entry):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    decoded = load(entry)
    assert decoded
    return decoded


def _write_pixels(path: Path, root: Path, names: list[str], target: Target) -> dict[str, str]:
    """Write the pixels one after the other; return what is wrong with broken files, by name."""

    def decode(name: str) -> npt.NDArray[np.uint8] | str:
        try:
            pixels = decoding.decode(
                root / name, target.channels, target.image_size, target.grey_range, target.resize
            )
        except UserError as error:
            return str(error)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))  # as a .npy file has them

    errors: dict[str, str] = {}
    with path.open("wb") as file:
        # NumPy pads a header, so that the number of images can grow in its place.
        _write_header(file, len(names), target)
        begin = file.tell()
        found = in_parallel(decode, names, f"decoding {path.stem}")
        for name, pixels in zip(names, found, strict=True):
            if isinstance(pixels, str):
                errors[name] = pixels
            else:
                file.write(pixels.data)
        file.seek(0)
        _write_header(file, len(names) - len(errors), target)
        assert file.tell() == begin
    sync(path)
    return errors


def _write_header(file: IO[bytes], count: int, target: Target) -> None:
    shape = (count, *target.image_size, *([3] if target.channels == 3 else []))
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
