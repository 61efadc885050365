"""Decode the pictures that a source lists, once for each machine, and read what was decoded.

A source only lists pictures, their classes and parts (`PictureList`). One process of each machine
calls `prepare`: it reads, plans and decodes them, and writes the plan into the cache. All processes
then `read` the plan and the pixels, and do not look at the pictures again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.locks import lock_file
from trainer.config.schema import DataConfig
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.names import join_some
from trainer.data.sources import decoded_cache, picture_index, plan_file
from trainer.data.sources.decoded_cache import DecodedPictures
from trainer.data.sources.download import cache_folder
from trainer.data.sources.picture_index import Contents
from trainer.data.sources.picture_plan import FORMAT, PictureList, Plan, make_plan
from trainer.data.sources.plan_file import WrittenPlan
from trainer.data.sources.source_data import LabelledImages, SourceData, SourceSplit
from trainer.ranks import processes

_FEW_GREYS = 16
"""what 12 bits keep next to 16: fewer are worth a warning"""

# What a run does with images when they have been planned.
_LATER_KEYS = (
    *("train_size", "test_size", "validation_size", "validation", "folds", "fold", "scaling"),
    *("augment", "test_augment", "mixup", "cutmix", "memory_limit_mb"),
)

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
        lock = _index(config, only).with_suffix(".lock")
        without = "processes that start together decode the same pictures, each for itself"
        with lock_file(lock, "decodes these pictures", without) as exclusive:
            contents, states = _read_contents(pictures, _index(config, only))
            plan = make_plan(config, pictures, contents)
            entry = cache / plan.key
            decoded = decoded_cache.load(entry)
            if not decoded:
                check = partial(_check_unchanged, pictures, states)
                decoded = decoded_cache.write(entry, plan, check=check, exclusive=exclusive)
            unreadable = [
                error for part in contents.values() for _, error in sorted(part.errors.items())
            ]
            undecoded = [error for errors in decoded.errors.values() for error in errors.values()]
            _check_errors([*unreadable, *undecoded], len(pictures), config)
            if not only:
                _check_classes(plan, decoded, pictures.class_names)
            plan_file.write(_plan(config, only), pictures, plan)
    except OSError as error:
        raise UserError(
            f"data.root: {root} cannot be decoded into the cache {cache} ({error}); make room, or "
            "set XDG_CACHE_HOME to another folder"
        ) from error
    if processes.launched_rank() == 0:
        for warning in pictures.warnings:
            log.warning("%s: %s", root, warning)
        if pictures.makes_test:
            log.warning("%s has %s", root, _about_test(pictures.kind, plan, decoded))
        _warn_of_few_greys(pictures, contents, plan.target.grey_range)


def describe_undecoded(pictures: PictureList, config: DataConfig) -> str | None:
    """Return, in words, what `prepare` would have to decode; None if it was done before."""
    root, index = pictures.root, _index(config)
    if picture_index.is_up_to_date([part.places for part in pictures.parts.values()], index):
        contents, _ = _read_contents(pictures, index, remember=False)
        written = _find(config)
        if written and written[0].plan.key == make_plan(config, pictures, contents).key:
            return None
    counts = ", ".join(f"{len(listed):,} in {part}" for part, listed in pictures.parts.items())
    return (
        f"pictures of {len(pictures.class_names)} classes in {root}, not decoded yet: {counts}; a "
        f"run does it at its start, into {cache_folder('folder')}"
    )


def read(config: DataConfig, limit_bytes: float) -> SourceData:
    """Read what `prepare` has decoded.

    Args:
        limit_bytes: larger images stay in the cache's file.

    Raises:
        UserError: it is not there.
    """
    written, decoded = _load(config)
    origin = f"data.root {written.root}"
    parts = {part: _read_part(written, decoded, part, limit_bytes) for part in written.plan.parts}
    if written.makes_test:
        origin += f" ({_about_test(written.kind, written.plan, decoded)})"
    if written.groups:
        count = len(np.unique(np.concatenate(list(written.groups.values()))))
        origin += f", {count:,} groups"
    grey_range = written.plan.target.grey_range
    if grey_range:
        low, high = grey_range
        origin += f" (of pictures of more than 8 bits {low:g} is black and {high:g} white)"
    return SourceData(
        train=parts["train"],
        test=parts["test"],
        class_names=written.class_names,
        origin=origin,
        validation=parts.get("validation"),
        grey_range=grey_range,
    )


def read_part(config: DataConfig, limit_bytes: float, only: str) -> SourceSplit:
    """Read the one part that `prepare` has decoded; arguments and errors as those of `read`."""
    written, decoded = _load(config, only)
    return SourceSplit(
        data=_read_part(written, decoded, only, limit_bytes),
        class_names=written.class_names,
        origin=f"data.root {written.root} (only its {only} images)",
    )


def forget(config: DataConfig, only: str | None = None) -> None:
    """Forget the plan, as the pictures are no longer as they were then."""
    if (plan := _plan(config, only)).is_file():
        plan.unlink()


def read_contents(config: DataConfig) -> Contents:
    """Return what each picture is in its file, after `prepare`, in the order of the list."""
    return picture_index.load_contents(_index(config))


def _read_contents(
    pictures: PictureList, index: Path, *, remember: bool = True
) -> tuple[dict[str, Contents], dict[str, npt.NDArray[np.int64]]]:
    places = [listed.places for listed in pictures.parts.values()]
    contents, states = picture_index.read_contents(places, index, remember=remember)
    return (
        dict(zip(pictures.parts, contents, strict=True)),
        dict(zip(pictures.parts, states, strict=True)),
    )


def _read_part(
    written: WrittenPlan, decoded: DecodedPictures, part: str, limit_bytes: float
) -> LabelledImages:
    known, groups = written.plan.parts[part], written.groups.get(part)
    left = decoded.positions(part, len(known))
    known = known.select(left)
    where = f"{written.root / part}" if written.kind == "folder" else f"{written.root}: {part}"
    return LabelledImages(
        images=decoded.read(part, limit_bytes),
        labels=known.listed.labels,
        images_file=where,
        labels_file=where,
        names=known.listed.places.names,
        groups=None if groups is None else groups[left],
        weights=known.listed.weights,
        content=decoded.name(part),
    )


def _load(config: DataConfig, only: str | None = None) -> tuple[WrittenPlan, DecodedPictures]:
    found = _find(config, only)
    if not found:
        raise UserError(
            f"data.root: the pictures of {config.root} are no longer decoded in "
            f"{cache_folder('folder')}; start again"
        )
    return found


def _find(
    config: DataConfig, only: str | None = None
) -> tuple[WrittenPlan, DecodedPictures] | None:
    """Return what `prepare` has planned and decoded; None if it is not there."""
    written = plan_file.read(_plan(config, only))
    decoded = decoded_cache.load(cache_folder("folder") / written.plan.key) if written else None
    return (written, decoded) if written and decoded else None


def _index(config: DataConfig, only: str | None = None) -> Path:
    # A part that is listed by itself has its own: the index would lose the files of the others.
    return cache_folder("folder") / f"index-{_hash(config, only)}.npz"


def _plan(config: DataConfig, only: str | None) -> Path:
    # Of this machine: others may share the cache and have other files in a folder of this name.
    keys = {key: value for key, value in asdict(config).items() if key not in _LATER_KEYS}
    return cache_folder("folder") / f"plan-{_hash(config, only, keys, platform.node())}.npz"


def _hash(config: DataConfig, *more: object) -> str:
    root = os.fsencode(Path(config.root).expanduser().resolve()) if config.root else b""
    content = root + repr((FORMAT, config.name, *more)).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _check_unchanged(pictures: PictureList, states: Mapping[str, npt.NDArray[np.int64]]) -> None:
    """Refuse pictures that changed: the cache names pixels by what was read before."""
    for part, listed in pictures.parts.items():
        changed = np.flatnonzero((listed.places.read_states() != states[part]).any(axis=1))
        if len(changed):
            place = listed.places[int(changed[0])]
            raise UserError(f"{place}: was changed while it was read; start again")


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


def _about_test(kind: str, plan: Plan, decoded: DecodedPictures) -> str:
    count = len(decoded.positions("test", len(plan.parts["test"])))
    return (
        f"no {'part' if kind == 'table' else 'folder'} test: {count:,} of the pictures in train, "
        "chosen by their content, are kept for the test and not trained on"
    )


def _check_classes(plan: Plan, decoded: DecodedPictures, class_names: tuple[str, ...]) -> None:
    for part, known in plan.parts.items():
        labels = known.listed.labels
        found = labels[decoded.positions(part, len(known))]
        lacking = np.setdiff1d(labels, found)
        if len(lacking):
            raise UserError(
                f"data.root: none of the pictures of class {class_names[int(lacking[0])]} in "
                f"{part} can be read"
            )


def _warn_of_few_greys(
    pictures: PictureList, contents: Mapping[str, Contents], grey_range: GreyRange | None
) -> None:
    """Warn if a wrong pixel in one file of more than 8 bits takes the contrast of all others."""
    if grey_range is None:
        return
    low, high = grey_range
    flat, count = [], 0
    for part, found in contents.items():
        span = found.value_ranges[:, 1] - found.value_ranges[:, 0]
        count += int((~np.isnan(span)).sum())
        rows = np.flatnonzero((span > 0) & (255 * span < _FEW_GREYS * (high - low)))
        flat += [pictures.parts[part].places.names[row] for row in rows.tolist()]
    if flat:
        log.warning(
            "%s: %s of %s pictures of more than 8 bits keep fewer than %s greys, as %g is black "
            "and %g white, the range of the pictures to train on or data.grey_range, which sets "
            "another: %s",
            pictures.root, f"{len(flat):,}", f"{count:,}", _FEW_GREYS, low, high, join_some(flat),
        )  # fmt: skip
