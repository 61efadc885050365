"""An undamaged IDX file is read exactly; for any other a message names the file."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.idx_files import idx_bytes
from trainer.base.errors import UserError
from trainer.data.sources import idx

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idx")


@settings(max_examples=50, deadline=None)
@given(
    shape=st.one_of(
        st.tuples(st.integers(0, 5)),
        st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 5)),
    ),
    seed=st.integers(0, 1000),
    packed=st.booleans(),
)
def test_reads_back_what_was_written(
    folder: Path, shape: tuple[int, ...], seed: int, packed: bool
) -> None:
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    content = idx_bytes(values)
    path = folder / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = idx.read(path, dimensions=len(shape))
    assert found.shape == shape
    assert np.array_equal(found, values)
    assert idx.header(shape) == content[: 4 + 4 * len(shape)]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), packed=st.booleans())
def test_any_cut_is_refused(folder: Path, data: st.DataObject, packed: bool) -> None:
    content = gzip.compress(idx_bytes(IMAGES)) if packed else idx_bytes(IMAGES)
    path = folder / "cut"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UserError, match="cut"):
        idx.read(path, dimensions=3)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=64), packed=st.booleans())
def test_noise_never_ends_in_another_error(folder: Path, content: bytes, packed: bool) -> None:
    path = folder / "noise"
    path.write_bytes(b"\x1f\x8b\x08" + content if packed else content)
    with pytest.raises(UserError, match="noise"):
        idx.read(path, dimensions=3)


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_after_the_last_value_are_refused(tmp_path: Path, packed: bool) -> None:
    content = idx_bytes(IMAGES) + b"\0"
    path = tmp_path / "long"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match=r"long: goes on after the 24 bytes of \(2, 3, 4\)"):
        idx.read(path, dimensions=3)


def test_garbage_after_the_gzip_stream_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES)) + b"garbage")
    with pytest.raises(UserError, match="damaged"):
        idx.read(path, dimensions=3)


def test_a_flipped_bit_in_a_gzip_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx_bytes(IMAGES)))
    content[-6] ^= 1  # in the checksum
    path = tmp_path / "flipped"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        idx.read(path, dimensions=3)


@pytest.mark.parametrize(
    ("start", "dimensions", "wanted"),
    [
        (b"\x00\x00\x08\x01", 3, "images"),
        (b"\x00\x00\x08\x03", 1, "labels"),
        (b"\x00\x00\x0d\x03", 3, "images"),  # floats
        (b"PK\x03\x04", 3, "images"),
    ],
)
def test_another_kind_of_file_is_refused(
    tmp_path: Path, start: bytes, dimensions: int, wanted: str
) -> None:
    path = tmp_path / "other"
    path.write_bytes(start + bytes(40))
    with pytest.raises(UserError, match=f"starts with {start.hex(' ')}.* {wanted}"):
        idx.read(path, dimensions)


def check_refused_without_memory(path: Path, reason: str) -> None:
    tracemalloc.start()
    with pytest.raises(UserError, match=reason):
        idx.read(path, dimensions=3)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20


@pytest.mark.parametrize("packed", [False, True])
def test_an_absurd_announcement_costs_no_memory(tmp_path: Path, packed: bool) -> None:
    content = b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100)
    path = tmp_path / "absurd"
    path.write_bytes(gzip.compress(content) if packed else content)
    check_refused_without_memory(path, "announces")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES) + bytes(100 * 2**20), compresslevel=1))
    check_refused_without_memory(path, "goes on after")


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    plain = tmp_path / "train-images-idx3-ubyte.gz"
    plain.write_bytes(idx_bytes(IMAGES))
    packed = tmp_path / "train-images-idx3-ubyte"
    packed.write_bytes(gzip.compress(idx_bytes(IMAGES)))
    assert np.array_equal(idx.read(plain, 3), IMAGES)
    assert np.array_equal(idx.read(packed, 3), IMAGES)
