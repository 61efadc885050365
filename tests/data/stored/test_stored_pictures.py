"""Images are cut out of pictures: the same bits wherever these are kept, and by any threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import REPOSITORY
from tests.data.stored.known import know, open_pictures, write_photographs
from trainer.base.errors import RankError
from trainer.data.pictures import decoding, resizing
from trainer.data.pictures.resizing import whole_pixels
from trainer.ranks import processes

COUNT = 12
FORMS: list[dict[str, Any]] = [
    {},
    {"store_size": 30},
    {"store_format": "jpeg"},
    {"store_size": 30, "store_format": "jpeg", "store_quality": 60},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_photographs(tmp_path / "own", COUNT)
    return tmp_path / "own"


def boxes_of(sizes: torch.Tensor) -> torch.Tensor:
    """Return a box of some fractions of each picture."""
    whole = sizes.flip(1).double()
    return torch.cat([0.1 * whole, 0.77 * whole], 1)


def crops(root: Path, **keys: Any) -> torch.Tensor:
    pictures = open_pictures(root, **keys)
    index = torch.tensor([5, 0, 11, 5, 3, 7, 1])
    found = [
        pictures.fetch_crops(index, boxes_of(pictures.sizes(index)), (20, 16)) for _ in range(2)
    ]
    assert torch.equal(*found)  # decoded, and then as it is kept
    return found[0]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_where_pictures_are_kept_changes_no_bit(root: Path, form: dict[str, Any]) -> None:
    expected = crops(root, cache="none", **form)
    assert expected.shape == (7, 3, 20, 16)
    assert expected.is_contiguous()
    for keys in ({"cache": "memory"}, {"cache": "disk"}, {"cache": "disk"}, {"cache": "auto"}):
        assert torch.equal(crops(root, **keys, **form), expected), keys
    few = crops(root, cache="memory", memory_limit_mb=0, **form)
    assert torch.equal(few, expected)


def test_threads_change_no_bit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = crops(root, cache="none")
    for threads in (1, 7):
        monkeypatch.setattr(processes, "decoding_threads", lambda threads=threads: threads)
        assert torch.equal(crops(root, cache="none"), expected)


def test_a_whole_picture_is_what_predict_makes_of_it(root: Path) -> None:
    pictures = open_pictures(root, resize="pad")
    found = pictures.index_select(0, torch.tensor([4, 9]))
    for image, name in zip(found, ("04.jpg", "09.jpg"), strict=True):
        expected = decoding.decode(root / name, 3, (24, 32), None, resizing.Fit("pad"))
        assert np.array_equal(image.numpy(), expected)
    assert torch.equal(pictures[4:5], found[:1])
    assert pictures.shape == (COUNT, 3, 24, 32)


def test_a_crop_is_the_box_of_the_original_pixels(root: Path) -> None:
    """Pillow's filter, which has finer weights, differs by one level at the most."""
    pictures = open_pictures(root)
    index = torch.tensor([2, 6])
    boxes = torch.tensor([[3.2, 4.7, 40.1, 30.0], [0.0, 0.0, 31.6, 29.5]], dtype=torch.float64)
    found = pictures.fetch_crops(index, boxes, (20, 16))
    for image, name, box in zip(
        found, ("02.jpg", "06.jpg"), ((3, 5, 40, 30), (0, 0, 32, 30)), strict=True
    ):
        with Image.open(root / name) as file:
            expected = file.crop(box).resize((16, 20), Image.Resampling.BILINEAR)
        difference = image.permute(1, 2, 0).numpy().astype(int) - np.array(expected)
        assert np.abs(difference).max() <= 1


def test_boxes_are_rounded_to_pixels_of_the_picture() -> None:
    sizes = np.array([[10, 20]] * 4)
    boxes = np.array(
        [[0.4, 0.6, 19.5, 9.4], [5.2, 5.2, 5.3, 5.3], [19.9, 9.9, 20, 10], [0, 0, 20, 10]]
    )
    assert whole_pixels(boxes, sizes).tolist() == [
        [0, 1, 20, 9],
        [5, 5, 6, 6],
        [19, 9, 20, 10],
        [0, 0, 20, 10],
    ]


