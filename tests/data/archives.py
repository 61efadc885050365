"""Pack folders of pictures into archives and shards."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def pack(folder: Path, archive: Path, below: str = "") -> Path:
    """Write the files of a folder into a .zip (deflated) or .tar, below a folder of its own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [f"{below}{path.relative_to(folder).as_posix()}" for path in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, path in zip(names, files, strict=True):
                file.write(path, name)
    else:
        mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
        with tarfile.open(archive, mode.get(archive.suffix, "w")) as file:
            for name, path in zip(names, files, strict=True):
                file.add(path, name)
    return archive


def picture(seed: int) -> bytes:
    """Return a PNG file of noise, 12 by 10 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a .tar of these members."""
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path
