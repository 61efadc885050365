"""Archives at an address: fetched once, whole or not at all."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.data.archives import pack
from tests.data.conftest import Mirror
from tests.data.picture_folders import write_pictures
from tests.data.picture_tables import prepared as table_prepared
from tests.data.picture_tables import write_shard
from tests.distributed.forked_runs import start_code
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.dataset import Dataset
from trainer.data.loading import load
from trainer.data.sources import reading

pytestmark = pytest.mark.usefixtures("caches")

Start = Callable[..., Mirror]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return pack(write_pictures(tmp_path / "own", count=2), tmp_path / "own.zip")


def prepared(root: str, **keys: Any) -> Dataset:
    config = DataConfig(name="folder", root=root, **keys)
    reading.prepare(config)
    return load(config, 0)


def kept(caches: Path) -> list[Path]:
    return [path for path in (caches / "remote").rglob("*") if path.suffix == ".zip"]


def test_it_is_downloaded_once_and_is_the_same_set(
    archive: Path, start_mirror: Start, caplog: pytest.LogCaptureFixture
) -> None:
    content = archive.read_bytes()
    mirror = start_mirror({"own.zip": content})
    config = DataConfig(name="folder", root=f"{mirror.address}own.zip")
    missing = reading.describe_missing(config)
    assert missing and f"{mirror.address}own.zip is not on this machine" in missing
    first = prepared(f"{mirror.address}own.zip")
    assert reading.describe_missing(config) is None
    assert first.fingerprint == prepared(str(archive)).fingerprint
    sha256 = hashlib.sha256(content).hexdigest()
    assert f"it has the SHA-256 {sha256}, and data.root {mirror.address}own.zip#sha" in caplog.text
    caplog.clear()
    for ending in ("", f"#sha256={sha256}", f"#md5={hashlib.md5(content).hexdigest()}"):
        assert prepared(f"{mirror.address}own.zip{ending}").fingerprint == first.fingerprint
    assert mirror.requests == {"own.zip": 1}
    assert "nothing says what it should contain" not in caplog.text


@pytest.mark.parametrize("bad", ["cut", "altered", "absent", "dead"])
def test_a_broken_download_leaves_nothing(
    archive: Path, start_mirror: Start, caches: Path, bad: str
) -> None:
    content = archive.read_bytes()
    files = {} if bad == "absent" else {"own.zip": content + b"x" * (bad == "altered")}
    mirror = start_mirror(files, announced_but_cut=bad == "cut")
    address = "http://127.0.0.1:9/" if bad == "dead" else mirror.address
    with pytest.raises(UserError) as raised:
        prepared(f"{address}own.zip#sha256={hashlib.sha256(content).hexdigest()}")
    reason = {
        "cut": "broke off",
        "altered": "has the checksum sha256=",
        "absent": "answered 404",
        "dead": "could not be reached",
    }[bad]
    assert f"data.root: {address}own.zip" in str(raised.value)
    assert reason in str(raised.value)
    assert kept(caches) == []


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("http://127.0.0.1:9/own.zip#sha256=12", "must end in #sha256= and 64 hexadecimal digits"),
        ("http://127.0.0.1:9/own.zip#crc=12", "must end in #sha256= and 64 hexadecimal digits"),
        ("http://127.0.0.1:9/own", "must be the address of an archive or .* end in one of .zip"),
        ("http://127.0.0.1:9/own.csv", "is a table of text, which names pictures beside it"),
        ("nonsense://own/own.zip", "nonsense://own/own.zip cannot be read .*[Pp]rotocol"),
        ("file:///none/own.zip", "file:///none/own.zip cannot be read .FileNotFoundError: "),
    ],
)
def test_an_address_that_cannot_be_read(root: str, message: str, caches: Path) -> None:
    with pytest.raises(UserError, match=f"data.root: .*{message}"):
        prepared(root)
    assert kept(caches) == []


def test_a_table_with_its_pictures_inside_is_downloaded(
    tmp_path: Path, start_mirror: Start
) -> None:
    path = write_shard(tmp_path / "own.parquet", [0, 1] * 10, ("dog", "cat"))
    outside = write_shard(tmp_path / "outside.parquet", [0, 1], file=["a.png", "b.png"])
    files = {each.name: each.read_bytes() for each in (path, outside)}
    mirror = start_mirror(files)
    sha256 = hashlib.sha256(files["own.parquet"]).hexdigest()
    config = DataConfig(name="table", root=f"{mirror.address}own.parquet#sha256={sha256}")
    missing = reading.describe_missing(config)
    assert missing and "own.parquet is not on this machine" in missing
    reading.prepare(config)
    assert reading.describe_missing(config) is None
    assert load(config, 0).fingerprint == table_prepared(path).fingerprint
    with pytest.raises(UserError, match="has the checksum sha256="):
        table_prepared(f"{mirror.address}own.parquet#sha256={'0' * 64}")
    with pytest.raises(UserError, match=r"outside\.parquet names pictures outside of the table"):
        table_prepared(f"{mirror.address}outside.parquet")


def test_other_stores_are_read_through_fsspec(archive: Path, caches: Path) -> None:
    pinned = f"{archive.as_uri()}#sha256={hashlib.sha256(archive.read_bytes()).hexdigest()}"
    assert prepared(pinned).fingerprint == prepared(str(archive)).fingerprint
    with pytest.raises(UserError, match="has the checksum md5="):
        prepared(f"{archive.as_uri()}#md5={'0' * 32}")
    assert len(kept(caches)) == 1


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a server of s3:// on this machine; return the name of a bucket there."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3").mkdir("own")
    yield "own"
    server.stop()


def test_an_archive_in_an_object_store(archive: Path, bucket: str, caches: Path) -> None:
    store = fsspec.filesystem("s3")
    store.put_file(str(archive), f"{bucket}/sets/own.zip")
    with pytest.raises(UserError, match=r"s3://own/none\.zip cannot be read .*does not exist"):
        prepared(f"s3://{bucket}/none.zip")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    root = f"s3://{bucket}/sets/own.zip"
    with pytest.raises(UserError, match=f"has the checksum sha256={sha256}, not sha256=0000"):
        prepared(f"{root}#sha256={'0' * 64}")
    assert kept(caches) == []
    expected = prepared(str(archive)).fingerprint
    assert prepared(f"{root}#sha256={sha256}").fingerprint == expected
    store.rm_file(f"{bucket}/sets/own.zip")
    assert prepared(f"{root}#sha256={sha256}").fingerprint == expected


SCRIPT = """
import sys
from trainer.config.schema import DataConfig
from trainer.data.loading import load
from trainer.data.sources import reading
config = DataConfig(name="folder", root=sys.argv[1])
reading.prepare(config)
print(load(config, 0).fingerprint)
"""


def test_a_killed_download_leaves_nothing_behind(
    archive: Path, start_mirror: Start, caches: Path, tmp_path: Path
) -> None:
    stuck = start_mirror({"own.zip": archive.read_bytes()}, hang_half_way=True)
    process = start_code(tmp_path, SCRIPT, f"{stuck.address}own.zip")
    deadline = time.monotonic() + 60
    while not kept(caches):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    (leftover,) = kept(caches)
    assert leftover.name.startswith(".own.")
    stuck.hang_half_way = False
    prepared(f"{stuck.address}own.zip")
    assert [path.name for path in kept(caches)] == ["own.zip"]


def test_of_two_processes_one_downloads(archive: Path, start_mirror: Start, tmp_path: Path) -> None:
    mirror = start_mirror({"own.zip": archive.read_bytes()}, delay_s=1.0)
    processes = [start_code(tmp_path, SCRIPT, f"{mirror.address}own.zip") for _ in range(2)]
    found = {process.communicate(timeout=60)[0] for process in processes}
    assert found == {f"{prepared(str(archive)).fingerprint}\n"}
    assert mirror.requests == {"own.zip": 1}