def test_pictures_are_shrunk_once_and_never_enlarged(root: Path) -> None:
    original = know(root).sizes
    sizes = open_pictures(root, store_size=45).sizes(torch.arange(COUNT)).numpy()
    assert (sizes.min(1) == np.minimum(original.min(1), 45)).all()
    assert (original.min(1) < 45).any()
    ratios = (sizes[:, 0] / sizes[:, 1]) / (original[:, 0] / original[:, 1])
    assert np.abs(ratios - 1).max() < 0.03


def test_a_large_picture_is_shrunk_while_it_is_decoded(tmp_path: Path) -> None:
    """In another order than its own EXIF orientation has the sides, and close to the original."""
    root = tmp_path / "own"
    root.mkdir()
    y, x, channel = np.indices((300, 400, 3))
    pixels = ((y // 3 + x // 2 + channel * 40) % 256).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(root / "a.jpg", quality=95, exif=exif)
    pictures = open_pictures(root, store_size=30)
    assert pictures.sizes(torch.tensor([0])).tolist() == [[40, 30]]
    assert decoding.open_upright(root / "a.jpg", 3, None, (80, 60)).size == (75, 100)
    found = pictures.store.pixels(0).astype(int)
    expected = np.array(decoding.open_upright(root / "a.jpg", 3).resize((30, 40))).astype(int)
    assert np.abs(found - expected).mean() < 3


def test_an_added_picture_is_the_only_one_that_is_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_pictures(root, cache="disk")[0:COUNT]
    write_photographs(root, 2, first=COUNT)
    (root / "00.jpg").rename(root / "99.jpg")
    decoded, read_upright = [], decoding.read_upright
    monkeypatch.setattr(
        decoding,
        "read_upright",
        lambda place, *more, **keys: (
            decoded.append(place.file.name) or read_upright(place, *more, **keys)
        ),
    )
    after = open_pictures(root, cache="disk")[0 : COUNT + 2]
    assert sorted(decoded) == ["12.jpg", "13.jpg"]
    assert torch.equal(after[: COUNT - 1], before[1:])
    assert torch.equal(after[-1], before[0])


def test_a_picture_that_was_changed_or_is_broken_is_named(root: Path) -> None:
    pictures = open_pictures(root, cache="none")
    write_photographs(root, 1, first=3)
    (root / "03.jpg").write_bytes((root / "02.jpg").read_bytes())
    with pytest.raises(RankError, match=r"03\.jpg: was changed"):
        pictures.index_select(0, torch.arange(COUNT))
    content = (root / "05.jpg").read_bytes()
    (root / "05.jpg").write_bytes(content[: len(content) // 2])
    pictures = open_pictures(root, cache="none")
    with pytest.raises(RankError, match=r"05\.jpg: is not a picture that can be read"):
        pictures.index_select(0, torch.arange(COUNT))
    (root / "07.jpg").unlink()
    with pytest.raises(RankError, match=r"07\.jpg"):
        pictures.index_select(0, torch.tensor([7]))


DIGEST = """
import hashlib, sys
import numpy as np, torch
from trainer.data.pictures.resizing import resize_into
y, x, channel = np.indices((301, 217, 5))
pixels = ((y * y * 3 + x * x * 5 + x * y * (channel + 1) * 7) // (64 + 32 * channel) % 256)
pixels, digest = pixels.astype(np.uint8), hashlib.sha256()
for channels in (1, 3, 4, 5):
    for top, left, bottom, right in ((0, 0, 301, 217), (13, 7, 120, 200), (50, 60, 90, 80)):
        result = torch.empty(channels, 64, 48, dtype=torch.uint8)
        resize_into(result, np.ascontiguousarray(pixels[:, :, :channels])[top:bottom, left:right])
        digest.update(result.permute(1, 2, 0).contiguous().numpy().data)
print(torch.backends.cpu.get_cpu_capability(), digest.hexdigest()[:16])
"""


def test_crops_are_whole_numbers_on_every_processor() -> None:
    """Torch has kernels for several generations of processors: all give these pixels."""
    found = set()
    for level in ("default", "avx2"):
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            cwd=REPOSITORY,
            env=os.environ | {"ATEN_CPU_CAPABILITY": level},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.split()[-1])
    assert found == {"f3826905e1e124cf"}
