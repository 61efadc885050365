"""Find images of different parts that look nearly the same, as copies in another size or quality.

Each image is shrunk to 8 x 9 greys; its hash has a bit for each pixel that is brighter than its
left neighbour (dHash: N. Krawetz, "Kind of Like That", 2013). Copies differ in few bits. Hashes
that differ in at most three agree in one of four bands of 16 bits, so only those that share a band
are compared. Flat images have the same hash: pairs count only where their pictures of 16 x 16 greys
are alike too.

What images look like is kept in the cache beside what else is known of them, so that a run can warn
of near copies whose images somebody has looked at before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import adaptive_avg_pool2d

from trainer.base.errors import UserError
from trainer.base.files import write_file
from trainer.data.sources import notes
from trainer.data.sources.source_data import Cached

MOST_BITS = 3
"""in which the hashes of nearly equal images differ"""
MOST_LEVELS = 6.0
"""of 255, by which their small pictures differ on average"""

LOOK = np.dtype([("hash", "<u8"), ("small", "u1", (256,))])
"""what an image looks like: its hash, and its picture of 16 x 16 greys"""
Looks = npt.NDArray[np.void]
"""of LOOK, (n,); it may be mapped from a file"""
Positions = npt.NDArray[np.int64]

_BANDS = 4
_SMALL = 16
_MOST_ALIKE = 50
"""images of a part with one hash that are compared: more are flat, or equal in every pixel"""
_MOST_AT_ONCE = 2**20
"""pairs of hashes that are compared together"""
_BLOCK = 2**12
"""pairs whose small pictures are compared together"""
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class NearPairs:
    """Pairs of nearly equal images, the nearest first.

    Args:
        ones, others: their positions in two parts, int64 (n,).
        bits: in which their hashes differ, int64 (n,).
    """

    ones: Positions
    others: Positions
    bits: Positions

    def select(self, rows: Positions) -> NearPairs:
        """Return some of the pairs."""
        return NearPairs(self.ones[rows], self.others[rows], self.bits[rows])


def describe(images: torch.Tensor) -> Looks:
    """Return what images, uint8 (n, channels, height, width), look like."""
    weights = (1 << np.arange(64, dtype=np.uint64)).astype(np.uint64)
    grey = images.cpu().float().mean(1, keepdim=True)
    levels = adaptive_avg_pool2d(grey, (8, 9))
    bits = (levels[..., 1:] > levels[..., :-1]).flatten(1).numpy()
    found = np.empty(len(images), dtype=LOOK)
    found["hash"] = (bits * weights).sum(1, dtype=np.uint64)
    small = adaptive_avg_pool2d(grey, _SMALL).flatten(1).round()
    found["small"] = small.to(torch.uint8).numpy()
    return found


def find_pairs(ones: Looks, others: Looks) -> NearPairs:
    """Find the pairs of nearly equal images of two parts.

    Of more than `_MOST_ALIKE` images of a part with one hash, only the first are compared.
    """
    first, second = (_compared(looks["hash"]) for looks in (ones, others))
    none = np.zeros(0, np.int64)
    rows, columns, bits = [none], [none], [none]
    for row, column, differing in _near_hashes(ones["hash"][first], others["hash"][second]):
        row, column = first[row], second[column]
        alike = _difference(ones, row, others, column) <= MOST_LEVELS
        for values, chosen in ((rows, row), (columns, column), (bits, differing)):
            values.append(chosen[alike])
    row, column, differing = map(np.concatenate, (rows, columns, bits))
    order = np.lexsort((column, row, differing))
    return NearPairs(row[order], column[order], differing[order])


def _compared(hashes: npt.NDArray[np.uint64]) -> Positions:
    """Return the positions of the first images with each hash."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    turn = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return order[turn < _MOST_ALIKE]


def _near_hashes(
    ones: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]
) -> Iterator[tuple[Positions, Positions, Positions]]:
    """Yield the positions of pairs of hashes that differ in few bits, and in how many."""
    for band in range(_BANDS):
        own, theirs = _band(ones, band), _band(others, band)
        order = np.argsort(theirs, kind="stable")
        ordered = theirs[order]
        begins = np.searchsorted(ordered, own)
        counts = np.searchsorted(ordered, own, side="right") - begins
        ends = np.cumsum(counts)
        begin = 0
        while begin < len(own):
            before = int(ends[begin - 1]) if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, before + _MOST_AT_ONCE, side="right")))
            of_block = counts[begin:end]
            row = np.repeat(np.arange(begin, end), of_block)
            within = np.arange(len(row)) - np.repeat(np.cumsum(of_block) - of_block, of_block)
            column = order[begins[row] + within]
            bits = np.bitwise_count(ones[row] ^ others[column]).astype(np.int64)
            near = bits <= MOST_BITS
            for earlier in range(band):  # which has given the pair already
                near &= _band(ones, earlier)[row] != _band(others, earlier)[column]
            yield row[near], column[near], bits[near]
            begin = end


def _band(hashes: npt.NDArray[np.uint64], band: int) -> npt.NDArray[np.uint64]:
    found: npt.NDArray[np.uint64] = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
    return found


def _difference(
    ones: Looks, row: Positions, others: Looks, column: Positions
) -> npt.NDArray[np.float64]:
    """Return by how many levels the small pictures of pairs differ on average, (n,)."""
    found = np.zeros(len(row))
    for begin in range(0, len(row), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        left = ones["small"][row[block]].astype(np.int16)
        found[block] = np.abs(left - others["small"][column[block]]).mean(1)
    return found


def load(cached: Cached) -> Looks | None:
    """Return what chosen images look like; None if nobody has looked at them, or not wholly."""
    try:
        looks: Looks = np.load(_path(cached), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return looks if looks.dtype == LOOK and looks.ndim == 1 else None


def keep(cached: Cached, looks: Looks) -> None:
    """Keep what chosen images look like.

    Raises:
        UserError: it cannot be written.
    """

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array(file, looks, allow_pickle=False)

    try:
        write_file(_path(cached), write)
        notes.note_use(_path(cached))
    except OSError as error:
        raise UserError(
            f"data.root: what the images look like cannot be kept in the cache {cached.notes} "
            f"({error}); make room, or set XDG_CACHE_HOME to another folder"
        ) from error


def _path(cached: Cached) -> Path:
    name = hashlib.sha256(repr((_FORMAT, cached.name)).encode()).hexdigest()[:32]
    return cached.notes / f"looks-{name}.npy"
