"""Pictures of any number of channels: arrays in .npy files, and TIFF files of many bands."""

from __future__ import annotations

import builtins
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tifffile
import torch
from PIL import Image
from pyarrow import parquet

from tests.commands.command import Capture, run_command
from tests.data.picture_folders import prepared
from tests.data.picture_tables import prepared as prepared_table
from tests.data.picture_tables import write_csv, write_shard
from tests.runs import train_here
from trainer.base.errors import UserError
from trainer.data.pictures import decoding
from trainer.data.pictures.resizing import Fit, resize

pytestmark = pytest.mark.usefixtures("caches")


def make(channels: int, size: tuple[int, int] = (9, 12), seed: int | list[int] = 0) -> np.ndarray:
    shape = (*size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_tiff(path: Path | io.BytesIO, pixels: np.ndarray, **keys: Any) -> None:
    if keys.get("planarconfig") == "separate":
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(
        path, pixels, **{"photometric": "minisblack", "planarconfig": "contig", **keys}
    )


def write_set(root: Path, channels: int = 5, ending: str = "npy", count: int = 8) -> Path:
    for part in ("train", "validation", "test"):
        for label, kind in enumerate(("forest", "water")):
            (root / part / kind).mkdir(parents=True)
            for number in range(count):
                pixels = make(channels, seed=[number, label, len(part)])
                pixels[..., -1] = 200 * label
                path = root / part / kind / f"{number}.{ending}"
                if ending == "npy":
                    np.save(path, pixels)
                else:
                    write_tiff(path, pixels)
    return root


@pytest.mark.parametrize("channels", [2, 4, 5, 6, 13])
@pytest.mark.parametrize(
    "keys",
    [{"planarconfig": "contig"}, {"planarconfig": "separate"}, {"compression": "zlib"}],
    ids=str,
)
def test_every_band_of_a_tiff_file_is_read(
    tmp_path: Path, channels: int, keys: dict[str, Any]
) -> None:
    pixels = make(channels)
    write_tiff(tmp_path / "a.tif", pixels, **keys)
    info = decoding.read_info(tmp_path / "a.tif")
    assert (info.height, info.width, info.channels) == (9, 12, channels)
    assert np.array_equal(decoding.read_bands(tmp_path / "a.tif", channels), pixels)


def test_five_bands_that_pillow_takes_for_colours_are_five(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", make(5), photometric="rgb")
    with Image.open(tmp_path / "a.tif") as file:
        assert len(file.getbands()) < 5
    assert decoding.read_info(tmp_path / "a.tif").channels == 5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_other_tiff_files_are_read_as_before(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (12, 9)).save(tmp_path / "a.tif")
    assert decoding.read_info(tmp_path / "a.tif").channels in (1, 3)


def test_bands_are_resized_one_by_one(tmp_path: Path) -> None:
    pixels = make(5)
    np.save(tmp_path / "a.npy", pixels)
    image = decoding.decode(tmp_path / "a.npy", 5, (4, 4))
    for band in range(5):
        assert np.array_equal(image[band], resize(pixels[..., [band]], (4, 4), Fit("crop"))[..., 0])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_of_greys_and_colours_are_pictures_as_others(
    tmp_path: Path, order: Any, channels: int
) -> None:
    pixels = make(channels)
    np.save(tmp_path / "a.npy", np.asarray(pixels, order=order))
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / "a.png")
    for wanted in (1, 3):
        array, picture = (
            decoding.decode(tmp_path / name, wanted, (5, 6)) for name in ("a.npy", "a.png")
        )
        assert np.array_equal(array, picture)


def cut(path: Path) -> None:
    np.save(path, make(5))
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: np.save(path, make(5).astype(np.float32)), "type float32"),
        (lambda path: np.save(path, make(5)[None]), "shape (1, 9, 12, 5)"),
        (lambda path: np.save(path, np.array([{}], dtype=object)), "type object"),
        (cut, "has 539 bytes of pixels and should have 540"),
        (lambda path: write_tiff(path, make(6).astype(np.uint16)), "type uint16"),
    ],
)
def test_what_is_no_such_picture_is_named(tmp_path: Path, write: Any, said: str) -> None:
    write(path := tmp_path / ("a.tif" if "uint16" in said else "a.npy"))
    with pytest.raises(UserError) as error:
        decoding.read_info(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


def test_without_tifffile_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiff(tmp_path / "a.tif", make(5))
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "tifffile":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'lockstep-trainer\[tiff\]'"):
        decoding.read_info(tmp_path / "a.tif")


def test_arrays_of_too_many_pixels_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1000, 1001, 2), np.uint8))
    with pytest.raises(UserError, match=r"1\.0 megapixels.*data\.max_megapixels"):
        decoding.read_info(tmp_path / "a.npy", max_megapixels=1)


