"""Prepare the pictures that a source lists, once for each machine, and read what was prepared.

A source only lists pictures, their classes and parts (`PictureList`). One process of each machine
calls `prepare`: it looks into them, plans what they become, and writes the plan into the cache.
Pictures that are the same images in every epoch are decoded there too; others stay as they are
until a batch asks for them. All processes then `read` the plan, and do not list the pictures again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.files import remove_leftovers
from trainer.base.locks import lock_file, try_lock
from trainer.config.schema import DataConfig
from trainer.data import label_matrix
from trainer.data.sources import (
    decoded_cache,
    notes,
    picture_index,
    picture_messages,
    plan_file,
    stored_pictures,
)
from trainer.data.sources.decoded_cache import DecodedPictures
from trainer.data.sources.picture_index import Contents
from trainer.data.sources.picture_plan import PictureList, Plan, make_plan
from trainer.data.sources.plan_file import WrittenPlan
from trainer.data.sources.source_data import Cached, LabelledImages, SourceData, SourceSplit
from trainer.data.stored import entries
from trainer.data.unread_images import UnreadImages
from trainer.ranks import processes

_WITHOUT_LOCK = "processes that start together decode the same pictures, each for itself"

log = logging.getLogger("lockstep")


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What `prepare` has left in the cache.

    Args:
        decoded: None if the pictures are not decoded before a batch asks for them.
    """

    written: WrittenPlan
    decoded: DecodedPictures | None

    def positions(self, part: str) -> npt.NDArray[np.int64]:
        """Return which of a part's planned pictures become images."""
        return _positions(self.written.plan, self.decoded, part)


def prepare(
    pictures: PictureList, config: DataConfig, only: str | None = None, *, to_train: bool = True
) -> None:
    """Plan and decode the pictures unless that was done before; one process at a time does it.

    Args:
        only: the part that was listed; None: all of them, as a run needs them.
        to_train: whether to warn of what is left out of the training.

    Raises:
        UserError: pictures are broken and are not to be skipped, a class has too few, or the cache
            cannot be written.
    """
    root, cache = pictures.root, notes.entry_of(config)
    try:
        _use_notes(pictures, config)
        lock = notes.index_of(config, only).with_suffix(".lock")
        with lock_file(lock, "decodes these pictures", _WITHOUT_LOCK) as exclusive:
            if exclusive:
                remove_leftovers(notes.index_of(config, only))
                remove_leftovers(notes.plan_of(config, only))
            contents, plan, decoded = _prepare(pictures, config, only, exclusive=exclusive)
    except OSError as error:
        raise UserError(
            f"data.root: what {root} has cannot be noted in the cache {cache} ({error}); make "
            "room, or set XDG_CACHE_HOME to another folder"
        ) from error
    if processes.launched_rank() == 0:
        if pictures.makes_test and to_train:
            count = len(_positions(plan, decoded, "test"))
            about = picture_messages.describe_made_test(pictures.kind, count)
            log.warning("%s has %s", root, about)
        picture_messages.warn(pictures, contents, plan.target.grey_range)


def look_into(pictures: PictureList, config: DataConfig) -> None:
    """Note what the pictures contain, which `prepare` needs first; not while others prepare them.

    Raises:
        OSError: the cache cannot be written.
    """
    _use_notes(pictures, config)
    index, whole = notes.index_of(config), _needs_whole(config)
    if lock := try_lock(index.with_suffix(".lock"), _WITHOUT_LOCK):
        try:
            _read_contents(pictures, config, index, whole=whole)
        finally:
            lock.release()


def _use_notes(pictures: PictureList, config: DataConfig) -> None:
    about = f"{pictures.root}: what its pictures contain and become"
    entries.use(notes.entry_of(config), about)


def _needs_whole(config: DataConfig) -> bool:
    """Return whether broken pixels must be known beforehand: a batch cannot leave out a picture."""
    return stored_pictures.needs_stored(config) and config.on_bad == "skip"


