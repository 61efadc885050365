"""Look for near copies of training pictures among those that judge a network, beside its training.

A run says at its start which pictures are exact copies, and which are nearly equal as far as
somebody has looked at them before. Otherwise they all have to be decoded: here this is done from
the cache or the files once more, with little memory, and kept for later runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from trainer.config.schema import DataConfig
from trainer.data import contamination, loading, near_copies
from trainer.data.dataset import Images
from trainer.data.sources import reading
from trainer.data.sources.stored_pictures import needs_stored
from trainer.data.stored.pictures import StoredPictures

MOST_PICTURES = 100_000
"""that are decoded for this: more would take many minutes of a core"""

_MEMORY_MB = 1
"""of pictures that are in memory for this"""


def is_needed(config: DataConfig, pictures: int) -> bool:
    """Return whether `search` has something to do: `pictures` in all parts together."""
    return config.has_pictures and pictures <= MOST_PICTURES


def search(
    config: DataConfig, seed: int, trained_on: Images, is_asked_to_stop: Callable[[], bool]
) -> tuple[str, ...]:
    """Return in words which validation and test pictures look nearly like training pictures.

    Args:
        config, seed: of the run, whose pictures have been prepared.
        trained_on: its training images, which say where pictures are kept.
        is_asked_to_stop: asked every few pictures.

    Returns:
        As `contamination.describe_near`; nothing where a run has said it at its start.

    Raises:
        UserError: a picture is broken, or the cache cannot be written.
    """
    config = replace(config, memory_limit_mb=_MEMORY_MB)
    if needs_stored(config):
        # Not in memory once more: what is on the disk serves the run, too.
        is_on_disk = (
            isinstance(trained_on, StoredPictures) and trained_on.store.choice.kind == "disk"
        )
        config = replace(config, cache="disk" if is_on_disk else "none")
    source = reading.read(config)
    subsets = loading.divide(config, source, seed, source.class_names)
    cached = loading.name_choice(subsets)
    if cached is None or near_copies.load(cached) is not None:
        return ()
    looks = np.empty(sum(len(subset.positions) for subset in subsets), near_copies.LOOK)
    row = 0
    for subset in subsets:
        for chunk in loading.image_set(subset.select()).chunks():
            if is_asked_to_stop():
                return ()
            looks[row : row + len(chunk)] = near_copies.describe(chunk)
            row += len(chunk)
    near_copies.keep(cached, looks)
    return contamination.describe_near(*subsets, looks)