@pytest.mark.parametrize("ending", ["npy", "tif"])
def test_a_folder_of_bands_is_trained_on_and_scaled_by_channel(tmp_path: Path, ending: str) -> None:
    data = prepared(write_set(tmp_path / "data", ending=ending), image_size=[9, 12])
    assert tuple(data.train.images.shape) == (16, 5, 9, 12)
    assert data.scaling.mean.numel() == 5
    assert data.test.pictures(np.arange(2)).shape == (2, 9, 12, 3)


def test_decoded_and_stored_pictures_are_the_same_images(tmp_path: Path) -> None:
    root = str(write_set(tmp_path / "data"))
    decoded = prepared(Path(root), image_size=[8, 8])
    stored = prepared(Path(root), image_size=[8, 8], image_size_schedule=[[1, 8]])
    assert np.array_equal(decoded.train.images[:].numpy(), stored.train.images[:].numpy())


def test_an_archive_of_bands_is_read(tmp_path: Path) -> None:
    root = write_set(tmp_path / "data", channels=4, count=2)
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in root.rglob("*.npy"):
            archive.write(path, path.relative_to(root))
    assert prepared(tmp_path / "data.zip").train.images.shape[1] == 4


def test_different_channels_are_named(tmp_path: Path) -> None:
    root = write_set(tmp_path / "data")
    np.save(root / "test/water/odd.npy", make(4))
    with pytest.raises(UserError) as error:
        prepared(root)
    assert "4 in " in str(error.value)
    assert "test/water/odd.npy" in str(error.value)
    (root / "test/water/odd.npy").unlink()
    with pytest.raises(UserError, match=r"data\.channels asks for 3"):
        prepared(root, channels=3)


@pytest.mark.parametrize("name", ["grey", "colour_jitter", "trivial_augment_wide"])
def test_transforms_of_colours_are_refused(tmp_path: Path, name: str, capsys: Capture) -> None:
    root = write_set(tmp_path / "data")
    keys = ["--data.name", "folder", "--data.root", str(root), "--data.augment", f"['{name}']"]
    assert train_here(tmp_path / "run", *keys) == 2
    assert f"data.augment: {name} is for grey images" in capsys.readouterr().err
    assert not list(tmp_path.glob("run/metrics.jsonl"))


def test_a_run_of_crops_is_evaluated_and_predicts(tmp_path: Path, capsys: Capture) -> None:
    root = write_set(tmp_path / "data")
    keys = ["--data.name", "folder", "--data.root", str(root), "--data.image_size", "8"]
    augment = ["--data.augment", "['random_resized_crop', 'flip']", "--train.epochs", "2"]
    run = tmp_path / "run"
    assert train_here(run, *keys, *augment) == 0
    capsys.readouterr()
    code, output, errors = run_command(
        capsys, "predict", str(run), str(root / "test/water"), "--json"
    )
    assert code == 0, errors
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["class"] for row in rows] == ["water"] * 8
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, _, errors = run_command(capsys, "predict", str(run), str(tmp_path / "a.png"))
    assert code == 2
    assert "should have 5 channels" in errors