def _prepare(
    pictures: PictureList, config: DataConfig, only: str | None, *, exclusive: bool
) -> tuple[Mapping[str, Contents], Plan, DecodedPictures | None]:
    """Do what `prepare` does, inside of its lock; return what the pictures contain and become."""
    is_stored = stored_pictures.needs_stored(config)
    index, whole = notes.index_of(config, only), _needs_whole(config)
    contents, states = _read_contents(pictures, config, index, whole=whole)
    plan_path, made_from = notes.plan_of(config, only), plan_file.digest_inputs(pictures, contents)
    written = plan_file.read(plan_path)
    is_planned = written is not None and written.made_from == made_from
    plan = written.plan if written and is_planned else make_plan(config, pictures, contents)
    errors = [error for part in contents.values() for _, error in sorted(part.errors.items())]
    decoded = None
    if not is_stored:
        entry = entries.folder_of(config) / plan.key
        decoded = decoded_cache.load(entry)
        if not decoded:
            check = partial(_check_unchanged, pictures, states)
            try:
                decoded = decoded_cache.write(
                    entry, pictures.root, plan, check=check, exclusive=exclusive
                )
            except OSError as error:
                raise UserError(
                    f"data.root: {pictures.root} cannot be decoded into {entry.parent} ({error}); "
                    "make room, or set data.cache_dir to another folder"
                ) from error
        entries.hold(entry)
        entries.keep_within_limit(config)
        errors += [error for part in decoded.errors.values() for error in part.values()]
    picture_messages.check_errors(errors, len(pictures), config)
    if decoded and not only:
        _check_classes(pictures.class_names, plan, decoded)
    if not is_planned:
        plan_file.write(plan_path, pictures, plan, made_from)
    notes.note_use(index)
    notes.note_use(plan_path)
    return contents, plan, decoded


def describe_undecoded(pictures: PictureList, config: DataConfig) -> str | None:
    """Return, in words, what `prepare` would have to read; None if it was done before."""
    root, index = pictures.root, notes.index_of(config)
    if picture_index.is_up_to_date([part.places for part in pictures.parts.values()], index):
        contents, _ = _read_contents(pictures, config, index, remember=False)
        prepared, made_from = _find(config), plan_file.digest_inputs(pictures, contents)
        if prepared and prepared.written.made_from == made_from:
            return None
        make_plan(config, pictures, contents)  # which raises an error where none can be made
    counts = ", ".join(f"{len(listed):,} in {part}" for part, listed in pictures.parts.items())
    not_yet = "not read yet" if stored_pictures.needs_stored(config) else "not decoded yet"
    return (
        f"pictures of {len(pictures.class_names)} classes in {root}, {not_yet}: {counts}; a run "
        f"does it at its start, into {entries.folder_of(config)}"
    )


def read(config: DataConfig, limit_bytes: float) -> SourceData:
    """Read what `prepare` has prepared.

    Args:
        limit_bytes: larger images stay in the cache's file.

    Raises:
        UserError: it is not there.
    """
    prepared = _load(config)
    written, target = prepared.written, prepared.written.plan.target
    origin = f"data.root {written.root}"
    if written.makes_test:
        count = len(prepared.positions("test"))
        origin += f" ({picture_messages.describe_made_test(written.kind, count)})"
    if written.groups:
        count = len(np.unique(np.concatenate(list(written.groups.values()))))
        origin += f", {count:,} groups"
    if target.grey_range:
        low, high = target.grey_range
        origin += f" (of pictures of more than 8 bits {low:g} is black and {high:g} white)"
    parts = _read_parts(prepared, config, limit_bytes)
    return SourceData(
        train=parts["train"],
        test=parts["test"],
        class_names=written.class_names,
        origin=origin,
        validation=parts.get("validation"),
        grey_range=target.grey_range,
    )


def read_part(config: DataConfig, limit_bytes: float, only: str) -> SourceSplit:
    """Read the one part that `prepare` has prepared; arguments and errors as those of `read`."""
    prepared = _load(config, only)
    written = prepared.written
    return SourceSplit(
        data=_read_parts(prepared, config, limit_bytes, only)[only],
        class_names=written.class_names,
        origin=f"data.root {written.root} (only its {only} images)",
    )


def forget(config: DataConfig, only: str | None = None) -> None:
    """Forget the plan, as the pictures are no longer as they were then."""
    if (plan := notes.plan_of(config, only)).is_file():
        plan.unlink()


