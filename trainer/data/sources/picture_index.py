"""What each picture file of a folder contains, looked at once and remembered in the cache.

A file is taken for unchanged while its `FileState` is. A file that was changed so shortly before it
was looked at that another change would not show in the times is looked at again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from trainer.base.errors import UserError
from trainer.base.files import write_text
from trainer.base.terminal import progress_bar
from trainer.data.pictures import decoding
from trainer.data.pictures.decoding import ImageInfo
from trainer.ranks import processes

# Some file systems count times in whole seconds, or two.
_CLOCK_STEP_NS = 2 * 10**9
_AT_A_TIME = 128
_BAR_AFTER_S = 2.0

T = TypeVar("T")
S = TypeVar("S")


class FileState(NamedTuple):
    """What changes where a file changes.

    Size and time of modification alone are not enough: programs set that time (`tar`, `rsync`,
    `cp -p`), and `mv` puts another file in the place. No program sets the time of change.
    """

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int


@dataclass(frozen=True)
class Content:
    """What is in a file.

    Args:
        sha256: of its bytes, hexadecimal; empty where it cannot be read at all.
        info: None where it is no picture.
        error: why it is none; else empty.
    """

    sha256: str
    info: ImageInfo | None
    error: str


@dataclass(frozen=True)
class _Row:
    """What a file was when it was looked at."""

    state: FileState
    looked_ns: int
    content: Content

    @property
    def is_certain(self) -> bool:
        """Whether a later change would show."""
        last_ns = max(self.state.modified_ns, self.state.changed_ns)
        return last_ns + _CLOCK_STEP_NS < self.looked_ns


class PictureIndex:
    """The contents of the files below a folder, as far as they are known.

    Args:
        path: where it is kept; a missing or damaged file is an empty index.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self.root = root
        self.path = path
        self._rows = _read_rows(path)
        self._is_saved = True

    def lacks(self, names: Sequence[str]) -> bool:
        """Whether any of these files was not looked at yet, or was seen to change since."""
        states = ((name, state_of(self.root / name)) for name in names)
        return any(state is not None and not self._row(name, state) for name, state in states)

    def look_at(self, names: Sequence[str]) -> dict[str, Content]:
        """The contents of these files, by name; those that are not known for certain are read."""
        states = {name: state_of(self.root / name) for name in names}
        rows = {name: self._row(name, state) for name, state in states.items()}
        known = {name: row.content for name, row in rows.items() if row and row.is_certain}
        unknown = [name for name in names if name not in known]
        looked_ns = time.time_ns()
        contents = in_parallel(lambda name: _look(self.root / name), unknown, "looking at pictures")
        for name, content in zip(unknown, contents, strict=True):
            known[name] = content
            self._is_saved = False
            if state := states[name]:
                self._rows[name] = _Row(state, looked_ns, content)
        return {name: known[name] for name in names}

    def save(self, names: Iterable[str]) -> None:
        """Keep what is known of these files for the next time.

        Raises:
            OSError: it cannot be written.
        """
        if not self._is_saved:
            rows = {name: asdict(self._rows[name]) for name in names if name in self._rows}
            write_text(self.path, json.dumps(rows))
            self._is_saved = True

    def _row(self, name: str, state: FileState | None) -> _Row | None:
        row = self._rows.get(name)
        return row if row and row.state == state else None


def state_of(path: Path) -> FileState | None:
    """The state of a file, of a link that of what it leads to; None where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return FileState(
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
        inode=status.st_ino,
        device=status.st_dev,
    )


def in_parallel(function: Callable[[S], T], items: Sequence[S], what: str) -> Iterator[T]:
    """The results in the items' order, from a thread on each usable core.

    Pillow and hashlib let other threads run meanwhile. A bar shows on a terminal where it is long.
    """
    with (
        ThreadPoolExecutor(processes.usable_cores()) as pool,
        progress_bar(what, len(items), delay=_BAR_AFTER_S) as progress,
    ):
        # Some at a time, so that results do not pile up in the memory.
        for some in _pieces(items):
            for result in pool.map(function, some):
                yield result
                progress.update()


def _pieces(items: Sequence[S]) -> Iterator[Sequence[S]]:
    for begin in range(0, len(items), _AT_A_TIME):
        yield items[begin : begin + _AT_A_TIME]


def _look(path: Path) -> Content:
    if not path.is_file():  # a pipe would be waited for
        kind = "is no regular file" if path.exists() else "there is no such file"
        return Content("", None, f"{path}: {kind}")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Content("", None, f"{path}: cannot be read ({error.strerror})")
    try:
        return Content(sha256, decoding.read_info(path), "")
    except UserError as error:
        return Content(sha256, None, str(error))


def _read_rows(path: Path) -> dict[str, _Row]:
    try:
        rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: _parse_row(**row) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _parse_row(state: Sequence[int], looked_ns: int, content: dict[str, Any]) -> _Row:
    info = content["info"]
    known = Content(**content | {"info": info and ImageInfo(**info)})
    return _Row(FileState(*state), looked_ns, known)