def test_jpeg_has_no_such_form(tmp_path: Path) -> None:
    root = write_set(tmp_path / "data")
    with pytest.raises(UserError, match=r"data\.store_format: JPEG has 1 or 3 channels"):
        prepared(root, store_format="jpeg")


@pytest.mark.parametrize("ending", ["npy", "tif"])
@pytest.mark.parametrize("kind", ["files", "inside"])
def test_a_table_may_name_or_hold_pictures_of_many_bands(
    tmp_path: Path, ending: str, kind: str
) -> None:
    root = write_set(tmp_path / "photos", ending=ending)
    rows = [
        (path, path.parent.name, path.parent.parent.name)
        for path in sorted(root.rglob(f"*.{ending}"))
    ]
    if kind == "files":
        lines = [f"{path.relative_to(tmp_path)},{label},{part}" for path, label, part in rows]
        table = write_csv(tmp_path, lines, "file,label,part")
    else:
        table = tmp_path / "all.parquet"
        columns = {
            "image": [{"bytes": path.read_bytes(), "path": path.name} for path, _, _ in rows],
            "label": [label for _, label, _ in rows],
            "part": [part for _, _, part in rows],
        }
        parquet.write_table(pa.table(columns), table)
    data = prepared_table(table)
    assert data.class_names == ("forest", "water")
    assert data.train.images.shape == (16, 5, 9, 12)
    pixels, targets = data.train.fetch(torch.arange(16))
    assert sorted(targets.tolist()) == [0] * 8 + [1] * 8
    for row, target in zip(pixels, targets, strict=True):
        assert (row[-1] == 200 * target).all()


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow"])
@pytest.mark.parametrize("channels", [None, 3, 5])
def test_lists_of_numbers_in_a_table_are_images(
    tmp_path: Path, name: str, channels: int | None
) -> None:
    pixels = [make(channels or 1, seed=number) for number in range(12)]
    if channels is None:
        pixels = [image[..., 0] for image in pixels]
    path = write_shard(tmp_path / name, [0, 1] * 6, image=[one.tolist() for one in pixels])
    test = prepared_table(path).test
    for number, image in enumerate(pixels):
        np.save(tmp_path / f"{number}.npy", image)
    rows = [f"{number}.npy,{number % 2}" for number in range(12)]
    files = prepared_table(write_csv(tmp_path, rows, header="file,label")).test
    assert test.images.shape[1:] == (channels or 1, 9, 12)
    assert torch.equal(test.images[:], files.images[:])


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([[[1, 2], [3]]], "row 0 (from 0): the column image must be an image of (height, width)"),
        (
            [[[1, 2]], [[1, 256]]],
            "row 1 (from 0): the column image must be an image of .* found 256",
        ),
        (
            [[[1, 2]], [[0.5, 1]]],
            "row 1 (from 0): the column image must be an image of .* found 0.5",
        ),
        ([[[1, 2]], [[None, 1]]], "row 1 (from 0): the column image .* some of its numbers are"),
        ([[[1, 2]], []], "row 1 (from 0): the column image .* have the lengths 0"),
        ([[[1, 2]], None], "row 1 (from 0): has no picture"),
        ([[1, 2], [3, 4]], "the column image of .* has the type list<"),
        ([[[[[1]]]], [[[[2]]]]], "the column image of .* has the type list<"),
    ],
    ids=["ragged", "large", "fraction", "missing", "empty", "null", "flat", "deep"],
)
def test_lists_that_are_no_image_are_named(tmp_path: Path, images: Any, said: str) -> None:
    rows = [*images, *images[:1] * 6]
    path = write_shard(
        tmp_path / "a.parquet", [0, 1] * (len(rows) // 2) + [0] * (len(rows) % 2), image=rows
    )
    with pytest.raises(UserError, match=re.escape(said).replace(r"\.\*", ".*")):
        prepared_table(path)
