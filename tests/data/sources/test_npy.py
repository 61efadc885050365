"""The four NumPy files are read without loss, or a message names the file."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.base.errors import UserError
from trainer.data.sources import npy

PIXELS = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)


def save(path: Path, values: Any) -> Path:
    np.save(path, values)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "float64", "float32", "float16", ">f4", "int64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_whole_numbers_of_any_type_become_the_same_pixels(
    tmp_path: Path, dtype: str, order: Any
) -> None:
    path = save(tmp_path / "features.npy", np.array(PIXELS.astype(dtype), order=order))
    found = npy.read_features(path)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, PIXELS[:, None])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_come_last_in_the_file_and_second_in_memory(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 4, 5, channels), dtype=np.uint8)
    found = npy.read_features(save(tmp_path / "features.npy", values))
    assert found.shape == (2, channels, 4, 5)
    assert found[1, channels - 1, 3, 2] == values[1, 3, 2, channels - 1]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 0.5, 254.999, -1.0, 256.0])
def test_a_value_that_is_not_a_pixel_is_located(tmp_path: Path, wrong: float) -> None:
    values = PIXELS.astype(np.float64)
    values[1, 2, 3] = values[1, 3, 4] = wrong
    path = save(tmp_path / "features.npy", values)
    message = rf"features\.npy: value {wrong} at image 1, row 2, column 3, channel 0; .*0 to 255"
    with pytest.raises(UserError, match=message):
        npy.read_features(path)


def test_the_position_counts_over_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npy, "_CHUNK_BYTES", 1)  # one image at a time
    values = np.zeros((7, 2, 2), dtype=np.float32)
    values[5, 1, 0] = np.nan
    with pytest.raises(UserError, match="image 5, row 1, column 0"):
        npy.read_features(save(tmp_path / "features.npy", values))


def test_scaled_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "features.npy", PIXELS / 255)
    with pytest.raises(UserError, match="not scaled"):
        npy.read_features(path)


@pytest.mark.parametrize("shape", [(4, 784), (4,), (2, 1, 28, 28), (2, 3, 28, 28), (1, 1, 1, 1, 1)])
def test_another_shape_of_features_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "features.npy", np.zeros(shape, dtype=np.uint8))
    with pytest.raises(UserError, match=r"features\.npy: found the shape .*height, width"):
        npy.read_features(path)


@pytest.mark.parametrize("dtype", ["bool", "complex64", "U3", "datetime64[s]"])
def test_features_that_are_not_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    path = save(tmp_path / "features.npy", np.zeros((2, 3, 3), dtype=dtype))
    with pytest.raises(UserError, match="found the type"):
        npy.read_features(path)


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((3, 10), int), np.zeros(3, bool)])
def test_other_targets_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    path = save(tmp_path / "targets.npy", values)
    with pytest.raises(UserError, match=r"targets\.npy: found the type .* integers of one"):
        npy.read_targets(path)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    flag = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> Any:
            return (flag.touch, ())

    path = tmp_path / "features.npy"
    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"features\.npy"):
        npy.read_features(path)
    assert not flag.exists()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        header("{'descr':'|u1','fortran_order':False,'shape':(1000000000000,28,28)}\n") + b"abc",
        header("{'descr':'|u1','fortran_order':False,'shape':(-3,-1,1)}\n") + b"abc",
        header("{'descr':'|u1','fortran_order':False,'shape':(1,1,1)}\n") + b"too long",
        header("{'descr\n"),
        header("(" * 4000),
    ],
)
def test_a_hostile_or_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "features.npy"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"features\.npy"):
        npy.read_features(path)


def test_a_shape_without_pixels_costs_no_time(tmp_path: Path) -> None:
    path = tmp_path / "features.npy"
    path.write_bytes(header("{'descr':'<f8','fortran_order':False,'shape':(0,10000000000,1000)}\n"))
    with pytest.raises(UserError, match=r"features\.npy: has no pixels"):
        npy.read_features(path)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_cut_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = save(tmp_path_factory.mktemp("npy") / "features.npy", PIXELS)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UserError, match="cut off"):
        npy.read_features(path)


def write_set(folder: Path, prefix: str) -> None:
    for part in ("train", "test"):
        save(folder / f"{prefix}_{part}_features.npy", PIXELS)
        save(folder / f"{prefix}_{part}_targets.npy", np.array([0, 1]))


def test_a_set_of_any_prefix_is_found(tmp_path: Path) -> None:
    write_set(tmp_path, "my_birds")
    (tmp_path / "._my_birds_train_features.npy").touch()  # macOS leaves such files behind
    (tmp_path / "notes.npy").touch()
    assert len(npy.read_folder(tmp_path).train.images) == 2


def test_two_sets_in_one_folder_are_ambiguous(tmp_path: Path) -> None:
    write_set(tmp_path, "birds")
    write_set(tmp_path, "fish")
    with pytest.raises(UserError, match=r"data\.root.*found sets named birds, fish"):
        npy.locate(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: .* found none"):
        npy.locate(tmp_path)
    with pytest.raises(UserError, match=r"data\.root: there is no folder .*nowhere"):
        npy.locate(tmp_path / "nowhere")
    write_set(tmp_path, "birds")
    (tmp_path / "birds_test_targets.npy").unlink()
    with pytest.raises(UserError, match=r"lacks birds_test_targets\.npy"):
        npy.locate(tmp_path)


def test_the_labs_files(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "mnist-lab"
    data = npy.read_folder(folder)
    assert data.train.images.shape == (1000, 1, 28, 28)
    assert data.test.images.shape == (100, 1, 28, 28)
    assert sorted(set(data.train.labels.tolist())) == list(range(10))
    for path in folder.glob("*.npy"):
        shutil.copyfile(path, tmp_path / path.name)
    features = np.load(folder / "mnist_train_features.npy").astype(np.float32)
    features[17, 3, 9] = np.nan
    np.save(tmp_path / "mnist_train_features.npy", features)
    with pytest.raises(UserError, match=r"mnist_train_features\.npy: value nan at image 17, row 3"):
        npy.read_folder(tmp_path)
