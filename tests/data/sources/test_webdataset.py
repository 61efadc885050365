"""WebDataset shards: pictures and labels beside each other in .tar files."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.data.archives import picture, write_tar
from tests.data.picture_folders import prepared, write_pictures
from trainer.base.errors import UserError
from trainer.data.pictures import file_states
from trainer.data.sources import listing, webdataset

pytestmark = pytest.mark.usefixtures("caches")


def write_shards(
    folder: Path,
    prefix: str = "",
    labels: Sequence[object] = (0, 1),
    count: int = 8,
    first: int = 0,
) -> list[Path]:
    """Write `count` samples into two shards, which take turns; the labels do too."""
    folder.mkdir(parents=True, exist_ok=True)
    samples: list[list[tuple[str, bytes]]] = [[], []]
    for number in range(count):
        label = str(labels[number % len(labels)]).encode()
        key = f"part/{first + number:06}"
        samples[number // len(labels) % 2] += [
            (f"{key}.PNG", picture(first + number)),
            (f"{key}.json", b"{}"),
            (f"{key}.cls", label),
        ]
    return [
        write_tar(folder / f"{prefix}{number:06}.tar", members)
        for number, members in enumerate(samples)
    ]


def test_shards_are_the_same_set_in_any_order_of_their_members(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "own", labels=("cat", "dog"), count=20)
    data = prepared(tmp_path / "own", validation_size=0)
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (16, 4)
    pattern = str(tmp_path / "own" / "{000000..000001}.tar")
    same = [
        prepared(Path(name), validation_size=0) for name in (pattern, str(tmp_path / "own/*.tar"))
    ]
    assert {dataset.fingerprint for dataset in same} == {data.fingerprint}
    listed = listing.list_pictures(tmp_path / "own").parts["train"]
    assert [place.file for place in listed.places[:10]] == [shards[0]] * 5 + [shards[1]] * 5
    assert listed.labels.tolist() == [0] * 10 + [1] * 10
    assert {place.read() for place in listed.places} == set(map(picture, range(20)))


@pytest.mark.parametrize("in_folders", [False, True])
def test_parts_by_the_names_of_shards_or_folders(tmp_path: Path, in_folders: bool) -> None:
    root = tmp_path / "own"
    for first, part in ((0, "train"), (100, "val"), (200, "test")):
        folder, prefix = (root / part, "") if in_folders else (root, f"imagenet-{part}-")
        write_shards(folder, prefix, first=first)
    data = prepared(root)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [8, 8, 8]
    assert listing.has_part(root, "validation")
    alone = listing.list_part(root, "test").parts["test"]
    assert {place.read() for place in alone.places} == set(map(picture, range(200, 208)))


def test_numbers_are_sorted_as_numbers_and_may_have_names(tmp_path: Path) -> None:
    write_shards(tmp_path / "own", labels=(2, 10, "007"), count=12)
    found = listing.list_pictures(tmp_path / "own")
    assert found.class_names == ("2", "7", "10")
    write_shards(tmp_path / "named", labels=(2, 0, 1), count=12)
    (tmp_path / "named" / "classes.txt").write_text("zebra\nant\nbee\n")
    named = listing.list_pictures(tmp_path / "named")
    assert named.class_names == ("zebra", "ant", "bee")
    content = {
        place.read(): label
        for place, label in zip(
            named.parts["train"].places, named.parts["train"].labels.tolist(), strict=True
        )
    }
    assert [content[picture(number)] for number in range(4)] == [2, 0, 1, 2]


def test_one_shard_and_only_some_of_its_classes(tmp_path: Path) -> None:
    shard = write_shards(tmp_path / "test", labels=(1, 3), count=8)[0]
    assert prepared(shard, validation_size=0).class_names == ("1", "3")
    (tmp_path / "test" / "classnames.txt").write_text("a\nb\nc\nd\n")
    found = listing.list_part(shard, "test")
    assert found.class_names == ("b", "d")
    assert found.parts["test"].labels.tolist() == [0, 0, 1, 1]


def test_classes_are_named_beside_the_folders_of_parts(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_shards(tmp_path / "own" / part)
    (tmp_path / "own" / "classes.txt").write_text("ant\nbee\n")
    assert prepared(tmp_path / "own").class_names == ("ant", "bee")


def test_a_compressed_shard_is_the_same_set(tmp_path: Path) -> None:
    shard, other = write_shards(tmp_path / "own", count=24)
    other.unlink()
    fingerprint = prepared(shard).fingerprint
    packed = shard.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(shard.read_bytes()))
    shard.unlink()
    assert prepared(packed).fingerprint == prepared(packed.parent).fingerprint == fingerprint


def test_an_unchanged_shard_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if it were older
    own = tmp_path / "own"
    write_shards(own, labels=("cat", "dog"), count=8)
    first = listing.list_pictures(own).parts["train"]

    def fail(*_: object) -> None:
        raise AssertionError("read again")

    for name in ("_find_samples", "_read_labels"):
        monkeypatch.setattr(webdataset, name, fail)
    again = listing.list_pictures(own).parts["train"]
    assert list(again.places) == list(first.places)
    assert again.labels.tolist() == first.labels.tolist() == [0] * 4 + [1] * 4
    monkeypatch.undo()
    write_shards(own, labels=("dog", "cat"), count=8)
    changed = listing.list_pictures(own).parts["train"]
    assert changed.places.names[0] == again.places.names[4] == "part/000001.PNG"


def test_a_zip_is_no_shard(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as file:
        file.writestr("0.png", picture(0))
        file.writestr("0.cls", b"1")
    with pytest.raises(UserError, match=r"own.zip: 0.png is not in the folder of a class"):
        listing.list_pictures(tmp_path / "own.zip")
    with pytest.raises(UserError, match=r"names .*own.zip; shards are .tar files"):
        listing.list_pictures(tmp_path / "{own,other}.zip")


def test_a_label_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    members = [("0.png", picture(0)), ("0.cls", b"\xef\xbb\xbf3")]
    write_tar(tmp_path / "test.tar", members)
    assert listing.list_part(tmp_path / "test.tar", "test").class_names == ("3",)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("0.png", picture(0))], "shard.tar: the picture 0.png has no 0.cls with its label"),
        ([("0.cls", b"1")], "shard.tar: the label 0.cls has no picture; one is named 0 and ends"),
        ([("0.png", b""), ("0.jpg", b""), ("0.cls", b"1")], "0.png and 0.jpg are two pictures"),
        ([("0.png", b""), ("0.cls", b"")], "shard.tar: 0.cls must have one line of UTF-8"),
        ([("0.png", b""), ("0.cls", b"\xff")], "shard.tar: 0.cls must have one line of UTF-8"),
        ([("0.png", b""), ("0.cls", b"cat\ndog")], "0.cls must have one line of UTF-8"),
        ([("../0.png", b""), ("0.cls", b"1")], "shard.tar: the member '../0.png' leads out of"),
        ([("0.a.png", b""), ("0.cls", b"1")], "the label 0.cls has no picture"),
    ],
)
def test_a_sample_that_is_not_whole(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    write_shards(tmp_path / "own")
    write_tar(tmp_path / "own" / "shard.tar", members)
    with pytest.raises(UserError) as raised:
        prepared(tmp_path / "own")
    assert message in str(raised.value)


def test_a_shard_that_was_cut_is_named(tmp_path: Path) -> None:
    second = write_shards(tmp_path / "own")[1]
    second.write_bytes(second.read_bytes()[:2000])
    with pytest.raises(UserError, match=rf"{second}: .* cut short; get it again"):
        prepared(tmp_path / "own")


@pytest.mark.parametrize(
    ("shards", "root", "message"),
    [
        (["train-0", "1"], "", "not those of 1000000.tar, 1000001.tar"),
        (["test-"], "", "has shards of test, but none of train"),
        (["train-test-"], "", "may be a shard of test or train; name it by one of"),
        (["train-"], "train-{000000..000002}.tar", "names the shard .*train-000002.tar, which is"),
        (["train-"], "{4..2}.tar", "names no shard"),
        (["train-"], "{0..999999999}.tar", "names too many shards"),
        (["train-"], "val-*.tar", "names the shard .*which is not there"),
    ],
)
def test_shards_that_are_not_what_was_meant(
    tmp_path: Path, shards: list[str], root: str, message: str
) -> None:
    for prefix in shards:
        write_shards(tmp_path, prefix)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path / root)


def test_all_parts_must_have_all_classes(tmp_path: Path) -> None:
    write_shards(tmp_path, "train-", labels=(0, 1, 2), count=12)
    write_shards(tmp_path, "test-", labels=(0, 2))
    with pytest.raises(UserError, match="has no test pictures of 1; all parts must have the same"):
        prepared(tmp_path)


def test_labels_that_the_list_of_classes_lacks(tmp_path: Path) -> None:
    write_shards(tmp_path, labels=(0, 2))
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(UserError, match=r"has the labels '2', which .*has 2 classes, which count"):
        prepared(tmp_path)
    (tmp_path / "classes.txt").write_text("ant\nant\nbee\n")
    with pytest.raises(UserError, match=r"classes.txt: must have the name of another class in"):
        prepared(tmp_path)


def test_an_archive_beside_folders_of_pictures_is_no_shard(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", count=1)
    write_tar(root / "backup.tar", [("0.png", picture(0))])
    write_tar(root / "train" / "backup.tar", [("0.png", picture(0))])
    assert len(listing.list_pictures(root)) == 4


def test_a_picture_of_a_shard_is_decoded_from_its_span(tmp_path: Path) -> None:
    write_shards(tmp_path, labels=("a", "b"), count=20)
    data = prepared(tmp_path, validation_size=0)
    images = {bytes(np.asarray(image)) for image in data.train.images} | {
        bytes(np.asarray(image)) for image in data.test.images
    }
    expected = {
        np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8).tobytes()
        for seed in range(20)
    }
    assert images == expected


def test_a_label_file_may_have_several_labels_or_none(tmp_path: Path) -> None:
    root = tmp_path / "own"
    write_shards(root, "train-", labels=("cat|dog", "", " dog", "owl | cat|cat"), count=16)
    write_shards(root, "test-", labels=("owl", "dog"), count=4, first=50)
    data = prepared(root, multi_label=True, validation_size=0)
    assert data.class_names == ("cat", "dog", "owl")
    assert sorted(map(tuple, data.train.targets.tolist())) == sorted(
        [(1, 1, 0), (0, 0, 0), (0, 1, 0), (1, 0, 1)] * 4
    )
    assert sorted(map(tuple, data.test.targets.tolist())) == [(0, 0, 1)] * 2 + [(0, 1, 0)] * 2
    with pytest.raises(UserError, match=r"\.cls must have one line"):
        listing.list_pictures(root)
    write_shards(root, "test-", labels=("cat||dog",), count=4, first=50)
    with pytest.raises(UserError, match=r"000050\.cls must .* several with \| between them"):
        listing.list_pictures(root, several=True)
    write_shards(root, "test-", labels=("0", "1|2"), count=4, first=50)
    with pytest.raises(UserError, match="no train pictures of 0"):
        listing.list_pictures(root, several=True)
