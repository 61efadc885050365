"""Name the files in the cache in which is noted what pictures contain and become."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from dataclasses import asdict
from pathlib import Path

from trainer.config.schema import DataConfig
from trainer.data.pictures import formats
from trainer.data.sources.download import cache_folder
from trainer.data.sources.picture_plan import FORMAT
from trainer.data.stored import entries

_LATER_KEYS = (
    *("train_size", "test_size", "validation_size", "validation", "folds", "fold"),
    *("scaling", "mean", "deviation", "sampling"),
    *("augment", "test_augment", "mixup", "cutmix", "image_size_schedule", "prefetch"),
    *("store_size", "store_format", "store_quality"),
    "slice_columns",
    *("memory_limit_mb", "device_memory_gb", "cache", "cache_dir", "cache_limit_gb"),
)
"""of what a run does with images when they have been planned"""

_MOST_OF_A_KIND = 16
"""notes of a root that are kept, of other configurations too: a run holds the whole entry"""


def index_of(config: DataConfig, only: str | None = None) -> Path:
    """Return the file of what pictures contain; `only`: the part that was listed, None for all."""
    # A part that is listed by itself has its own: the index would lose the files of the others.
    # What can be read depends on the limit and on the decoders.
    able = (config.max_megapixels, formats.decoder_versions())
    return entry_of(config) / f"index-{_hash(config, only, able)}.npz"


def plan_of(config: DataConfig, only: str | None) -> Path:
    """Return the file of what pictures become; `only` as of `index_of`."""
    # Of this machine: others may share the cache and have other files in a folder of this name.
    keys = {key: value for key, value in asdict(config).items() if key not in _LATER_KEYS}
    return entry_of(config) / f"plan-{_hash(config, only, keys, platform.node())}.npz"


def entry_of(config: DataConfig) -> Path:
    """Return the entry of the cache for what is noted of the pictures of a root."""
    root = Path(config.root).expanduser() if config.root else cache_folder(config.name)
    return cache_folder("folder") / entries.name_of("notes", root)


def note_use(file: Path) -> None:
    """Note that a file of an entry is used, and remove those of its kind that were not for longest.

    Args:
        file: its name begins with its kind and a hyphen.
    """
    used_ns: dict[Path, int] = {}
    # It belongs to somebody else, or another process has removed it.
    with contextlib.suppress(PermissionError, FileNotFoundError):
        os.utime(file)
    for one in file.parent.glob(f"{file.name.partition('-')[0]}-*{file.suffix}"):
        with contextlib.suppress(FileNotFoundError):
            used_ns[one] = one.stat().st_mtime_ns
    for one in sorted(used_ns, key=used_ns.__getitem__)[:-_MOST_OF_A_KIND]:
        with contextlib.suppress(PermissionError):
            for old in (one, one.with_suffix(".lock")):
                old.unlink(missing_ok=True)


def _hash(config: DataConfig, *more: object) -> str:
    root = os.fsencode(os.path.realpath(Path(config.root).expanduser())) if config.root else b""
    content = root + repr((FORMAT, config.name, *more)).encode()
    return hashlib.sha256(content).hexdigest()[:16]
