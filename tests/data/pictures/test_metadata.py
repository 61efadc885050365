"""Of odd metadata (EXIF) in whole pictures only the orientation counts."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import BmpImagePlugin, Image

from tests.data.picture_bytes import tiff
from tests.data.picture_folders import prepared, write_pictures
from trainer.base.errors import UserError
from trainer.data.pictures.decoding import ImageInfo, decode, read_info

TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
SHORT, TEXT, RATIO = 3, 2, 5


def jpeg(path: Path, *entries: tuple[int, int, int, bytes]) -> Path:
    """Write a JPEG, 8 high and 16 wide, that is to be turned upright."""
    rows = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    metadata = b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + struct.pack("<I", 0)
    metadata = b"Exif\0\0" + metadata + struct.pack("<II", 72, 1)
    Image.new("RGB", (16, 8), "red").save(path, "JPEG")
    content = path.read_bytes()
    # Without the head of JFIF, whose resolution comes before that of the metadata.
    rest = content[4 + int.from_bytes(content[4:6], "big") :]
    path.write_bytes(b"\xff\xd8\xff\xe1" + struct.pack(">H", len(metadata) + 2) + metadata + rest)
    return path


@pytest.mark.parametrize(
    "odd",
    [
        (0x0131, RATIO, 1, struct.pack("<I", 38)),
        (0x011A, TEXT, 3, b"72\0\0"),
        (0x011A, TEXT, 2, b"7\0\0\0"),
        (0x011A, 7, 1, b"7\0\0\0"),
        (0x010E, TEXT, 100, struct.pack("<I", 2**32 - 1)),
        (0x8769, 4, 1, struct.pack("<I", 2**32 - 1)),
    ],
    ids=["ratio", "text", "short text", "bytes", "nowhere", "no directory"],
)
def test_only_the_orientation_counts(
    tmp_path: Path, odd: tuple[int, int, int, bytes], recwarn: pytest.WarningsRecorder
) -> None:
    path = jpeg(tmp_path / "a.jpg", TURNED, odd, (0x0128, SHORT, 1, struct.pack("<HH", 3, 0)))
    assert read_info(path) == ImageInfo(16, 8, 3)
    red, *others = decode(path, 3, (16, 8))
    assert red.min() > 250
    assert max(channel.max() for channel in others) < 5
    assert not recwarn.list  # they would name no file


@pytest.mark.parametrize(
    "entry", [(282, TEXT, 0), (283, TEXT, 0), (700, SHORT, 7), (305, RATIO, 8)]
)
def test_only_the_orientation_counts_in_tiff(tmp_path: Path, entry: tuple[int, int, int]) -> None:
    path = tmp_path / "a.tif"
    cm = (296, SHORT, 3)
    path.write_bytes(tiff(np.zeros((8, 16), np.uint8), more=((0x0112, SHORT, 6), cm, entry)))
    assert read_info(path) == ImageInfo(16, 8, 1)
    assert decode(path, 1, (16, 8)).shape == (1, 16, 8)


@pytest.mark.parametrize(
    "metadata", [b"", b"garbage", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*abcd"]
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_broken_metadata_turns_nothing(tmp_path: Path, metadata: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (16, 8), "red").save(path, exif=b"Exif\0\0" + metadata)
    assert read_info(path) == ImageInfo(8, 16, 3)
    assert decode(path, 3, (8, 16)).shape == (3, 8, 16)


@pytest.mark.usefixtures("caches")
@pytest.mark.parametrize(
    "error", [AttributeError("no attribute"), ZeroDivisionError(), RecursionError(), MemoryError()]
)
def test_any_error_of_pillow_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: object) -> None:
        raise error

    root = write_pictures(tmp_path / "own", channels=3)
    Image.new("RGB", (16, 8), "red").save(root / "train" / "cat" / "odd.bmp")
    monkeypatch.setattr(BmpImagePlugin.BmpImageFile, "load_prepare", fail)
    words = str(error) or type(error).__name__
    with pytest.raises(UserError, match=rf"odd\.bmp: is not a picture that .* \({words}\)"):
        prepared(root)
    assert len(prepared(root, validation_size=0, on_bad="skip").train) == 20
