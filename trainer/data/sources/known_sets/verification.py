"""Compare files with the checksums that were published for them."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

from trainer.base.errors import UserError
from trainer.data.sources.known_sets.published import KnownSet, PublishedFile

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 2**20


def is_published(file: PublishedFile, path: Path) -> bool:
    """Return whether a file has the bytes that were published."""
    algorithm, _, expected = file.checksum.partition(":")
    return _digest(path, algorithm) == expected or (
        file.unpacked_sha256 is not None and _unpacked_sha256(path) == file.unpacked_sha256
    )


def verify(known: KnownSet, file: PublishedFile, path: Path, others: Iterable[KnownSet]) -> None:
    """Make sure that a file has the bytes that were published.

    Args:
        others: sets whose files it may be by mistake.

    Raises:
        UserError: names the file, and says what it is and what it should be.
    """
    if is_published(file, path):
        return
    algorithm, _, expected = file.checksum.partition(":")
    found = _digest(path, algorithm)
    raise UserError(
        f"{path}: {_identify(path, others)}, not {file} of {known.name} ({algorithm.upper()} of "
        f"the file {found}, of the published one {expected}); get the published file"
        + (", or set data.name to idx for your own files" if "-idx" in file.name else "")
    )


def _identify(path: Path, others: Iterable[KnownSet]) -> str:
    """Say which file it really is."""
    digests = {f"{name}:{_digest(path, name)}" for name in ("md5", "sha1", "sha256")}
    unpacked = _unpacked_sha256(path)
    for known in others:
        for file in (*known.files, *known.unpacked):
            if file.checksum in digests or (unpacked and file.unpacked_sha256 == unpacked):
                return f"this is {file} of {known.name}"
    return "this is an unknown or altered file, or one that was cut off"


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


def _unpacked_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file, unpacked where it is gzipped; None if that cannot be done."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if is_packed else file
        try:
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return None
    return digest.hexdigest()
