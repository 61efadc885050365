"""The loaders that photos.py compares, each in a process of its own.

`python -m photo_loaders NAME TASK DESCRIPTOR` runs one; photos.py starts them. All give the same
batches: photographs cropped at random (area 8 to 100 %, aspect 3/4 to 4/3), resized to a square,
mirrored half of the time, and scaled by ImageNet's mean and deviation to float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["memory", "disk", "none"]
"""values of data.cache"""


@dataclass(frozen=True)
class Task:
    """What a loader is given, as JSON."""

    root: str
    """folder with train/CLASS/*.jpg"""
    image_size: int
    batch_size: int
    workers: int
    """worker processes of the others; as many threads decode in ours"""
    epochs: int
    seed: int
    folder: str
    """for the cache of ours"""
    cache: Place
    """data.cache, of ours"""


@dataclass(frozen=True)
class Entry:
    """A loader as the page names it."""

    title: str
    package: str
    """the distribution whose version counts"""
    module: str
    """what is imported"""
    cache: Place | None = None
    """data.cache, of ours"""


ORIGINALS, CACHED = "originals", "disk_cache"

LOADERS = {
    ORIGINALS: Entry("**Lockstep, from the originals**", "torch", "trainer", "none"),
    CACHED: Entry("**Lockstep, from the cache on the disk**", "torch", "trainer", "disk"),
    "memory_cache": Entry("**Lockstep, from memory**", "torch", "trainer", "memory"),
    "torchvision": Entry(
        "torchvision, `ImageFolder` and `DataLoader`", "torchvision", "torchvision"
    ),
    "timm": Entry("timm, `create_loader`", "timm", "timm"),
}
OURS = [name for name, entry in LOADERS.items() if entry.cache]
