"""Build picture files of more than eight bits a channel: Pillow writes few of them."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png16(values: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """Build a PNG of 16 bits from (height, width, channels) with 1 to 4 channels."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = [row.astype(">u2").tobytes() for row in values]
    return png(struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0), rows, transparent)


def png(head: bytes, rows: list[bytes], transparent: tuple[int, ...] = ()) -> bytes:
    """Build a PNG from a head and from rows as they are stored."""
    chunks = [(b"IHDR", head)]
    if transparent:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    compressed: bool = False,
    white_is_zero: bool = False,
    more: tuple[tuple[int, int, int], ...] = (),
) -> bytes:
    """Build a TIFF of any type of number from (height, width), or (height, width, 3) for RGB.

    Args:
        order: of bytes, < or >.
        more: entries with a tag, a type and a value of 32 bits.
    """
    height, width = values.shape[:2]
    channels = 3 if values.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    photometric = 2 if channels == 3 else int(not white_is_zero)
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if compressed else data
    short, long = 3, 4
    entries = [
        (256, short, width), (257, short, height), (259, short, 8 if compressed else 1),
        (262, short, photometric), (277, short, channels), (278, short, height),
        (279, long, len(data)), (284, short, 1), *more,
    ]  # fmt: skip
    of_each = {258: values.dtype.itemsize * 8, 339: kind}
    count = len(entries) + 3
    after = 8 + 2 + 12 * count + 4
    packed = [
        (tag, struct.pack(f"{order}HHI", tag, form, 1)
        + struct.pack(f"{order}{'HH' if form == short else 'I'}", value, *[0] * (form == short)))
        for tag, form, value in entries
    ]  # fmt: skip
    lists = b""
    for tag, value in of_each.items():
        head = struct.pack(f"{order}HHI", tag, short, channels)
        words = struct.pack(f"{order}{channels}H", *[value] * channels)
        if channels == 1:
            packed.append((tag, head + words.ljust(4, b"\0")))
        else:
            packed.append((tag, head + struct.pack(f"{order}I", after + len(lists))))
            lists += words.ljust(8, b"\0")
    packed.append((273, struct.pack(f"{order}HHII", 273, long, 1, after + len(lists))))
    start = b"II*\0" if order == "<" else b"MM\0*"
    rows = b"".join(row for _, row in sorted(packed))
    return start + struct.pack(f"{order}IH", 8, count) + rows + bytes(4) + lists + data
