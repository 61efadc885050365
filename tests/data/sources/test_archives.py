"""Archives that are broken, hostile or of a kind that cannot be read in place."""

from __future__ import annotations

import gzip
import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.archives import pack, picture, write_tar
from tests.data.picture_folders import prepared, write_pictures
from trainer.base.errors import UserError
from trainer.data.pictures import file_states
from trainer.data.sources import archive as archives
from trainer.data.sources import listing

pytestmark = pytest.mark.usefixtures("caches")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "own", count=2)


def files_in(cache: Path) -> list[str]:
    """What the cache has, without locks and what is noted for people."""
    return [path.name for path in cache.rglob("*.*") if path.suffix not in (".lock", ".txt")]


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("kept", [0.05, 0.3, 0.9])
def test_a_cut_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, folder: Path, caches: Path, ending: str, kept: float
) -> None:
    archive = pack(folder, tmp_path / f"own{ending}")
    whole = archive.read_bytes()
    length = len(whole) if ending != ".tar" else 512 * 3 * 8  # without the zeros that fill it up
    archive.write_bytes(whole[: int(kept * length)])
    with pytest.raises(UserError, match=f"{archive}: .*get it again"):
        prepared(archive)
    assert files_in(caches) == []


def test_a_tar_without_its_last_block_was_cut(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "own.tar", [("train/cat/1.png", picture(0))])
    with tarfile.open(archive) as file:
        end = file.getmembers()[-1].offset_data + 512 * -(-len(picture(0)) // 512)
    archive.write_bytes(archive.read_bytes()[:end])
    with pytest.raises(UserError, match=r"ends it is missing after the member 'train/cat/1.png'"):
        listing.list_pictures(archive)


def test_a_damaged_header_in_a_tar_is_not_its_end(tmp_path: Path, folder: Path) -> None:
    archive = pack(folder, tmp_path / "own.tar")
    with tarfile.open(archive) as file:
        second = file.getmembers()[1]
    content = bytearray(archive.read_bytes())
    content[second.offset + 150] ^= 1  # of its checksum
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"a header is broken after the member 'test/cat/000.png'"):
        listing.list_pictures(archive)


def test_a_damaged_picture_in_a_zip_is_named(tmp_path: Path, folder: Path) -> None:
    archive = pack(folder, tmp_path / "own.zip")
    place = listing.list_pictures(archive).parts["train"].places[0]
    content = bytearray(archive.read_bytes())
    content[place.offset_bytes + 60] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match=rf"{archive}: train/cat/000.png: "):
        prepared(archive)


def test_a_picture_that_is_stored_wrong_is_not_taken(tmp_path: Path) -> None:
    archive = tmp_path / "own.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(8):
            file.writestr(f"{'cat' if number % 2 else 'dog'}/{number}.bmp", picture(number))
    place = listing.list_pictures(archive).parts["train"].places[0]
    content = bytearray(archive.read_bytes())
    content[place.offset_bytes + 5] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"cat/1\.bmp: has another checksum than its archive"):
        prepared(archive)


