"""Decode the picture files that a source lists, once for each machine, and read what was decoded.

A source only lists files, their classes and parts (`PictureList`). One process of each machine
calls `prepare`: it reads, plans and decodes them, and notes in the cache where. All processes then
`read` its plan and its pixels, and do not look at the files again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from trainer.base.errors import UserError
from trainer.base.files import write_text
from trainer.base.locks import lock_file
from trainer.config.schema import DataConfig
from trainer.data.pictures.decoding import ImageInfo
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.names import join_some
from trainer.data.sources import decoded_cache, picture_index
from trainer.data.sources.decoded_cache import DecodedPictures
from trainer.data.sources.download import cache_folder
from trainer.data.sources.picture_index import PictureFile, state_of
from trainer.data.sources.picture_plan import FORMAT, PictureList, make_plan
from trainer.data.sources.source_data import SourceData, SourceSplit
from trainer.ranks import processes

_FEW_GREYS = 16
"""what 12 bits keep next to 16: fewer are worth a warning"""

log = logging.getLogger("lockstep")


def prepare(pictures: PictureList, config: DataConfig, only: str | None = None) -> None:
    """Decode the pictures unless that was done before; processes wait for the one that does it.

    Args:
        only: the part that was listed; None: all of them, as a run needs them.

    Raises:
        UserError: pictures are broken and are not to be skipped, a class has too few, or the cache
            cannot be written.
    """
    root, cache = pictures.root, cache_folder("folder")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = _index(root, only).with_suffix(".lock")
        without = "processes that start together decode the same pictures, each for itself"
        with lock_file(lock, "decodes these pictures", without) as exclusive:
            files = picture_index.read_files(root, pictures.files(), _index(root, only))
            plan = make_plan(config, pictures, files)
            entry = cache / plan.key
            decoded = decoded_cache.load(entry)
            if not decoded:
                check = partial(_check_unchanged, root, files)
                decoded = decoded_cache.write(
                    entry, pictures, plan, check=check, exclusive=exclusive
                )
            unreadable = [file.error for file in files.values() if file.error]
            _check_errors([*unreadable, *decoded.errors.values()], len(files), config)
            if not only:
                _check_classes(decoded)
            if _read_pointer(root, config, only) != entry.name:
                write_text(_pointer(root, config, only), entry.name)
    except OSError as error:
        raise UserError(
            f"data.root: {root} cannot be decoded into the cache {cache} ({error}); make room, or "
            "set XDG_CACHE_HOME to another folder"
        ) from error
    if processes.launched_rank() == 0:
        for warning in pictures.warnings:
            log.warning("%s: %s", root, warning)
        if pictures.makes_test:
            log.warning("%s has no folder test: %s", root, _about_test(decoded))
        _warn_of_few_greys(root, files, decoded.grey_range)


def describe_undecoded(pictures: PictureList, config: DataConfig) -> str | None:
    """Return, in words, what `prepare` would have to decode; None if it was done before."""
    root, names = pictures.root, pictures.files()
    if picture_index.is_up_to_date(root, names, _index(root)):
        files = picture_index.read_files(root, names, _index(root), remember=False)
        decoded = _find(root, config)
        if decoded and decoded.entry.name == make_plan(config, pictures, files).key:
            return None
    counts = ", ".join(f"{len(files):,} in {part}" for part, files in pictures.parts.items())
    return (
        f"pictures of {len(pictures.class_names)} classes in {root}, not decoded yet: {counts}; a "
        f"run does it at its start, into {cache_folder('folder')}"
    )


def read(root: Path, config: DataConfig, limit_bytes: float) -> SourceData:
    """Read what `prepare` has decoded.

    Args:
        limit_bytes: larger images stay in the cache's file.

    Raises:
        UserError: it is not there.
    """
    decoded = _load(root, config)
    origin = f"data.root {root}"
    if decoded.made_test:
        origin += f" (no folder test: {_about_test(decoded)})"
    if decoded.grey_range:
        low, high = decoded.grey_range
        origin += f" (of pictures of more than 8 bits {low:g} is black and {high:g} white)"
    parts = {part: decoded.read(part, root, limit_bytes) for part in decoded.parts}
    return SourceData(
        train=parts["train"],
        test=parts["test"],
        class_names=decoded.class_names,
        origin=origin,
        validation=parts.get("validation"),
        grey_range=decoded.grey_range,
    )


def read_part(root: Path, config: DataConfig, limit_bytes: float, only: str) -> SourceSplit:
    """Read the one part that `prepare` has decoded; arguments and errors as those of `read`."""
    decoded = _load(root, config, only)
    return SourceSplit(
        data=decoded.read(only, root, limit_bytes),
        class_names=decoded.class_names,
        origin=f"data.root {root} (only its {only} images)",
    )


def forget(root: Path, config: DataConfig, only: str | None = None) -> None:
    """Forget where the pictures were decoded, as the folder is no longer as it was then."""
    if (pointer := _pointer(root, config, only)).is_file():
        pointer.unlink()


def read_infos(root: Path) -> Mapping[str, ImageInfo]:
    """Return what each picture is in its file, by name, after `prepare`."""
    files = picture_index.load(_index(root))
    return {name: file.info for name, file in files.items() if file.info}


def _load(root: Path, config: DataConfig, only: str | None = None) -> DecodedPictures:
    decoded = _find(root, config, only)
    if not decoded:
        raise UserError(
            f"data.root: the pictures of {root} are no longer decoded in {cache_folder('folder')}; "
            "start again"
        )
    return decoded


def _find(root: Path, config: DataConfig, only: str | None = None) -> DecodedPictures | None:
    """Return what `prepare` has decoded; None if it is not there."""
    key = _read_pointer(root, config, only)
    return decoded_cache.load(cache_folder("folder") / key) if key else None


def _read_pointer(root: Path, config: DataConfig, only: str | None) -> str | None:
    try:
        return _pointer(root, config, only).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _index(root: Path, only: str | None = None) -> Path:
    # A part that is listed by itself has its own: the index would lose the files of the others.
    return cache_folder("folder") / f"index-{_hash(root, only)}.json"


def _pointer(root: Path, config: DataConfig, only: str | None) -> Path:
    # Of this machine: others may share the cache and have other files in a folder of this name.
    chosen = (config.height_and_width, config.resize, config.channels, config.grey_range)
    return (
        cache_folder("folder")
        / f"decoded-{_hash(root, only, chosen, config.on_bad, platform.node())}.txt"
    )


def _hash(root: Path, *more: object) -> str:
    content = os.fsencode(root.resolve()) + repr((FORMAT, *more)).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _check_unchanged(root: Path, files: Mapping[str, PictureFile]) -> None:
    """Refuse files that changed: the cache names pixels by what the files contained when read."""
    for name, file in files.items():
        if state_of(root / name) != file.state:
            raise UserError(f"{root / name}: was changed while it was read; start again")


def _check_errors(errors: Sequence[str], count: int, config: DataConfig) -> None:
    if not errors:
        return
    counts = f"{len(errors):,} of {count:,} pictures cannot be read"
    named = "- " + join_some(errors, "\n- ")
    if config.on_bad == "stop":
        raise UserError(
            f"data.root: {counts}:\n{named}\nRepair or remove them, or leave them out: "
            "data.on_bad: skip"
        )
    if processes.launched_rank() == 0:
        log.warning("%s and are left out:\n%s", counts, named)


def _check_classes(decoded: DecodedPictures) -> None:
    for part in decoded.parts:
        found = {label for _, label in decoded.labelled_files(part)}
        lacking = set(range(len(decoded.class_names))) - found
        if lacking:
            raise UserError(
                f"data.root: none of the pictures of class {decoded.class_names[min(lacking)]} in "
                f"{part} can be read"
            )


def _about_test(decoded: DecodedPictures) -> str:
    return (
        f"{len(decoded.parts['test']):,} of the pictures in train, chosen by their content, are "
        "kept for the test and not trained on"
    )


def _warn_of_few_greys(
    root: Path, files: Mapping[str, PictureFile], grey_range: GreyRange | None
) -> None:
    """Warn if a wrong pixel in one file of more than 8 bits takes the contrast of all others."""
    if grey_range is None:
        return
    low, high = grey_range
    spans = {
        name: file.info.highest - file.info.lowest
        for name, file in files.items()
        if file.info and file.info.lowest is not None and file.info.highest is not None
    }
    flat = [name for name, span in spans.items() if 0 < 255 * span < _FEW_GREYS * (high - low)]
    if flat:
        log.warning(
            "%s: %s of %s pictures of more than 8 bits keep fewer than %s greys, as %g is black "
            "and %g white, the range of the pictures to train on or data.grey_range, which sets "
            "another: %s",
            root, f"{len(flat):,}", f"{len(spans):,}", _FEW_GREYS, low, high, join_some(flat),
        )  # fmt: skip
