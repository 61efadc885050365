"""Bring the archive or the table that data.root names by its address onto this machine, once.

`https://HOST/own.zip#sha256=HEX` comes through pooch, `s3://BUCKET/own.zip` and the like through
fsspec. An address is not asked again: with a checksum its content is fixed, and without one the
content of the first time stays, of which a run's fingerprint takes care.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trainer.base.errors import UserError
from trainer.base.files import digest_of, remove_leftovers, write_file
from trainer.base.locks import lock_file
from trainer.data.sources import arrow_file, delimited
from trainer.data.sources.archive import SUFFIXES, is_archive
from trainer.data.sources.download import DownloadError, cache_folder, download_file
from trainer.data.stored import entries

_DIGITS = {"sha256": 64, "md5": 32}

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class _Address:
    """Where a file is.

    Args:
        address: without its checksum.
        checksum: `sha256:HEX`, `md5:HEX`, or None where it has none.
        key: where the user has written it, for messages.
    """

    address: str
    checksum: str | None
    key: str

    @property
    def path(self) -> Path:
        """Where it is kept on this machine."""
        key = hashlib.sha256(f"{self.address}#{self.checksum or ''}".encode()).hexdigest()[:16]
        name = Path(unquote(urlsplit(self.address).path)).name
        return cache_folder("remote") / key / name


def locate(root: str, key: str = "data.root") -> Path:
    """Return where on this machine the files of data.root are, or will be after `fetch`.

    Args:
        key: where the user has written it, for messages.

    Raises:
        UserError: it is the address of something else than an archive or a table with its pictures
            inside, or has an unknown checksum.
    """
    address = _parse(root, key)
    return address.path if address else Path(root).expanduser()


def is_address(root: str) -> bool:
    """Return whether data.root is an address, not a path."""
    return re.match("[a-zA-Z][a-zA-Z0-9+.-]+://", root) is not None


def describe_missing(root: str) -> str | None:
    """Say what `fetch` would download; None for nothing."""
    address = _parse(root, "data.root")
    if address is None or address.path.is_file():
        return None
    return f"{address.address} is not on this machine; a run downloads it into {address.path}"


def fetch(root: str, key: str = "data.root") -> Path:
    """Download the file if data.root is an address, unless that was done before.

    A file is put there whole, or not at all; processes of this machine wait for the one that does
    it.

    Args:
        key: as of `locate`.

    Returns:
        Where the files are on this machine.

    Raises:
        UserError: it cannot be downloaded, has another checksum, or the cache cannot be written.
    """
    address = _parse(root, key)
    if address is None:
        return locate(root, key)
    path = address.path
    try:
        entries.use(path.parent, address.address)
        without = "processes that start together download the same file, each for itself"
        with lock_file(path.parent / ".lock", f"downloads {address.address}", without) as alone:
            if not path.is_file() and not _take_unchecked(address):
                if alone:
                    remove_leftovers(path)
                write_file(path, lambda temporary: _download(address, temporary))
                if address.checksum is None:
                    found = digest_of(path, "sha256")
                    log.warning(
                        "%s: nothing says what it should contain; it has the SHA-256 %s, and "
                        "%s %s#sha256=%s refuses another content",
                        address.address, found, key, address.address, found,
                    )  # fmt: skip
    except OSError as error:
        raise UserError(
            f"{key}: {address.address} cannot be kept in the cache {path.parent} ({error}); "
            "make room, or set XDG_CACHE_HOME to another folder"
        ) from error
    return path


def _parse(root: str, key: str) -> _Address | None:
    """Return what an address means; None if `root` is no address."""
    if not is_address(root):
        return None
    address, _, fragment = root.partition("#")
    algorithm, _, digits = fragment.partition("=")
    if fragment and not re.fullmatch(f"[0-9a-fA-F]{{{_DIGITS.get(algorithm, 0)}}}", digits):
        raise UserError(
            f"{key}: {root} must end in #sha256= and 64 hexadecimal digits, in #md5= and 32, "
            f"or have no #; found #{fragment}"
        )
    name = urlsplit(address).path
    if name.lower().endswith(delimited.SUFFIXES):
        raise UserError(
            f"{key}: {address} is a table of text, which names pictures beside it, and only "
            "the table would be downloaded; use Parquet with the pictures inside, or download both"
        )
    if not is_archive(name) and not name.lower().endswith(arrow_file.SUFFIXES):
        raise UserError(
            f"{key}: {address} must be the address of an archive or of a table with its "
            f"pictures inside; it must end in one of {', '.join((*SUFFIXES, *arrow_file.SUFFIXES))}"
        )
    return _Address(address, f"{algorithm}:{digits.lower()}" if fragment else None, key)


def _take_unchecked(address: _Address) -> bool:
    """Take the file that was downloaded before its checksum was given, if it has this one."""
    before = replace(address, checksum=None).path
    if address.checksum is None or not before.is_file():
        return False
    algorithm, _, digits = address.checksum.partition(":")
    if digest_of(before, algorithm) != digits:
        return False
    os.link(before, address.path)
    return True


def _download(address: _Address, target: Path) -> None:
    if re.match("https?:", address.address, re.IGNORECASE):
        try:
            download_file(address.address, target)
        except DownloadError as error:
            raise UserError(f"{address.key}: {error}") from error
    else:
        _copy(address, target)
    if address.checksum is not None:
        algorithm, _, digits = address.checksum.partition(":")
        found = digest_of(target, algorithm)
        if found != digits:
            raise UserError(
                f"{address.key}: {address.address} has the checksum {algorithm}={found}, not "
                f"{algorithm}={digits}; it has changed, or the wrong one is given"
            )


def _copy(address: _Address, target: Path) -> None:
    """Copy a file from a store that fsspec knows."""
    import fsspec  # type: ignore[import-untyped]

    try:
        store, path = fsspec.url_to_fs(address.address)
        store.get_file(path, str(target))
    except ImportError as error:
        raise UserError(
            f"{address.key}: {address.address} needs another package ({error}); for s3:// "
            "pip install 'lockstep-trainer[remote]'"
        ) from error
    except Exception as error:  # each kind of store has errors of its own
        words = f"{type(error).__name__}: {error}"
        what = f"{address.key}: {address.address}"
        raise UserError(f"{what} cannot be read ({words})") from error