def test_a_local_header_decides_where_a_picture_begins(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "own.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            with file.open(info, "w", force_zip64=True) as member:  # an extra field in front
                member.write(path.read_bytes())
    assert prepared(archive).fingerprint == prepared(folder).fingerprint


Change = Callable[[zipfile.ZipFile], object]


def add_link(file: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("train/cat/9.png")
    info.external_attr = 0o120777 << 16
    file.writestr(info, "/etc/passwd")


def add_encrypted(file: zipfile.ZipFile) -> None:
    file.writestr("train/cat/9.png", b"secret")
    file.filelist[-1].flag_bits |= 1


def add_twice(file: zipfile.ZipFile) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("train/cat/000.png", b"other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.writestr("../9.png", b""), "'../9.png' leads out of the archive"),
        (lambda file: file.writestr("a/../../9.png", b""), "'a/../../9.png' leads out of the"),
        (lambda file: file.writestr("/etc/9.png", b""), "'/etc/9.png' leads out of the archive"),
        (lambda file: file.writestr("C:/9.png", b""), "'C:/9.png' leads out of the archive"),
        (lambda file: file.writestr("train\\cat\\9.png", b""), "has a backslash in its name"),
        (add_link, "'train/cat/9.png' is a link, which is not followed"),
        (add_encrypted, "'train/cat/9.png' is encrypted"),
        (add_twice, "has two members named 'train/cat/000.png'"),
        (
            lambda file: file.writestr("train/cat/9.png", b"", zipfile.ZIP_LZMA),
            "'train/cat/9.png' is compressed by LZMA; pack the archive with Deflate",
        ),
    ],
)
def test_a_zip_with_a_member_that_is_not_read(
    tmp_path: Path, folder: Path, caches: Path, change: Change, message: str
) -> None:
    archive = pack(folder, tmp_path / "own.zip")
    with zipfile.ZipFile(archive, "a") as file:
        change(file)
    with pytest.raises(UserError) as raised:
        prepared(archive)
    assert message in str(raised.value)
    assert str(archive) in str(raised.value)
    assert files_in(caches) == []


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("../9.png", tarfile.REGTYPE, "'../9.png' leads out of the archive"),
        ("/9.png", tarfile.REGTYPE, "'/9.png' leads out of the archive"),
        ("train/cat/9.png", tarfile.SYMTYPE, "'train/cat/9.png' is a link"),
        ("train/cat/9.png", tarfile.LNKTYPE, "'train/cat/9.png' is a link"),
        ("train/cat/9.png", tarfile.FIFOTYPE, "'train/cat/9.png' is not a regular file"),
        ("train/cat/9.png", tarfile.GNUTYPE_SPARSE, "'train/cat/9.png' is a sparse file"),
        ("train/cat/000.png", tarfile.REGTYPE, "has two members named 'train/cat/000.png'"),
        ("train/cat/\udce9.png", tarfile.REGTYPE, "has a name that is not UTF-8"),
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_with_a_member_that_is_not_read(
    tmp_path: Path,
    folder: Path,
    name: str,
    kind: bytes,
    message: str,
    form: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if it were older
    archive = pack(folder, tmp_path / "own.tar")
    with tarfile.open(archive, "a", format=form) as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(UserError) as raised:
        prepared(archive)
    assert message in str(raised.value)
    assert str(archive) in str(raised.value)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_in_any_form_of_tar(tmp_path: Path, form: int) -> None:
    archive, long = tmp_path / "own.tar", "x" * (90 if form == tarfile.USTAR_FORMAT else 200)
    with tarfile.open(archive, "w", format=form) as file:
        for number in range(8):
            content = picture(number)
            info = tarfile.TarInfo(f"{'cat' if number % 2 else 'dog'}/{long}/{number}.png")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    listed = listing.list_pictures(archive).parts["train"]
    assert [place.read() for place in listed.places] == [
        picture(n) for n in (1, 3, 5, 7, 0, 2, 4, 6)
    ]


def test_an_unchanged_archive_is_listed_and_decompressed_once(
    tmp_path: Path, folder: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if they were older
    packed = [pack(folder, tmp_path / name) for name in ("own.zip", "own.tar", "own.tar.gz")]
    first = [prepared(archive).fingerprint for archive in packed]
    before = files_in(caches / "archives")

    def fail(*_: object) -> None:
        raise AssertionError("read again")

    for name in ("list_zip", "list_tar", "write_file", "write_arrays"):
        monkeypatch.setattr(archives, name, fail)
    assert [prepared(archive).fingerprint for archive in packed] == first
    assert files_in(caches / "archives") == before
    monkeypatch.undo()
    other = write_pictures(tmp_path / "other", count=3)
    for archive, fingerprint in zip(packed, first, strict=True):
        assert prepared(pack(other, archive)).fingerprint != fingerprint


def test_the_copy_of_a_changed_archive_goes_and_others_stay(tmp_path: Path, caches: Path) -> None:
    for name in ("own", "other", "own"):
        folder = write_pictures(tmp_path / f"{name} {len([*tmp_path.iterdir()])}", count=2)
        prepared(pack(folder, tmp_path / f"{name}.tar.gz"))
    kept = sorted(path.name.rpartition("-")[0] for path in (caches / "archives").rglob("*.tar"))
    assert kept == ["other", "own"]


def test_a_damaged_copy_in_the_cache_is_made_again(
    tmp_path: Path, folder: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if it were older
    archive = pack(folder, tmp_path / "own.tar.gz")
    first = prepared(archive).fingerprint
    (copy,) = (caches / "archives").rglob("*.tar")
    copy.write_bytes(copy.read_bytes()[:2000])
    assert prepared(archive).fingerprint == first
    (index,) = (caches / "archives").rglob("members-*")
    index.write_bytes(b"damaged")
    copy.write_bytes(copy.read_bytes()[:2000])
    assert prepared(archive).fingerprint == first


def test_a_compressed_archive_that_is_refused_leaves_no_copy(tmp_path: Path, caches: Path) -> None:
    plain = write_tar(tmp_path / "own.tar", [("../a.png", picture(0))])
    packed = tmp_path / "own.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(UserError, match=r"own.tar.gz: the member '../a.png' leads out of"):
        prepared(packed)
    assert files_in(caches) == []


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.root: there is no file .*none.zip"):
        prepared(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(UserError, match=r"text.zip: is not a whole .zip file"):
        prepared(tmp_path / "text.zip")
    (tmp_path / "own.rar").write_text("text")
    with pytest.raises(UserError, match=r"own.rar is neither a folder nor an archive, whose name"):
        prepared(tmp_path / "own.rar")
