"""Say where the bytes of pictures are: in files of their own, or in spans of larger files.

An archive, a shard or a table of pictures is read without unpacking: whoever lists it notes where
in its file each picture lies, and everybody else reads the bytes there.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.terminal import printable
from trainer.data.pictures import packed_names
from trainer.data.pictures.file_states import States, hash_names, read_states

Indices = npt.NDArray[np.int64]

_MOST_INFLATED_BYTES = 2**31
"""of a picture: a few compressed bytes are not to fill the memory"""


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@dataclass(frozen=True)
class Place:
    """Where the bytes of one picture are.

    Args:
        file: on the disk.
        member: the picture's name inside of `file`; None if it is the whole file.
        offset_bytes: where the picture begins in `file`.
        size_bytes: how long it is there; None: to the end.
        is_deflated: whether it is compressed by the method 8 of zip files.
        checksum: CRC-32 of its bytes as a zip file has it; None: not known.
        origin: what stands before `member` in messages; None: the name of `file`.
    """

    file: Path
    member: str | None = None
    offset_bytes: int = 0
    size_bytes: int | None = None
    is_deflated: bool = False
    checksum: int | None = None
    origin: str | None = None

    @property
    def name(self) -> str:
        """What it is called: `cats/1.jpg`, or `cats.zip: 1.jpg`."""
        if self.member is None:
            return str(self.file)
        return (f"{self.file}: " if self.origin is None else self.origin) + self.member

    def __str__(self) -> str:
        """Return its name for messages."""
        return printable(self.name)

    def open(self) -> BinaryIO:
        """Open the bytes of the picture.

        Raises:
            OSError: the file cannot be read.
            UserError: it is no regular file, the file is shorter than it was when it was listed, or
                its bytes are broken.
        """
        return self._open_file() if self.member is None else io.BytesIO(self.read())

    def read(self) -> bytes:
        """Return the bytes of the picture; errors as those of `open`."""
        with self._open_file() as file:
            file.seek(self.offset_bytes)
            content = file.read(-1 if self.size_bytes is None else self.size_bytes)
        if self.size_bytes is not None and len(content) < self.size_bytes:
            raise UserError(
                f"{self}: ends after {len(content)} of {self.size_bytes} bytes; the file was cut "
                "short; get it again"
            )
        if self.is_deflated:
            content = self._inflate(content)
        if self.checksum is not None and zlib.crc32(content) != self.checksum:
            raise UserError(f"{self}: has another checksum than its archive says; get it again")
        return content

    def _open_file(self) -> BinaryIO:
        # To open a pipe, or to read from a device, might never end.
        file = open(self.file, "rb", opener=_open_at_once)  # noqa: SIM115
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise UserError(f"{self}: is not a regular file")
        return file

    def _inflate(self, content: bytes) -> bytes:
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            inflated = inflater.decompress(content, _MOST_INFLATED_BYTES)
        except zlib.error as error:
            raise UserError(f"{self}: its compressed bytes are broken ({error})") from error
        if not inflater.eof:
            too_long = len(inflated) == _MOST_INFLATED_BYTES
            why = "inflate to more than 2 GiB" if too_long else "are broken (they end too early)"
            raise UserError(f"{self}: its compressed bytes {why}")
        return inflated


@dataclass(frozen=True)
class ReadPlace(Place):
    """A place whose bytes are in memory already."""

    content: bytes = b""

    def open(self) -> io.BytesIO:
        """Open the bytes."""
        return io.BytesIO(self.content)

    def read(self) -> bytes:
        """Return the bytes."""
        return self.content


@dataclass(frozen=True, eq=False)
class Spans:
    """Where in larger files some pictures lie, a row for each picture.

    Args:
        files: the larger files.
        file: which of them, int32 (n,); -1: none, the picture has a file of its own.
        offset_bytes, size_bytes: int64 (n,).
        is_deflated: bool (n,).
        checksums: of the bytes of each, uint32 (n,); None: not known.
        origins: of pictures in each of `files`, as `Place` has it, where these are copies in the
            cache of files that people know; None: they are no copies.
    """

    files: tuple[Path, ...]
    file: npt.NDArray[np.int32]
    offset_bytes: npt.NDArray[np.int64]
    size_bytes: npt.NDArray[np.int64]
    is_deflated: npt.NDArray[np.bool_]
    checksums: npt.NDArray[np.uint32] | None = None
    origins: tuple[str, ...] | None = None

    @classmethod
    def in_one_file(
        cls,
        file: Path,
        offset_bytes: npt.NDArray[np.int64],
        size_bytes: npt.NDArray[np.int64],
        is_deflated: npt.NDArray[np.bool_] | None = None,
        checksums: npt.NDArray[np.uint32] | None = None,
    ) -> Spans:
        """Return where pictures lie that are all in one file; by default none is compressed."""
        count = len(offset_bytes)
        if is_deflated is None:
            is_deflated = np.zeros(count, np.bool_)
        of_file = np.zeros(count, np.int32)
        return cls((file,), of_file, offset_bytes, size_bytes, is_deflated, checksums)

    def select(self, positions: Indices) -> Spans:
        """Return some of the rows, in this order."""
        return replace(
            self,
            file=self.file[positions],
            offset_bytes=self.offset_bytes[positions],
            size_bytes=self.size_bytes[positions],
            is_deflated=self.is_deflated[positions],
            checksums=None if self.checksums is None else self.checksums[positions],
        )


@dataclass(frozen=True, eq=False)
class Places(Sequence[Place]):
    """Where many pictures are.

    Args:
        root: the folder that the names of files are relative to.
        names: of each picture, with slashes: of its file below `root` or, with `spans`, inside of
            the larger file.
        spans: where they lie in larger files; None: each has its own file.
        states: of the files of `names` when they were listed, so that nobody asks for them again;
            None: not known.
    """

    root: Path
    names: Sequence[str]
    spans: Spans | None = None
    states: States | None = None

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, position: int) -> Place: ...

    @overload
    def __getitem__(self, position: slice) -> Places: ...

    def __getitem__(self, position: int | slice) -> Place | Places:
        if isinstance(position, slice):
            return self.select(np.arange(len(self), dtype=np.int64)[position])
        name, spans = self.names[position], self.spans
        file = -1 if spans is None else int(spans.file[position])
        if spans is None or file < 0:
            return Place(self.root / name)
        return Place(
            spans.files[file],
            name,
            int(spans.offset_bytes[position]),
            int(spans.size_bytes[position]),
            bool(spans.is_deflated[position]),
            None if spans.checksums is None else int(spans.checksums[position]),
            None if spans.origins is None else spans.origins[file],
        )

    def select(self, positions: Indices) -> Places:
        """Return some of the places, in this order."""
        return replace(
            self,
            names=packed_names.select(self.names, positions),
            spans=self.spans and self.spans.select(positions),
            states=None if self.states is None else self.states[positions],
        )

    def read_states(self) -> npt.NDArray[np.int64]:
        """Return what changes when a picture changes, as it is now: int64 (n, 8).

        The state of its file; where it lies in a larger one; and a hash of its name, as some file
        systems do not number their files.
        """
        spans, names = self.spans, hash_names(self.names)[:, None]
        if spans is None:
            states = read_states(self.root / name for name in self.names)
            return np.hstack([states, np.zeros((len(self), 2), np.int64), names])
        states = read_states(spans.files)[spans.file]
        alone = np.flatnonzero(spans.file < 0)
        states[alone] = read_states(self.root / self.names[row] for row in alone.tolist())
        return np.hstack([states, spans.offset_bytes[:, None], spans.size_bytes[:, None], names])

    def listed_states(self) -> npt.NDArray[np.int64]:
        """Return the same as `read_states`, as far as it was noted when the files were listed."""
        if self.states is None or self.spans is not None:
            return self.read_states()
        nowhere = np.zeros((len(self), 2), np.int64)
        return np.hstack([self.states, nowhere, hash_names(self.names)[:, None]])
