"""Compare files with the checksums that were published for them."""

from __future__ import annotations

import gzip
import hashlib
import os
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

from trainer.base.errors import UserError
from trainer.base.files import digest_of, write_text
from trainer.data.pictures.file_states import is_settled, state_of
from trainer.data.sources.download import cache_folder
from trainer.data.sources.known_sets.published import KnownSet, PublishedFile

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 2**20

_FORMAT = 1
"""of the notes in the cache"""


def is_published(file: PublishedFile, path: Path) -> bool:
    """Return whether a file has the bytes that were published."""
    algorithm, _, expected = file.checksum.partition(":")
    return digest_of(path, algorithm) == expected or (
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
    found = digest_of(path, algorithm)
    raise UserError(
        f"{path}: {_identify(path, others)}, not {file} of {known.name} ({algorithm.upper()} of "
        f"the file {found}, of the published one {expected}); get the published file"
        + (", or set data.name to idx for your own files" if "-idx" in file.name else "")
    )


def verify_once(
    known: KnownSet, file: PublishedFile, path: Path, others: Iterable[KnownSet]
) -> None:
    """Do what `verify` does, unless that was done before and the file is still the same.

    Gigabytes are not read at each start. A note in the cache says that a file in this state had
    the published bytes.
    """
    if was_verified(file, path):
        return
    state, note, started_ns = state_of(path), _note(file, path), time.time_ns()
    verify(known, file, path, others)
    if is_settled(state, started_ns) and state_of(path) == state:
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_text(note, f"{path}\n{file.checksum}\n")
        except OSError as error:
            raise UserError(
                f"{path}: that it is the published file cannot be noted in the cache "
                f"{note.parent} ({error}); make room, or set XDG_CACHE_HOME to another folder"
            ) from error


def was_verified(file: PublishedFile, path: Path) -> bool:
    """Return whether `verify_once` has found the published bytes in this state of the file."""
    return _note(file, path).is_file()


def _note(file: PublishedFile, path: Path) -> Path:
    described = repr((_FORMAT, os.fsencode(path.resolve()), state_of(path), file))
    key = hashlib.sha256(described.encode()).hexdigest()[:24]
    return cache_folder("verified") / f"{key}.txt"


def _identify(path: Path, others: Iterable[KnownSet]) -> str:
    """Say which file it really is."""
    digests = {f"{name}:{digest_of(path, name)}" for name in ("md5", "sha1", "sha256")}
    unpacked = _unpacked_sha256(path)
    for known in others:
        for file in (*known.files, *known.unpacked):
            if file.checksum in digests or (unpacked and file.unpacked_sha256 == unpacked):
                return f"this is {file} of {known.name}"
    return "this is an unknown or altered file, or one that was cut off"


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
