"""Fingerprint the images of a run and fit their scaling; remember both beside decoded pictures.

Images whose pixels are in memory or in a file are fingerprinted and summed up pixel by pixel. Where
the pictures were decoded into the cache, that is done once for a choice of them, not at each start.
Pictures that each batch decodes again are fingerprinted by their files and by what is made of them,
and `SAMPLE` of them decide on the scaling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from trainer.base import seeding
from trainer.base.array_files import read_arrays, write_arrays
from trainer.base.errors import UserError
from trainer.base.files import remove_leftovers
from trainer.base.locks import lock_file
from trainer.config.schema import ScalingKind
from trainer.data.dataset import ImageSet, UndecodedImages
from trainer.data.scaling import PixelSums, Scaling
from trainer.data.sources import notes
from trainer.data.sources.source_data import Cached
from trainer.ranks import processes

SAMPLE = 256
"""training pictures, drawn by the seed, that the scaling is fitted on where none is decoded yet;
a mean of so many is within a few levels of that of all, and the first step waits for them"""

_BLOCK = 64
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Measurements:
    """What is known of the images of a run.

    Args:
        fingerprint: SHA-256, hexadecimal, of all of them.
        scaling: fitted on those to train on.
    """

    fingerprint: str
    scaling: Scaling


def measure(
    sets: Sequence[ImageSet],
    kind: ScalingKind,
    seed: int,
    cached: Cached | None,
    fixed: Scaling | None = None,
) -> Measurements:
    """Measure the images to train on, to validate on and to test on, in this order.

    Args:
        seed: the run's.
        cached: names the images of the three sets, where they are in the cache; None: measure them
            at every start.
        fixed: the scaling where the images do not decide on it.

    Raises:
        UserError: a picture is broken, or the cache cannot be written.
    """
    if cached is None:
        return _measure(sets, kind, seed, fixed)
    found = _measure_once(sets, kind, seed, cached, fixed)
    return found if fixed is None else replace(found, scaling=fixed)


def _measure_once(
    sets: Sequence[ImageSet], kind: ScalingKind, seed: int, cached: Cached, fixed: Scaling | None
) -> Measurements:
    """Return what the cache knows of the images, or measure them."""
    decides = (_FORMAT, SAMPLE, cached.name, kind, seed)
    name = hashlib.sha256(repr(decides).encode()).hexdigest()[:32]
    path = cached.notes / f"measured-{name}.npz"
    if known := _load(path):
        notes.note_use(path)
        return known
    try:
        without = "processes that start together measure the same images, each for itself"
        lock = path.with_suffix(".lock")
        with lock_file(lock, "measures these images", without) as exclusive:
            if known := _load(path):
                return known
            if exclusive:
                remove_leftovers(path)
            with processes.use_all_cores():
                found = _measure(sets, kind, seed, fixed)
            _write(path, found)
            notes.note_use(path)
            return found
    except OSError as error:
        raise UserError(
            f"data.root: what was measured cannot be kept in the cache {cached.notes} ({error}); "
            "make room, or set XDG_CACHE_HOME to another folder"
        ) from error


def fingerprint_of(images: ImageSet) -> str:
    """Return the SHA-256, hexadecimal, of the shape, the bytes and the targets of one set."""
    digest = hashlib.sha256()
    _add_to_digest(digest, images, None)
    return digest.hexdigest()


def _measure(
    sets: Sequence[ImageSet], kind: ScalingKind, seed: int, fixed: Scaling | None
) -> Measurements:
    # In one pass over their bytes.
    digest, sums = hashlib.sha256(), PixelSums()
    for images in sets:
        is_fitted_on = images is sets[0] and fixed is None
        _add_to_digest(digest, images, sums if is_fitted_on else None)
    if fixed is None and isinstance(sets[0].images, UndecodedImages):
        _add_sample(sums, sets[0], seed)
    return Measurements(digest.hexdigest(), fixed or sums.scaling(kind))


def _add_to_digest(digest: hashlib._Hash, images: ImageSet, sums: PixelSums | None) -> None:
    digest.update(repr(tuple(images.images.shape)).encode())
    if isinstance(images.images, UndecodedImages):
        digest.update(images.images.identity.encode())
        digest.update(np.ascontiguousarray(images.images.sha256).data)
    else:
        for chunk in images.chunks():
            digest.update(chunk.cpu().numpy().data)
            if sums is not None:
                sums.add(chunk)
    digest.update(images.targets.cpu().numpy().astype("<i8").data)


def _add_sample(sums: PixelSums, train: ImageSet, seed: int) -> None:
    order = seeding.generator(seed, "scaling").permutation(len(train))
    sample = torch.from_numpy(np.sort(order[:SAMPLE]))
    for block in torch.split(sample, _BLOCK):
        sums.add(train.images.index_select(0, block))


def _load(path: Path) -> Measurements | None:
    """Read what was measured; None if the file is missing or damaged."""
    arrays = read_arrays(path, ("fingerprint", "mean", "deviation"))
    if arrays is None:
        return None
    scaling = Scaling(torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["deviation"]))
    return Measurements(str(arrays["fingerprint"]), scaling)


def _write(path: Path, found: Measurements) -> None:
    write_arrays(
        path,
        {
            "fingerprint": np.array(found.fingerprint),
            "mean": found.scaling.mean.numpy(),
            "deviation": found.scaling.deviation.numpy(),
        },
    )
