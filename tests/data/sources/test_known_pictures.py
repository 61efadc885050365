"""Published sets of photographs, from small archives in their formats, and a run on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from tests.data import known_files
from tests.data.known_files import published_here
from trainer.base.errors import UserError
from trainer.config.data_names import PictureSetName
from trainer.config.schema import DataConfig
from trainer.data.dataset import Dataset
from trainer.data.loading import load
from trainer.data.pictures import file_states
from trainer.data.sources import known
from trainer.data.sources.known_sets import verification
from trainer.data.sources.known_sets.published import PictureSet
from trainer.data.sources.known_sets.registry import KNOWN
from trainer.data.sources.reading import describe_undecoded, prepare

pytestmark = pytest.mark.usefixtures("caches")


def use_small(
    name: str, folder: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write the files of a set, and let them be the published ones."""
    write(folder)
    monkeypatch.setitem(KNOWN, name, published_here(KNOWN[name], folder))


def load_small(name: str, folder: Path, **keys: object) -> Dataset:
    config = DataConfig(name=name, root=str(folder), image_size=16, **keys)  # type: ignore[arg-type]
    prepare(config)
    return load(config, 0)


def reds(images: Dataset, part: str) -> list[int]:
    """Return the red of each picture, in tens: JPEG changes it a little."""
    found = getattr(images, part).images[:]
    return [round(int(pixels[0, 8, 8]) / 10) * 10 for pixels in found]


def test_imagenette_is_tested_on_what_it_calls_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small("imagenette_160", tmp_path, known_files.write_imagenette, monkeypatch)
    data = load_small("imagenette_160", tmp_path, validation_size=10)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 10, 30]
    assert data.class_names[1] == "English springer"
    assert data.train.images.shape[1:] == (3, 16, 16)
    assert data.test.targets.bincount().tolist() == [3] * 10
    assert all(
        red == pytest.approx(25 * label + 5, abs=10)
        for red, label in zip(reds(data, "test"), data.test.targets.tolist(), strict=True)
    )


def test_eurosat_has_no_test_part_and_some_pictures_are_kept_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small("eurosat", tmp_path, known_files.write_eurosat, monkeypatch)
    data = load_small("eurosat", tmp_path, validation_size=0)
    assert (len(data.train), len(data.test)) == (40, 10)
    assert data.class_names[9] == "SeaLake"
    assert "test: 10 of the pictures in train" in data.source


def test_flowers_has_three_parts_and_labels_from_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_files.write_flowers(tmp_path)
    listed = known.list_pictures(listing_of("flowers102", tmp_path), str(tmp_path))
    assert listed.class_names[2] == "canterbury bells"
    assert len(listed.class_names) == 102
    found = {part: list(one.places.names) for part, one in listed.parts.items()}
    assert found["train"] == [f"jpg/image_0000{number}.jpg" for number in (6, 7, 1)]
    assert found["validation"] == [f"jpg/image_0000{number}.jpg" for number in (8, 9)]
    assert listed.parts["train"].labels.tolist() == [0, 1, 2]
    assert listed.parts["test"].labels.tolist() == [0, 1, 0, 1]


def test_pets_are_named_after_their_breeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_files.write_pets(tmp_path)
    listed = known.list_pictures(listing_of("oxford_pets", tmp_path), str(tmp_path))
    assert "great pyrenees" in listed.class_names
    assert [len(one) for one in listed.parts.values()] == [9, 3]


def test_food_has_the_order_of_its_own_list(tmp_path: Path) -> None:
    known_files.write_food(tmp_path)
    listed = known.list_pictures(listing_of("food101", tmp_path), str(tmp_path))
    assert listed.class_names == ("cheesecake", "cheese_plate")
    assert listed.parts["test"].labels.tolist() == [0, 1]
    assert listed.parts["train"].places[0].read() == known_files.jpeg(0)


def listing_of(name: str, folder: Path) -> PictureSet:
    published = published_here(KNOWN[name], folder)
    assert isinstance(published, PictureSet)
    return published


def test_a_damaged_archive_is_named_and_nothing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small("food101", tmp_path, known_files.write_food, monkeypatch)
    path = tmp_path / "food-101.tar.gz"
    path.write_bytes(path.read_bytes()[:-100])
    config = DataConfig(name="food101", root=str(tmp_path), image_size=16)
    with pytest.raises(UserError, match=r"food-101\.tar\.gz: this is an unknown or altered file"):
        prepare(config)


def test_an_archive_is_verified_once_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_files.write_food(tmp_path)
    published = listing_of("food101", tmp_path)
    path = tmp_path / "food-101.tar.gz"
    # A file that was written this very moment may change without a trace in its times.
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", -(10**9))
    reads = Counter[Path]()
    monkeypatch.setattr(verification, "digest_of", count(reads, verification.digest_of))
    for _ in range(2):
        known.list_pictures(published, str(tmp_path))
    assert reads == {path: 1}
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="unknown or altered"):
        known.list_pictures(published, str(tmp_path))


def count(reads: Counter[Path], digest: Callable[[Path, str], str]) -> Callable[[Path, str], str]:
    def counting(path: Path, algorithm: str) -> str:
        reads[path] += 1
        return digest(path, algorithm)

    return counting


def test_what_is_not_decompressed_yet_is_said_without_doing_it(
    tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small("food101", tmp_path, known_files.write_food, monkeypatch)
    config = DataConfig(name="food101", root=str(tmp_path), image_size=16)
    said = describe_undecoded(config)
    assert said is not None
    assert "food-101.tar.gz: not decompressed yet" in said
    assert not caches.exists()


def test_the_configuration_knows_which_sets_have_pictures() -> None:
    has_pictures = {name for name, one in KNOWN.items() if isinstance(one, PictureSet)}
    assert has_pictures == set(get_args(PictureSetName))
    assert all(DataConfig(name=name).has_pictures == (name in has_pictures) for name in KNOWN)
