"""Remember what each picture contains, so that one that is unchanged is read only once.

The index has a row for each picture, in columns. A picture is found in it by its state: its file's
size, times, inode and device, and where it lies in a larger file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.array_files import read_arrays, write_arrays
from trainer.base.errors import UserError
from trainer.data.pictures import decoding, file_states
from trainer.data.pictures.decoding import ImageInfo
from trainer.data.pictures.file_states import ABSENT
from trainer.data.pictures.parallel import in_parallel
from trainer.data.pictures.places import Place, Places, ReadPlace

_WRITE_EVERY_S = 60.0
"""while pictures are read, so that a kill loses no more"""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Contents:
    """What pictures contain, a row for each.

    Args:
        sha256: of the bytes of each, uint8 (n, 32); zeros if they cannot be read.
        sizes: height and width, upright by its EXIF orientation, int32 (n, 2).
        channels: as of `ImageInfo`, int16 (n,); 0: it is not a picture.
        value_ranges: the lowest and the highest value of those with more than 8 bits a channel,
            float64 (n, 2); NaN for the others.
        is_decoded: whether all pixels have been read, bool (n,).
        errors: why a picture cannot be read, by its row.
    """

    sha256: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int32]
    channels: npt.NDArray[np.int16]
    value_ranges: npt.NDArray[np.float64]
    is_decoded: npt.NDArray[np.bool_]
    errors: dict[int, str]

    def __len__(self) -> int:
        return len(self.channels)

    @property
    def is_picture(self) -> npt.NDArray[np.bool_]:
        """Which rows are pictures, bool (n,)."""
        return self.channels > 0

    def select(self, positions: Indices) -> Contents:
        """Return some of the rows, in this order."""
        broken = np.flatnonzero(np.isin(positions, list(self.errors))).tolist()
        return Contents(
            self.sha256[positions],
            self.sizes[positions],
            self.channels[positions],
            self.value_ranges[positions],
            self.is_decoded[positions],
            {row: self.errors[int(positions[row])] for row in broken},
        )


@dataclass(frozen=True, eq=False)
class _Index:
    """Contents with the states that pictures had, int64 (n, 8), before they were read at a time."""

    states: npt.NDArray[np.int64]
    read_ns: npt.NDArray[np.int64]
    contents: Contents

    def is_settled(self) -> npt.NDArray[np.bool_]:
        """Return whether a later change would show: the last one was long enough before."""
        changed_ns = self.states[:, 1:3].max(axis=1, initial=0) + file_states.CLOCK_STEP_NS
        settled: npt.NDArray[np.bool_] = changed_ns < self.read_ns
        return settled & _is_there(self.states)

    def select(self, positions: Indices) -> _Index:
        """Return some of the rows, in this order."""
        chosen = self.contents.select(positions)
        return _Index(self.states[positions], self.read_ns[positions], chosen)


def read_contents(
    parts: Sequence[Places],
    index: Path,
    max_megapixels: int,
    *,
    remember: bool = True,
    whole: bool = False,
) -> tuple[list[Contents], list[npt.NDArray[np.int64]]]:
    """Return what pictures contain; read those that are new or may have changed.

    What was read before an interrupt is remembered, too.

    Args:
        index: where it is remembered; a missing or damaged file counts as empty.
        max_megapixels: data.max_megapixels; a picture with more cannot be read.
        remember: whether to write the index.
        whole: whether to decode each picture, as the pixels may be broken where the head is not.

    Returns:
        For each part its contents, and the states that its pictures had before they were read.

    Raises:
        OSError: the index cannot be written.
    """
    stored = _load(index)
    states = np.concatenate([places.listed_states() for places in parts])
    rows = _find_rows(stored, states)
    rows[~np.append(stored.is_settled(), False)[rows]] = -1
    if whole:
        lacking = stored.contents.is_picture & ~stored.contents.is_decoded
        rows[np.append(lacking, False)[rows]] = -1
    known = np.flatnonzero(rows >= 0)
    found = _Index(states, np.zeros(len(states), np.int64), _no_contents(len(states)))
    _copy(stored, rows[known], found, known)
    begins = np.cumsum([0, *map(len, parts)])

    def read(position: int) -> _Row:
        part = int(np.searchsorted(begins, position, side="right")) - 1
        return _read(parts[part][position - int(begins[part])], max_megapixels, whole=whole)

    unread = np.flatnonzero(rows < 0).tolist()
    found.contents.is_decoded[unread] = whole
    results, written_s, done = in_parallel(read, unread, "reading pictures"), time.monotonic(), 0
    try:
        for position, row in zip(unread, results, strict=True):
            _put(found, position, row)
            done += 1
            if remember and time.monotonic() - written_s > _WRITE_EVERY_S:
                _write(index, found.select(np.sort(np.append(known, unread[:done]))))
                written_s = time.monotonic()
    except (KeyboardInterrupt, SystemExit):
        if remember:
            _write(index, found.select(np.sort(np.append(known, unread[:done]))))
        raise
    if remember and (_is_there(states)[unread].any() or len(stored.states) != len(states)):
        _write(index, found)
    split = [np.arange(begin, end) for begin, end in pairwise(begins)]
    return [found.contents.select(part) for part in split], [states[part] for part in split]


def is_up_to_date(parts: Sequence[Places], index: Path) -> bool:
    """Return whether the index has all of these pictures in their present state."""
    states = np.concatenate([places.listed_states() for places in parts])
    return bool((_find_rows(_load(index), states)[_is_there(states)] >= 0).all())


def load_contents(index: Path) -> Contents:
    """Return what an index has; nothing if it is missing or damaged."""
    return _load(index).contents


def _find_rows(stored: _Index, states: npt.NDArray[np.int64]) -> Indices:
    """Return the row of each state in an index, int64 (n,); -1 where it has none."""
    if np.array_equal(stored.states, states):
        return np.arange(len(states))
    rows = {state.tobytes(): row for row, state in enumerate(stored.states)}
    return np.array([rows.get(state.tobytes(), -1) for state in states], dtype=np.int64)


def _is_there(states: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.not_equal(states[:, 0], ABSENT[0])


# ------------------------------------------------------------------- reading


_Row = tuple[int, bytes, ImageInfo | None, str]
"""when it was read, SHA-256, what it is, and otherwise the error"""


def _read(place: Place, max_megapixels: int, *, whole: bool) -> _Row:
    read_ns, sha256, info, error = time.time_ns(), b"", None, ""
    try:
        if not place.file.is_file():  # reading from a pipe would wait for ever
            kind = "is not a regular file" if place.file.exists() else "there is no such file"
            return read_ns, sha256, info, f"{place}: {kind}"
        content = place.read()
        sha256 = hashlib.sha256(content).digest()
        place = ReadPlace(place.file, place.member, origin=place.origin, content=content)
        info = decoding.read_info(place, max_megapixels)
        if whole and info.lowest is None:  # otherwise it was decoded to find its values
            read = decoding.open_upright if info.channels in (1, 3) else decoding.read_bands
            read(place, info.channels, max_megapixels=None)
    except OSError as wrong:
        # As of a network or a worn disk, not of the picture: it is read again at the next start.
        read_ns, error = 0, f"{place}: cannot be read ({wrong.strerror})"
    except UserError as wrong:
        info, error = None, str(wrong)
    return read_ns, sha256, info, error


def _put(found: _Index, position: int, row: _Row) -> None:
    read_ns, sha256, info, error = row
    found.read_ns[position] = read_ns
    if sha256:
        found.contents.sha256[position] = np.frombuffer(sha256, np.uint8)
    if error:
        found.contents.errors[position] = error
    if info:
        found.contents.sizes[position] = info.height, info.width
        found.contents.channels[position] = info.channels
        if info.lowest is not None and info.highest is not None:
            found.contents.value_ranges[position] = info.lowest, info.highest


def _copy(stored: _Index, rows: Indices, found: _Index, positions: Indices) -> None:
    chosen = stored.contents.select(rows)
    found.read_ns[positions] = stored.read_ns[rows]
    for name in _COLUMNS:
        getattr(found.contents, name)[positions] = getattr(chosen, name)
    found.contents.errors.update({int(positions[row]): at for row, at in chosen.errors.items()})


def _no_contents(count: int) -> Contents:
    return Contents(
        sha256=np.zeros((count, 32), np.uint8),
        sizes=np.zeros((count, 2), np.int32),
        channels=np.zeros(count, np.int16),
        value_ranges=np.full((count, 2), np.nan),
        is_decoded=np.zeros(count, bool),
        errors={},
    )


# --------------------------------------------------------------------- its file


_COLUMNS = ("sha256", "sizes", "channels", "value_ranges", "is_decoded")


def _load(index: Path) -> _Index:
    """Read an index; it is empty if its file is missing or damaged."""
    arrays = read_arrays(index, ("states", "read_ns", "errors", *_COLUMNS))
    if arrays is None:
        return _Index(np.zeros((0, 8), np.int64), np.zeros(0, np.int64), _no_contents(0))
    columns = {name: arrays[name] for name in _COLUMNS}
    errors = {int(row): text for row, text in json.loads(str(arrays["errors"])).items()}
    return _Index(arrays["states"], arrays["read_ns"], Contents(**columns, errors=errors))


def _write(index: Path, content: _Index) -> None:
    columns = {name: getattr(content.contents, name) for name in _COLUMNS}
    errors = np.array(json.dumps(content.contents.errors))
    write_arrays(
        index,
        {"states": content.states, "read_ns": content.read_ns, "errors": errors, **columns},
    )
