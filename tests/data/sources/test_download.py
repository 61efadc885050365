"""Downloads, from servers that work and from servers that fail."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data import known_files
from tests.data.conftest import Mirror, Published
from tests.distributed.forked_runs import Forked, start_code
from trainer.base.errors import UserError
from trainer.data.sources import idx, known
from trainer.data.sources.known_sets.published import ArraySet
from trainer.data.sources.known_sets.registry import KNOWN

Start = Callable[..., Mirror]


@pytest.fixture
def dead_address() -> str:
    """Return an address where no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_downloads_once_and_reads_from_the_cache(
    published: Published, start_mirror: Start, cache: Path
) -> None:
    mirror = start_mirror(published.files)
    there = published.at(mirror.address)
    known.prepare(there, None)
    known.prepare(there, None)
    assert set(mirror.requests.values()) == {1}
    assert files_in(cache) == sorted(published.files)
    data = known.read(there, None)
    assert data.train.images.shape == (40, 1, 5, 6)
    assert data.origin == f"cache {cache}"


def test_sets_of_one_publisher_share_a_folder_of_the_cache(
    start_mirror: Start, caches: Path, tmp_path: Path
) -> None:
    names = ["breastmnist", "bloodmnist"]
    for name in names:
        known_files.write_medmnist(tmp_path, name, known_files.colour_images(6, size=28))
    mirror = start_mirror(
        {f"{name}.npz": (tmp_path / f"{name}.npz").read_bytes() for name in names}
    )
    for name in names:
        there = replace(
            known_files.published_here(KNOWN[name], tmp_path), mirrors=(mirror.address,)
        )
        assert isinstance(there, ArraySet)
        for _ in range(2):
            known.prepare(there, None)
        assert len(known.read(there, None).train.labels) == 6
    assert files_in(caches / "medmnist") == ["bloodmnist.npz", "breastmnist.npz"]
    assert set(mirror.requests.values()) == {1}


def test_a_mirror_that_is_down_is_skipped(
    published: Published, start_mirror: Start, cache: Path, dead_address: str
) -> None:
    mirror = start_mirror(published.files)
    started = time.monotonic()
    known.prepare(published.at(dead_address, mirror.address), None)
    assert time.monotonic() - started < 5
    assert len(known.read(published.known, None).test.labels) == 20


@pytest.mark.parametrize("bad", ["cut", "altered", "absent"])
def test_a_bad_file_is_never_kept_and_the_next_mirror_helps(
    published: Published, start_mirror: Start, cache: Path, bad: str
) -> None:
    files = dict(published.files)
    name = "t10k-images-idx3-ubyte.gz"
    if bad == "altered":
        files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    if bad == "absent":
        del files[name]
    first = start_mirror(files, announced_but_cut=bad == "cut")
    with pytest.raises(UserError) as caught:
        known.prepare(published.at(first.address), None)
    reason = {"cut": "broke off", "altered": "another checksum", "absent": "answered 404"}[bad]
    assert reason in str(caught.value)
    assert name not in files_in(cache)
    assert all((cache / file).read_bytes() == published.files[file] for file in files_in(cache))
    second = start_mirror(published.files)
    known.prepare(published.at(first.address, second.address), None)
    assert files_in(cache) == sorted(published.files)
    assert len(known.read(published.known, None).train.labels) == 40


def test_a_damaged_file_in_the_cache_is_replaced(
    published: Published, start_mirror: Start, cache: Path
) -> None:
    mirror = start_mirror(published.files)
    there = published.at(mirror.address)
    known.prepare(there, None)
    (cache / "train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    (cache / "t10k-labels-idx1-ubyte").write_bytes(b"damaged and unpacked")
    known.prepare(there, None)
    assert len(known.read(there, None).train.labels) == 40
    assert mirror.requests["train-labels-idx1-ubyte.gz"] == 2
    assert mirror.requests["train-images-idx3-ubyte.gz"] == 1


def test_the_same_files_unpacked_are_accepted(
    published: Published, cache: Path, dead_address: str
) -> None:
    cache.mkdir(parents=True)
    publisher = cache.parents[2] / "publisher"
    for name in idx.NAMES:
        subprocess.run(["cp", publisher / name, cache / name], check=True)
    known.prepare(published.at(dead_address), None)
    assert len(known.read(published.known, None).train.labels) == 40


def test_when_all_fail_the_message_says_what_was_tried_and_what_to_do(
    published: Published,
    cache: Path,
    dead_address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCKSTEP_DATA", str(tmp_path / "mine"))
    with pytest.raises(UserError) as caught:
        known.prepare(published.at(dead_address), None)
    message = str(caught.value)
    for place in (tmp_path / "mine" / "fashion_mnist", tmp_path / "package", cache):
        assert str(place) in message
    assert f"{dead_address}train-images-idx3-ubyte.gz: could not be reached" in message
    for remedy in ("data.root", "LOCKSTEP_DATA", "apt-get install dataset-fashion-mnist"):
        assert remedy in message


def test_a_cache_that_cannot_be_made_is_named(
    published: Published, start_mirror: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cache cannot be written: .*file"):
        known.prepare(published.at(start_mirror(published.files).address), None)


SCRIPT = """
import dataclasses, sys
from trainer.data.sources import known
from trainer.data.sources.known_sets.idx_sets import FASHION_MNIST
from trainer.data.sources.known_sets.published import PublishedFile
published = dataclasses.replace(
    FASHION_MNIST, files=tuple(PublishedFile(*one.split()) for one in sys.argv[2:]),
    mirrors=(sys.argv[1],), package=None, package_folder=None,
)
known.prepare(published, None)
print(len(known.read(published, None).train.labels))
"""


def start_preparing(folder: Path, published: Published, mirror: Mirror) -> Forked:
    """Start a process that prepares and then reads the data set."""
    checked = [
        f"{file.name} {file.checksum} {file.unpacked_sha256}" for file in published.known.files
    ]
    return start_code(folder, SCRIPT, mirror.address, *checked)


def wait_for_download(cache: Path) -> None:
    """Wait until another process has begun a file."""
    deadline = time.monotonic() + 60
    while not any(cache.glob("tmp*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_two_processes_one_downloads_and_the_other_waits(
    published: Published, start_mirror: Start, cache: Path, tmp_path: Path
) -> None:
    mirror = start_mirror(published.files, delay_s=0.3)
    other = start_preparing(tmp_path, published, mirror)
    wait_for_download(cache)
    known.prepare(published.at(mirror.address), None)
    assert len(known.read(published.known, None).train.labels) == 40
    assert other.communicate(timeout=60)[0] == "40\n"
    assert mirror.requests == dict.fromkeys(published.files, 1)


def test_a_killed_download_leaves_nothing_in_the_way(
    published: Published, start_mirror: Start, cache: Path, tmp_path: Path
) -> None:
    stuck = start_mirror(published.files, hang_half_way=True)
    process = start_preparing(tmp_path, published, stuck)
    wait_for_download(cache)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (leftover,) = files_in(cache)
    assert leftover.startswith("tmp")
    known.prepare(published.at(start_mirror(published.files).address), None)
    assert files_in(cache) == sorted(published.files)
    assert len(known.read(published.known, None).train.labels) == 40