def read_contents(config: DataConfig) -> Contents:
    """Return what each picture is in its file, after `prepare`, in the order of the list."""
    return picture_index.load_contents(notes.index_of(config))


def _read_contents(
    pictures: PictureList,
    config: DataConfig,
    index: Path,
    *,
    remember: bool = True,
    whole: bool = False,
) -> tuple[dict[str, Contents], dict[str, npt.NDArray[np.int64]]]:
    places = [listed.places for listed in pictures.parts.values()]
    contents, states = picture_index.read_contents(
        places, index, config.max_megapixels, remember=remember, whole=whole
    )
    return (
        dict(zip(pictures.parts, contents, strict=True)),
        dict(zip(pictures.parts, states, strict=True)),
    )


def _read_parts(
    prepared: _Prepared, config: DataConfig, limit_bytes: float, only: str | None = None
) -> dict[str, LabelledImages]:
    """Return the images of all parts; those that are decoded for each batch are not read."""
    written, decoded = prepared.written, prepared.decoded
    plan, target = written.plan, written.plan.target
    images: dict[str, npt.NDArray[np.uint8] | UnreadImages]
    if decoded:
        images = {part: decoded.read(part, limit_bytes) for part in plan.parts}
        content = {part: decoded.name(part) for part in plan.parts}
    else:
        opened = stored_pictures.open_stored(
            plan.parts,
            config,
            root=written.root,
            image_size=target.image_size,
            channels=target.channels,
            grey_range=target.grey_range,
            is_whole=only is None,
        )
        images = {**opened}
        content = {part: f"{plan.key}/{part}/{one.identity}" for part, one in opened.items()}
    parts = {}
    for part, known in plan.parts.items():
        left, groups = prepared.positions(part), written.groups.get(part)
        known = known.select(left)
        where = f"{written.root / part}" if written.kind == "folder" else f"{written.root}: {part}"
        cached = Cached(content[part], notes.entry_of(config))
        parts[part] = LabelledImages(
            images=images[part],
            labels=known.listed.labels,
            images_file=where,
            labels_file=where,
            names=known.listed.places.names,
            groups=None if groups is None else groups[left],
            weights=known.listed.weights,
            sha256=known.sha256,
            sizes=known.sizes,
            cached=cached,
        )
    return parts


def _positions(plan: Plan, decoded: DecodedPictures | None, part: str) -> npt.NDArray[np.int64]:
    count = len(plan.parts[part])
    return decoded.positions(part, count) if decoded else np.arange(count)


def _load(config: DataConfig, only: str | None = None) -> _Prepared:
    prepared = _find(config, only)
    if not prepared:
        raise UserError(
            f"data.root: the pictures of {config.root} are no longer decoded in "
            f"{entries.folder_of(config)}; start again"
        )
    return prepared


def _find(config: DataConfig, only: str | None = None) -> _Prepared | None:
    """Return what `prepare` has left in the cache; None if it is not there."""
    written = plan_file.read(notes.plan_of(config, only))
    if not written or stored_pictures.needs_stored(config):
        return _Prepared(written, None) if written else None
    decoded = decoded_cache.load(entries.folder_of(config) / written.plan.key)
    return _Prepared(written, decoded) if decoded else None


def _check_unchanged(pictures: PictureList, states: Mapping[str, npt.NDArray[np.int64]]) -> None:
    """Refuse pictures that changed: the cache names pixels by what was read before."""
    for part, listed in pictures.parts.items():
        changed = np.flatnonzero((listed.places.read_states() != states[part]).any(axis=1))
        if len(changed):
            place = listed.places[int(changed[0])]
            raise UserError(f"{place}: was changed while it was read; start again")


def _check_classes(class_names: tuple[str, ...], plan: Plan, decoded: DecodedPictures) -> None:
    for part, known in plan.parts.items():
        left = decoded.positions(part, len(known))
        lacking = label_matrix.first_lacking(known.listed.labels, left)
        if lacking is not None:
            raise UserError(
                f"data.root: none of the pictures of class {class_names[lacking]} in {part} can "
                "be read"
            )
