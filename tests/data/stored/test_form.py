"""What is stored of a picture, and the key that says that two runs store the same."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.pictures import decoding, formats, resizing
from trainer.data.pictures.places import Place
from trainer.data.stored import form as forms
from trainer.data.stored.form import StoredForm, form_of, quality_of

PIXELS = StoredForm(3, None, None, None)
SHRUNK = StoredForm(3, None, 20, None)
JPEG = StoredForm(3, None, None, 60)
SHRUNK_JPEG = StoredForm(1, None, 20, 90)
BANDS = StoredForm(4, None, 20, None)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A JPEG file of 300 x 210 pixels, on its side by its orientation."""
    y, x, channel = np.indices((210, 300, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = ((y * 3 + x * 2 + channel * 60) % 256).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=exif)
    return tmp_path / "a.jpg"


def make(form: StoredForm, path: Path, size: tuple[int, int]) -> np.ndarray:
    return form.make(Place(path), hashlib.sha256(path.read_bytes()).digest(), size)


# ---------------------------------------------------------------------- the key


def test_the_key_is_a_hash_of_all_that_decides_on_the_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key that two forms shared would give a run the pictures of another."""
    versions: list[str | None] = ["12.3", "3.1", None]
    monkeypatch.setattr(formats, "decoder_versions", lambda: versions)
    text = "(1, '12.3', '3.1', None, (3, (0.0, 9.5), 20, None))"
    form = StoredForm(3, (0.0, 9.5), 20, None)
    assert form.key == hashlib.sha256(text.encode()).hexdigest()[:16]
    changes: list[dict[str, Any]] = [
        {"channels": 1}, {"grey_range": None}, {"grey_range": (0.0, 9.6)}, {"shorter_side": None},
        {"shorter_side": 21}, {"quality": 90}, {"quality": 91},
    ]  # fmt: skip
    keys = {form.key} | {dataclasses.replace(form, **change).key for change in changes}
    for place in range(3):
        versions[place] = "another"
        keys.add(form.key)
    monkeypatch.setattr(forms, "_VERSION", 2)
    keys.add(form.key)
    assert len(keys) == 1 + len(changes) + 3 + 1


def test_a_configuration_decides_on_the_form() -> None:
    config = DataConfig(store_size=30, store_quality=77)
    assert quality_of(config) is None
    assert form_of(config, 4, (0.0, 1.0)) == StoredForm(4, (0.0, 1.0), 30, None)
    config = dataclasses.replace(config, store_format="jpeg", store_size=None)
    assert quality_of(config) == 77
    for channels in (1, 3):
        assert form_of(config, channels, None) == StoredForm(channels, None, None, 77)
    with pytest.raises(UserError) as caught:
        form_of(config, 4, None)
    assert str(caught.value) == (
        "data.store_format: JPEG has 1 or 3 channels, and the pictures 4; use pixels"
    )


def test_a_form_in_words() -> None:
    assert str(PIXELS) == "pixels of their own size"
    assert str(SHRUNK_JPEG) == "JPEG of quality 90 of a shorter side of 20 pixels at the most"


# ---------------------------------------------------------------------- sizes


def test_the_shorter_side_is_shrunk_and_the_other_rounded() -> None:
    form = StoredForm(3, None, 50, None)
    sizes = np.array([[100, 200], [50, 80], [51, 100], [101, 100], [200, 101], [49, 49]], np.int32)
    found = form.sizes(sizes)
    assert found.tolist() == [[50, 100], [50, 80], [50, 98], [51, 50], [99, 50], [49, 49]]
    assert found.dtype == PIXELS.sizes(sizes).dtype == np.int64
    assert PIXELS.sizes(sizes).tolist() == sizes.tolist()


def test_the_most_bytes_of_a_size() -> None:
    sizes = np.array([[3, 5], [100, 7]])
    assert SHRUNK.most_bytes(sizes).tolist() == [45, 2100]
    assert SHRUNK_JPEG.most_bytes(sizes).tolist() == [2 * 15 + 2048, 2 * 700 + 2048]


# ---------------------------------------------------------------------- bytes


def test_pixels_of_a_picture_upright(picture: Path) -> None:
    expected = decoding.read_upright(picture, 3)
    stored = make(PIXELS, picture, (300, 210))
    assert stored.tolist() == expected.reshape(-1).tolist()
    assert np.array_equal(PIXELS.pixels(stored, (300, 210)), expected)
    assert np.array_equal(PIXELS.read_pixels(picture, 1), expected)
    assert expected.shape == (300, 210, 3)


@pytest.mark.parametrize("form", [SHRUNK, StoredForm(1, None, 20, None), SHRUNK_JPEG])
def test_a_picture_is_shrunk_while_it_is_decoded_and_then_by_the_filter(
    form: StoredForm, picture: Path
) -> None:
    size = (29, 20)
    image = decoding.open_upright(picture, form.channels, None, (58, 40))
    expected = image.resize((20, 29), Image.Resampling.BILINEAR, box=(0, 0, *image.size))
    assert image.size != decoding.open_upright(picture, form.channels).size
    stored = make(form, picture, size)
    if form.quality is None:
        assert np.array_equal(stored, np.array(expected).reshape(-1))
    else:
        stream = io.BytesIO()
        expected.save(stream, "JPEG", quality=90)
        assert stored.tobytes() == stream.getvalue()
        expected = Image.open(stream)
    found = form.pixels(stored, size)
    assert np.array_equal(found, np.array(expected).reshape(*size, form.channels))
    assert np.array_equal(form.read_pixels(picture, 1), found)


@pytest.mark.parametrize(("size", "shrunk"), [((164, 160), (21, 20)), ((170, 159), (21, 20))])
def test_both_sides_decide_how_far_it_is_shrunk_while_it_is_decoded(
    size: tuple[int, int], shrunk: tuple[int, int], tmp_path: Path
) -> None:
    """By a half: by a quarter one side or the other would have less than twice the pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    for turned in (False, True):
        if turned:
            Image.fromarray(noise.transpose(1, 0, 2)).save(tmp_path / "a.jpg")
            size, shrunk = size[::-1], shrunk[::-1]
        assert SHRUNK.sizes(np.array([size])).tolist() == [list(shrunk)]
        half = Image.open(tmp_path / "a.jpg")
        half.draft(None, (size[1] // 2, size[0] // 2))
        assert half.size == tuple(-(-side // 2) for side in size[::-1])
        expected = half.resize(shrunk[::-1], Image.Resampling.BILINEAR)
        stored = make(SHRUNK, tmp_path / "a.jpg", shrunk)
        assert np.array_equal(stored, np.array(expected).reshape(-1))


def test_a_jpeg_of_all_pixels(picture: Path) -> None:
    stored = make(JPEG, picture, (300, 210))
    stream = io.BytesIO()
    decoding.open_upright(picture, 3).save(stream, "JPEG", quality=60)
    assert stored.tobytes() == stream.getvalue()
    assert JPEG.pixels(stored, (300, 210)).shape == (300, 210, 3)
    for content in (stored[:-40], stored[40:]):
        with pytest.raises(UserError, match=r"^a stored JPEG: is not a picture"):
            JPEG.pixels(content, (300, 210))


def test_many_channels_are_stretched(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", bands)
    expected = resizing.resize(bands, (20, 31), resizing.Fit("stretch"))
    assert np.array_equal(make(BANDS, tmp_path / "a.npy", (20, 31)), expected.reshape(-1))
    found = BANDS.read_pixels(tmp_path / "a.npy", 1)
    assert np.array_equal(found, resizing.resize(bands, (20, 30), resizing.Fit("stretch")))


@pytest.mark.parametrize("shorter_side", [None, 5])
def test_greys_of_many_bits_have_the_range_of_the_form(
    shorter_side: int | None, tmp_path: Path
) -> None:
    values = np.arange(100, dtype=np.uint16).reshape(10, 10) * 500
    Image.fromarray(values).save(tmp_path / "a.png")
    found = {}
    for top in (20_000.0, 60_000.0):
        form = StoredForm(1, (0.0, top), shorter_side, None)
        found[top] = form.read_pixels(tmp_path / "a.png", 1)
        image = decoding.open_upright(tmp_path / "a.png", 1, (0.0, top))
        image = resizing.crop_image(image, (0, 0, 10, 10), found[top].shape[:2])
        assert np.array_equal(found[top][:, :, 0], np.array(image))
    assert found[20_000.0].mean() > found[60_000.0].mean() + 20


@pytest.mark.parametrize("form", [PIXELS, SHRUNK, JPEG, BANDS], ids=str)
def test_only_a_picture_that_nobody_has_looked_at_may_have_too_many_pixels(
    form: StoredForm, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run has looked at all sizes, by its own limit; what it stores is no larger."""
    limits = []

    def note(read: Any, *words: Any, **keys: Any) -> Any:
        by_place = words[4] if len(words) > 4 else "the usual one"
        limits.append(keys.get("max_megapixels", by_place))
        return read(*words, **keys)

    for name in ("read_upright", "open_upright", "read_bands"):
        monkeypatch.setattr(decoding, name, partial(note, getattr(decoding, name)))
    path, size = picture, (29, 20)
    if form is BANDS:
        path = picture.with_suffix(".npy")
        np.save(path, np.zeros((29, 20, 4), np.uint8))
    elif form.shorter_side is None:
        size = (300, 210)
    form.pixels(make(form, path, size), size)
    assert set(limits) == {None}
    with pytest.raises(UserError, match=r"has .* megapixels"):
        form.read_pixels(path, 0)


def test_a_picture_that_was_changed_or_is_broken_is_named(picture: Path) -> None:
    content = picture.read_bytes()
    whole = Place(picture)
    of_archive = Place(picture, "b.jpg", size_bytes=len(content), origin="some.zip: ")
    for place in (whole, of_archive):
        with pytest.raises(UserError) as caught:
            PIXELS.make(place, bytes(32), (300, 210))
        assert str(caught.value) == f"{place}: was changed since the run began; start again"
    picture.write_bytes(bytes(len(content)))
    digest = hashlib.sha256(bytes(len(content))).digest()
    for place, name in ((whole, str(picture)), (of_archive, "some.zip: b.jpg")):
        with pytest.raises(UserError) as caught:
            PIXELS.make(place, digest, (300, 210))
        text = str(caught.value)
        assert text.startswith(f"{name}: is not a picture that can be read (")
        assert text.endswith(
            "); repair or remove it, or let a run look at all pictures before it begins and leave "
            "such out: data.on_bad: skip"
        )
        with pytest.raises(UserError) as caught:
            PIXELS.read_pixels(place, 1)
        assert str(caught.value).startswith(f"{name}: is not a picture that can be read (")
    with pytest.raises(UserError) as caught:
        PIXELS.read_pixels(picture.parent / "none.jpg", 1)
    assert str(caught.value) == f"{picture.parent / 'none.jpg'}: there is no such file"
