"""A folder of one's own pictures, decoded once into the cache: train/CLASS/FILE and so on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.base.errors import UserError
from trainer.base.locks import lock_file
from trainer.config.schema import DataConfig
from trainer.data.pictures.decoding import SUFFIXES, ImageInfo
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.names import PARTS
from trainer.data.sources import decoded_cache
from trainer.data.sources.decoded_cache import Labelled, Target
from trainer.data.sources.download import cache_folder
from trainer.data.sources.picture_index import Content, PictureIndex, state_of
from trainer.data.sources.picture_list import (
    ByClass,
    PictureList,
    in_turn,
    keep_test,
    list_part,
    list_pictures,
)
from trainer.data.sources.source_data import SourceData, SourceSplit
from trainer.ranks import processes

LONGEST_SIDE = 128
"""in pixels, of a size that nobody has chosen"""

_FORMAT = 2
"""of what is in the cache"""
_MOST_NAMED = 10
_FEW_GREYS = 16
"""what 12 bits keep beside 16: so few are worth a warning"""

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class Plan:
    """What is to be decoded, and where it is kept.

    Args:
        parts: files and labels of the three or two parts, in their order.
        target: what the pictures are made into.
        infos: what each of the files is before.
        bad: what is wrong with each that is no picture.
        entry: folder in the cache, named by the content of all the files.
    """

    parts: Mapping[str, Labelled]
    target: Target
    infos: Mapping[str, ImageInfo]
    bad: Sequence[str]
    entry: Path


def prepare(root: Path, config: DataConfig, only: str | None = None) -> None:
    """Decode the pictures, unless that was done before; processes wait for the one that does it.

    Args:
        only: the part that is looked at; None: all of them, as a run needs them.

    Raises:
        UserError: the folder is not laid out as it should be, pictures are broken and are not to
            be skipped, or the cache cannot be written.
    """
    listed = list_part(root, only) if only else list_pictures(root)
    try:
        cache_folder("folder").mkdir(parents=True, exist_ok=True)
        lock = _index_path(root, only).with_suffix(".lock")
        without = "processes that start together decode the same pictures, each for itself"
        with lock_file(lock, "decodes these pictures", without) as alone:
            index = _index(root, only)
            # Before they are read: what changes from now on is noticed.
            states = {name: state_of(root / name) for name in listed.files()}
            plan = _plan(config, listed, index, only)
            if not decoded_cache.is_there(plan.entry):
                decoded_cache.write(
                    plan.entry,
                    root,
                    plan.parts,
                    plan.target,
                    check=lambda: _check_unchanged(root, states),
                    alone=alone,
                )
            index.save(listed.files())
    except OSError as error:
        raise UserError(
            f"data.root: {root} cannot be decoded into the cache {cache_folder('folder')} "
            f"({error}); make room, or set XDG_CACHE_HOME to another folder"
        ) from error
    _check_bad([*plan.bad, *decoded_cache.bad_pictures(plan.entry)], listed, config)
    if processes.launched_rank() > 0:
        return
    if listed.others:
        log.warning(
            "%s: left out, as they end in none of %s: %s",
            root, ", ".join(SUFFIXES), _some(listed.others, ", "),
        )  # fmt: skip
    if listed.beside:
        log.warning(
            "%s: left out, as they are in none of the folders %s: %s",
            root, ", ".join(PARTS), _some(listed.beside, ", "),
        )  # fmt: skip
    if "test" not in listed.parts and not only:
        log.warning("%s has no folder test: %s", root, _kept(plan))
    _warn_of_few_greys(root, plan)


def describe_undecoded(root: Path, config: DataConfig) -> str | None:
    """In words, that `prepare` would have to decode pictures; None where it was done before.

    Raises:
        UserError: the folder is not laid out as it should be.
    """
    listed = list_pictures(root)
    index = _index(root)
    looked_at = not index.lacks(listed.files())
    if looked_at and decoded_cache.is_there(_plan(config, listed, index).entry):
        return None
    counts = ", ".join(f"{listed.count(part):,} in {part}" for part in listed.parts)
    return (
        f"pictures of {len(listed.class_names)} classes in {root}, not decoded yet: {counts}; a "
        f"run does it at its start, into {cache_folder('folder')}"
    )


def read(root: Path, config: DataConfig, limit_bytes: float) -> SourceData:
    """What `prepare` has decoded.

    Args:
        limit_bytes: images of more stay in the cache's file.

    Raises:
        UserError: it is not there, or nothing is left of a class.
    """
    listed = list_pictures(root)
    plan = _plan(config, listed, _index(root))
    if not decoded_cache.is_there(plan.entry):
        raise UserError(f"data.root: {root} was changed meanwhile; start again")
    parts = {name: decoded_cache.read(plan.entry, name, root, limit_bytes) for name in plan.parts}
    for name, part in parts.items():
        lacking = set(range(len(listed.class_names))) - set(part.labels.tolist())
        if lacking:
            raise UserError(
                f"data.root: none of the pictures of class {listed.class_names[min(lacking)]} in "
                f"{name} can be read"
            )
    origin = f"data.root {root}"
    if "test" not in listed.parts:
        origin += f" (no folder test: {_kept(plan)})"
    if plan.target.grey_range:
        low, high = plan.target.grey_range
        origin += f" (of pictures of more than 8 bits {low:g} is black and {high:g} white)"
    return SourceData(
        train=parts["train"],
        test=parts["test"],
        class_names=listed.class_names,
        origin=origin,
        validation=parts.get("validation"),
        grey_range=plan.target.grey_range,
    )


def read_part(root: Path, config: DataConfig, limit_bytes: float, only: str) -> SourceSplit:
    """What `prepare` has decoded of one part alone; arguments and errors as `prepare`, `read`."""
    listed = list_part(root, only)
    plan = _plan(config, listed, _index(root, only), only)
    if not decoded_cache.is_there(plan.entry):
        raise UserError(f"data.root: {root} was changed meanwhile; start again")
    return SourceSplit(
        data=decoded_cache.read(plan.entry, only, root, limit_bytes),
        class_names=listed.class_names,
        origin=f"data.root {root} (its {only} images alone)",
    )


def read_picture_infos(root: Path, config: DataConfig) -> Mapping[str, ImageInfo]:
    """Sizes and channels, before they are made fit, of the pictures whose head can be read."""
    return _plan(config, list_pictures(root), _index(root)).infos


def decide(config: DataConfig, infos: Sequence[ImageInfo]) -> Target:
    """Size and channels of all images: as configured, else by the training pictures.

    The size is the median of their heights and that of their widths (of two middle ones the
    lower), shrunk together where the longer one is beyond `LONGEST_SIDE`. They are grey where all
    are stored as grey. Of more than 8 bits a channel, the lowest and highest value of all becomes
    black and white.
    """
    height = statistics.median_low(info.height for info in infos)
    width = statistics.median_low(info.width for info in infos)
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    size = config.height_and_width or [max(1, round(side * shrink)) for side in (height, width)]
    channels = config.channels or max(info.channels for info in infos)
    return Target((size[0], size[1]), channels, _grey_range(config, infos))


def _grey_range(config: DataConfig, infos: Sequence[ImageInfo]) -> GreyRange | None:
    if config.grey_range is not None:
        return (config.grey_range[0], config.grey_range[1]) if config.grey_range else None
    lowest = [info.lowest for info in infos if info.lowest is not None]
    highest = [info.highest for info in infos if info.highest is not None]
    return (min(lowest), max(highest)) if lowest else None


def _plan(
    config: DataConfig, listed: PictureList, index: PictureIndex, only: str | None = None
) -> Plan:
    contents = index.look_at(listed.files())
    infos = {name: content.info for name, content in contents.items() if content.info}
    by_class = {
        part: tuple(tuple(name for name in names if name in infos) for names in classes)
        for part, classes in listed.parts.items()
    }
    _check_left(index.root, by_class, listed, contents)
    if "test" not in by_class and not only:
        sha256 = {name: contents[name].sha256 for name in infos}
        by_class["train"], by_class["test"] = keep_test(by_class["train"], sha256)
    parts = {part: in_turn(classes) for part, classes in by_class.items()}
    target = decide(config, [infos[name] for name, _ in parts[only or "train"]])
    rows = {
        part: [(name, label, contents[name].sha256) for name, label in labelled]
        for part, labelled in parts.items()
    }
    key = hashlib.sha256(json.dumps([*_versions(), rows, str(target)]).encode()).hexdigest()[:32]
    return Plan(
        parts=parts,
        target=target,
        infos=infos,
        bad=[content.error for content in contents.values() if not content.info],
        entry=cache_folder("folder") / key,
    )


def _versions() -> tuple[int | str | None, ...]:
    """What decides on the pixels besides the files."""
    import PIL
    from PIL import features

    return _FORMAT, PIL.__version__, features.version("jpg")


def _index(root: Path, only: str | None = None) -> PictureIndex:
    return PictureIndex(root, _index_path(root, only))


def _index_path(root: Path, only: str | None = None) -> Path:
    # Of one part alone another: it would lack the files of the others.
    place = root.resolve() / only if only else root.resolve()
    name = hashlib.sha256(b"%d " % _FORMAT + os.fsencode(place)).hexdigest()[:16]
    return cache_folder("folder") / f"index-{name}.json"


def _kept(plan: Plan) -> str:
    return (
        f"{len(plan.parts['test']):,} of the pictures in train, chosen by their content, are kept "
        "for the test and not trained on"
    )


def _check_left(
    root: Path,
    by_class: Mapping[str, ByClass],
    listed: PictureList,
    contents: Mapping[str, Content],
) -> None:
    """A class must have pictures that are some, whatever data.on_bad says."""
    for part, classes in by_class.items():
        for files, found in zip(classes, listed.parts[part], strict=True):
            if not files:
                folder = (root / found[0]).parent
                raise UserError(
                    f"data.root: no file in {folder} can be read: {contents[found[0]].error}"
                )


def _check_bad(bad: Sequence[str], listed: PictureList, config: DataConfig) -> None:
    if not bad:
        return
    counts = f"{len(bad):,} of {len(listed.files()):,} pictures cannot be read"
    named = "- " + _some(bad, "\n- ")
    if config.on_bad == "stop":
        raise UserError(
            f"data.root: {counts}:\n{named}\nPut them right or take them away, or leave them out: "
            "data.on_bad: skip"
        )
    if processes.launched_rank() == 0:
        log.warning("%s and are left out:\n%s", counts, named)


def _warn_of_few_greys(root: Path, plan: Plan) -> None:
    """A wrong pixel in one file of more than 8 bits takes the contrast of all others."""
    if plan.target.grey_range is None:
        return
    low, high = plan.target.grey_range
    spans = {
        name: (info.lowest, info.highest)
        for name, info in plan.infos.items()
        if info.lowest is not None and info.highest is not None
    }
    flat = [
        name
        for name, (lowest, highest) in spans.items()
        if 0 < 255 * (highest - lowest) < _FEW_GREYS * (high - low)
    ]
    if flat:
        log.warning(
            "%s: %s of %s pictures of more than 8 bits keep fewer than %s greys, as %g is black "
            "and %g white, the range of the pictures to train on or data.grey_range, which sets "
            "another: %s",
            root, f"{len(flat):,}", f"{len(spans):,}", _FEW_GREYS, low, high, _some(flat, ", "),
        )  # fmt: skip


def _some(words: Sequence[str], separator: str) -> str:
    """The first ones, and how many more there are."""
    more = [f"and {len(words) - _MOST_NAMED:,} more"] * (len(words) > _MOST_NAMED)
    return separator.join([*words[:_MOST_NAMED], *more])


def _check_unchanged(root: Path, states: Mapping[str, object]) -> None:
    """What was decoded is kept under the name of what the files held when they were looked at."""
    for name, state in states.items():
        if state_of(root / name) != state:
            raise UserError(f"{root / name}: was changed while it was read; start again")
