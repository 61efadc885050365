"""Remember what each picture file contains, so that an unchanged file is read only once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trainer.base.errors import UserError
from trainer.base.files import write_text
from trainer.data.pictures import decoding
from trainer.data.pictures.decoding import ImageInfo
from trainer.data.pictures.parallel import in_parallel

# Some file systems count times in whole seconds, or in steps of two.
_CLOCK_STEP_NS = 2 * 10**9


class FileState(NamedTuple):
    """What changes when a file changes.

    Size and modification time are not enough: programs set that time (`tar`, `rsync`, `cp -p`), and
    `mv` puts another file in the same place. No program sets the change time.
    """

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int


@dataclass(frozen=True)
class PictureFile:
    """What is known of a file.

    Args:
        state: before it was read; None if there is no such file.
        read_ns: when it was read.
        sha256: of its bytes, hexadecimal; empty if they cannot be read.
        info: None if it is not a picture.
        error: why it is not one; otherwise empty.
    """

    state: FileState | None
    read_ns: int
    sha256: str
    info: ImageInfo | None
    error: str

    @property
    def is_settled(self) -> bool:
        """Whether a later change would show in the state: the last one was long enough before."""
        if self.state is None:
            return False
        changed_ns = max(self.state.modified_ns, self.state.changed_ns)
        return changed_ns + _CLOCK_STEP_NS < self.read_ns


def read_files(
    root: Path, names: Sequence[str], index: Path, *, remember: bool = True
) -> dict[str, PictureFile]:
    """Return what the files contain; read those that are new or may have changed.

    Args:
        names: the files, relative to `root`.
        index: where it is remembered; a missing or damaged file counts as empty.
        remember: whether to write the index.

    Raises:
        OSError: the index cannot be written.
    """
    stored = load(index)
    states = {name: state_of(root / name) for name in names}
    files = {
        name: stored[name]
        for name in names
        if name in stored and stored[name].state == states[name] and stored[name].is_settled
    }
    unread = [name for name in names if name not in files]
    read = in_parallel(lambda name: _read(root / name, states[name]), unread, "reading pictures")
    files |= dict(zip(unread, read, strict=True))
    rows = {name: files[name] for name in names if files[name].state}
    if remember and rows != stored:
        write_text(index, json.dumps({name: asdict(file) for name, file in rows.items()}))
    return {name: files[name] for name in names}


def is_up_to_date(root: Path, names: Sequence[str], index: Path) -> bool:
    """Return whether the index has all of these files in their present state."""
    stored = load(index)
    states = {name: state_of(root / name) for name in names}
    return all(
        name in stored and stored[name].state == state for name, state in states.items() if state
    )


def load(index: Path) -> dict[str, PictureFile]:
    """Return what an index has; nothing if it is missing or damaged."""
    try:
        rows: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        return {name: _parse(**row) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def state_of(path: Path) -> FileState | None:
    """Return the state of a file, or of what a link leads to; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return FileState(status.st_size, *times, status.st_ino, status.st_dev)


def _read(path: Path, state: FileState | None) -> PictureFile:
    read_ns, sha256, info, error = time.time_ns(), "", None, ""
    if not path.is_file():  # reading from a pipe would wait for ever
        kind = "is not a regular file" if path.exists() else "there is no such file"
        return PictureFile(state, read_ns, sha256, info, f"{path}: {kind}")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        info = decoding.read_info(path)
    except OSError as wrong:
        error = f"{path}: cannot be read ({wrong.strerror})"
    except UserError as wrong:
        error = str(wrong)
    return PictureFile(state, read_ns, sha256, info, error)


def _parse(state: Sequence[int], info: dict[str, Any] | None, **row: Any) -> PictureFile:
    return PictureFile(FileState(*state), info=ImageInfo(**info) if info else None, **row)
