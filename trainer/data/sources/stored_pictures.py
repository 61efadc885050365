"""Open the pictures of a run in their stored form, from which each batch is cut."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.config import augmentations
from trainer.config.schema import DataConfig
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.picture_set import KnownPictures
from trainer.data.pictures.resizing import fit_of
from trainer.data.stored import entries
from trainer.data.stored.form import StoredForm, form_of
from trainer.data.stored.keeping import Choice, InMemory, Keeper, Nowhere, choose
from trainer.data.stored.pictures import PictureStore, StoredPictures
from trainer.data.stored.slots import open_slots
from trainer.ranks import memory, processes


def needs_stored(config: DataConfig) -> bool:
    """Return whether pictures are kept in a stored form, as an epoch's pixels differ or may differ.

    Otherwise each picture becomes the same image in every epoch, and is decoded to it once.
    """
    names = augmentations.names_in(config.augment) if isinstance(config.augment, list) else []
    return (
        "random_resized_crop" in names
        or config.image_size_schedule is not None
        or config.store_size is not None
        or config.store_format != "pixels"
    )


def open_stored(
    parts: Mapping[str, KnownPictures],
    config: DataConfig,
    *,
    root: Path,
    image_size: tuple[int, int],
    channels: int,
    grey_range: GreyRange | None,
    is_whole: bool = False,
) -> dict[str, StoredPictures]:
    """Open the pictures of all parts; none is read yet.

    Args:
        parts: train, validation and test, as far as they are there.
        root: of the pictures: each has its own file in the cache.
        image_size: height and width of the images.
        channels, grey_range: of the images, as chosen for the pictures to train on.
        is_whole: whether these are all pictures of the root, so that others in its cache are of no
            more use.

    Raises:
        UserError: what data.cache asks for cannot be written.
    """
    form = form_of(config, channels, grey_range)
    sizes = {part: form.sizes(known.sizes) for part, known in parts.items()}
    limit_bytes = memory.image_limit_bytes(config.memory_limit_mb)
    keeper, choice = _keeper(
        config,
        form,
        root,
        np.concatenate([known.sha256 for known in parts.values()]),
        np.concatenate([*sizes.values()]),
        _size_bytes(config, form, sizes),
        limit_bytes,
        is_whole=is_whole,
    )
    opened, first = {}, 0
    for part, known in parts.items():
        store = PictureStore(known, form, keeper, first, choice)
        positions = np.arange(len(known.sizes), dtype=np.int64)
        opened[part] = StoredPictures(positions, store, image_size, fit_of(config))
        first += len(positions)
    return opened


def _size_bytes(
    config: DataConfig, form: StoredForm, sizes: Mapping[str, npt.NDArray[np.int64]]
) -> int:
    """Return what the pictures take that a run uses: of each part the first ones."""
    used = {
        "train": config.train_size,
        "validation": config.validation_size,
        "test": config.test_size if config.folds is None else 0,
    }
    pixels = sum(int(of_part[: used[part]].prod(1).sum()) for part, of_part in sizes.items())
    # What a JPEG of it takes is known when it is made: here what photographs take at quality 90.
    return pixels * form.channels // (1 if form.quality is None else 6)


def _keeper(
    config: DataConfig,
    form: StoredForm,
    root: Path,
    sha256: npt.NDArray[np.uint8],
    sizes: npt.NDArray[np.int64],
    size_bytes: int,
    limit_bytes: float,
    *,
    is_whole: bool,
) -> tuple[Keeper, Choice]:
    folder = entries.folder_of(config)
    entry = folder / entries.name_of("stored", root, form.key)
    try:
        # The processes of a machine keep them together.
        choice = choose(config, size_bytes, limit_bytes * processes.local_count(), entry)
        if choice.kind == "disk":
            entries.use(entry, f"{root}: {form}")
        if processes.launched_local_rank() == 0:
            growth_bytes = max(0, size_bytes - entries.size_of(entry))
            entries.keep_within_limit(config, growth_bytes if choice.kind == "disk" else 0)
        if choice.kind == "memory":
            return InMemory(limit_bytes, sha256, form.most_bytes(sizes)), choice
        if choice.kind == "none":
            return Nowhere(), choice
        others = sum(one.size_bytes for one in entries.list_entries(folder) if one.path != entry)
        most_bytes = config.cache_limit_gb * 1e9 - others
        slots = open_slots(entry, sha256, form.most_bytes(sizes), most_bytes, is_whole=is_whole)
    except OSError as error:
        if config.cache == "auto":
            reason = f"{folder} cannot be written ({error.strerror or error})"
            return Nowhere(), Choice("none", reason)
        raise UserError(
            f"data.cache: {entry} cannot be written ({error.strerror or error}); make room, set "
            "data.cache_dir to another folder, or data.cache to none"
        ) from error
    return slots, choice
