"""List the pictures of WebDataset shards: .tar files with KEY.jpg and KEY.cls beside each other.

As in the `webdataset` package, a member's key is its name up to the first dot after the last slash
(`base_plus_ext` in its tariterators.py); the order in the shards does not matter here. Where a
picture may have several labels, they stand in its .cls with SEPARATOR between them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.array_files import Arrays
from trainer.base.errors import UserError
from trainer.data import label_matrix
from trainer.data.label_matrix import Labels
from trainer.data.pictures.decoding import SUFFIXES as PICTURE_SUFFIXES
from trainer.data.pictures.names import PARTS, describe, join_some, normalize_class_name
from trainer.data.pictures.packed_names import PackedNames, join, pack
from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.pictures.places import Places, Spans
from trainer.data.sources import archive
from trainer.data.sources.members import Members
from trainer.data.sources.picture_plan import PictureList
from trainer.data.sources.shards import common_folder, divide
from trainer.data.sources.table_rows import SEPARATOR

_CLASS_FILES = ("classes.txt", "classnames.txt")
_LONGEST_LABEL_BYTES = 1000


@dataclass(frozen=True, eq=False)
class _Samples:
    """The pictures of some shards, those of each sorted by name.

    Args:
        names, spans: of each.
        labels: what the .cls files say, each once; of several labels with SEPARATOR between them.
        label_of: which of `labels` each picture has, int64 (n,).
    """

    names: PackedNames
    spans: Spans
    labels: tuple[str, ...]
    label_of: npt.NDArray[np.int64]


def is_shard(members: Members) -> bool:
    """Return whether an archive is a shard: a .tar with members that end in .cls."""
    return archive.is_tar(members.root.name) and any(
        name.lower().endswith(".cls") for name in members.names
    )


def has_part(root: Path, shards: Sequence[Path], part: str) -> bool:
    """Return whether some shards are of a part; shards without parts are of the test."""
    parts = divide(root, shards)
    return part in parts or (part == "test" and list(parts) == [None])


def list_pictures(
    root: Path, shards: Sequence[Path], only: str | None = None, *, several: bool = False
) -> PictureList:
    """List the pictures of shards.

    Args:
        root: the folder, the pattern or the shard, for messages.
        only: the one part to list, with whatever classes; None: all parts, for a run.
        several: whether a picture may have several labels, or none.

    Raises:
        UserError: a shard is broken or cut, a picture has no label, or a label no picture.
    """
    by_part = divide(root, shards)
    if only is None:
        chosen = {part or "train": paths for part, paths in by_part.items()}
        if "train" not in chosen:
            raise UserError(
                f"data.root: {root} has shards of {', '.join(chosen)}, but none of train; the "
                "names of some must contain train"
            )
    else:
        chosen = {only: by_part.get(only) or by_part[None]}
    samples = {part: _read_shards(chosen[part], several) for part in PARTS if part in chosen}
    labels = {label for of_part in samples.values() for label in of_part.labels}
    names = {name for label in labels for name in _split(label, several)}
    class_names, numbers = _classes(root, _find_class_names(root, shards), names)
    parts: Mapping[str, ListedPictures]
    parts = {
        part: _label(root, of_part, numbers, len(class_names), several)
        for part, of_part in samples.items()
    }
    if only is None:
        _check_classes(root, class_names, {"train": parts["train"]} if several else parts)
    else:
        class_names, parts = _used_classes(class_names, parts)
    return PictureList(
        root=root,
        class_names=class_names,
        parts=parts,
        kind="archive",
        makes_test=only is None and "test" not in parts,
    )


def _read_shards(shards: Sequence[Path], several: bool) -> _Samples:
    files = [archive.decompress(path) for path in shards]
    what = "labelled-samples" if several else "samples"
    found = [
        archive.remembered(path, file, what, partial(_find_samples, path, several))
        for path, file in zip(shards, files, strict=True)
    ]
    of_shards = [tuple(PackedNames(one["labels"], one["label_ends"])) for one in found]
    numbers = {label: number for number, label in enumerate(sorted(set().union(*of_shards)))}
    label_of = [
        np.array([numbers[label] for label in labels], np.int64)[one["label_of"]]
        for labels, one in zip(of_shards, found, strict=True)
    ]
    names = join([PackedNames(one["names"], one["name_ends"]) for one in found])
    spans = Spans(
        tuple(files),
        np.repeat(np.arange(len(files), dtype=np.int32), list(map(len, label_of))),
        np.concatenate([one["offset_bytes"] for one in found]),
        np.concatenate([one["size_bytes"] for one in found]),
        np.zeros(len(names), np.bool_),
        origins=tuple(f"{path}: " for path in shards),
    )
    return _Samples(names, spans, tuple(numbers), np.concatenate(label_of))


def _find_samples(path: Path, several: bool) -> Arrays:
    """Return the columns of a shard's pictures, sorted by name, and of their labels."""
    members = archive.list_archive(path)
    assert members.spans
    pairs = list(zip(*_pair(path, members.names), strict=True))
    pairs.sort(key=lambda pair: members.names[pair[0]])
    pictures = np.array([picture for picture, _ in pairs], np.int64)
    labels = _read_labels(path, members, [label for _, label in pairs], several)
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    names, distinct = pack([members.names[picture] for picture, _ in pairs]), pack(tuple(numbers))
    return {
        "names": names.blob,
        "name_ends": names.ends,
        "offset_bytes": members.spans.offset_bytes[pictures],
        "size_bytes": members.spans.size_bytes[pictures],
        "labels": distinct.blob,
        "label_ends": distinct.ends,
        "label_of": np.array([numbers[label] for label in labels], np.int64),
    }


_SUFFIXES = tuple(suffix for suffix in PICTURE_SUFFIXES if suffix != ".npy")
"""a sample's arrays are rather something else that is known of it"""


def _pair(path: Path, names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the positions of a shard's pictures, and those of their .cls files."""
    pictures: dict[str, int] = {}
    classes: dict[str, int] = {}
    for number, name in enumerate(names):
        folder, slash, base = name.rpartition("/")
        stem, dot, extension = base.partition(".")
        key, extension = folder + slash + stem, dot + extension.lower()
        if extension in _SUFFIXES:
            if key in pictures:
                raise UserError(
                    f"{path}: {names[pictures[key]]} and {name} are two pictures of one sample"
                )
            pictures[key] = number
        elif extension == ".cls":
            classes[key] = number
    for key, number in pictures.items():
        if key not in classes:
            raise UserError(f"{path}: the picture {names[number]} has no {key}.cls with its label")
    for key, number in classes.items():
        if key not in pictures:
            raise UserError(
                f"{path}: the label {names[number]} has no picture; one is named {key} and ends in "
                f"one of {', '.join(_SUFFIXES)}"
            )
    return list(pictures.values()), [classes[key] for key in pictures]


def _read_labels(path: Path, members: Members, numbers: Sequence[int], several: bool) -> list[str]:
    """Return what the .cls files at these positions say; of several the names, each once."""
    spans, labels = members.spans, []
    assert spans
    begins, sizes = spans.offset_bytes[numbers].tolist(), spans.size_bytes[numbers].tolist()
    with spans.files[0].open("rb") as file:
        for number, begin, size in zip(numbers, begins, sizes, strict=True):
            content = os.pread(file.fileno(), min(size, _LONGEST_LABEL_BYTES + 1), begin)
            names = _names_in(content, several)
            if names is None:
                more = f", or several with {SEPARATOR} between them" if several else ""
                raise UserError(
                    f"{path}: {members.names[number]} must have one line of UTF-8, the number or "
                    f"the name of a class{more}; found {content[:40]!r}"
                )
            labels.append(SEPARATOR.join(names))
    return labels


def _names_in(content: bytes, several: bool) -> list[str] | None:
    """Return the names of the classes in a .cls file, each once; None if it is none."""
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None
    if len(text.splitlines()) > 1 or len(content) > _LONGEST_LABEL_BYTES:
        return None
    if several and not text:
        return []
    pieces = text.split(SEPARATOR) if several else [text]
    names = sorted({normalize_class_name(piece) for piece in pieces})
    return names if all(names) else None


def _classes(
    root: Path, file: Path | None, labels: set[str]
) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Return the names of the classes, and the number of the class that each label means."""
    is_number = all(re.fullmatch("[0-9]{1,18}", label) for label in labels)
    if file is None:
        if not is_number:
            names = tuple(sorted(labels))
            return names, {name: number for number, name in enumerate(names)}
        values = sorted({int(label) for label in labels})
        place = {value: number for number, value in enumerate(values)}
        return tuple(map(str, values)), {label: place[int(label)] for label in labels}
    names = _read_class_names(file)
    numbers = {name: number for number, name in enumerate(names)}
    if is_number and not labels <= numbers.keys():
        numbers = {label: int(label) for label in labels if int(label) < len(names)}
    if unknown := sorted(labels - numbers.keys()):
        raise UserError(
            f"data.root: {root} has the labels {join_some([repr(label) for label in unknown])}, "
            f"which {file} does not have; it has {len(names)} classes, which count from 0"
        )
    return names, numbers


def _find_class_names(root: Path, shards: Sequence[Path]) -> Path | None:
    """Return the file that names the classes: beside the shards, or beside the folders of parts."""
    folders = dict.fromkeys((common_folder(root, shards), *(shard.parent for shard in shards)))
    paths = (folder / name for folder in folders for name in _CLASS_FILES)
    return next((path for path in paths if path.is_file()), None)


def _read_class_names(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8") from error
    names = tuple(map(normalize_class_name, lines))
    if "" in names or len({*names}) < len(names):
        raise UserError(f"{file}: must have the name of another class in each line")
    return names


def _split(label: str, several: bool) -> list[str]:
    """Return the names in what a .cls file says."""
    if several:
        return label.split(SEPARATOR) if label else []
    return [label]


def _label(
    root: Path, samples: _Samples, numbers: Mapping[str, int], classes: int, several: bool
) -> ListedPictures:
    """Return pictures sorted by class, then by shard and name.

    Where some have several labels, or none, they have a column for each class.
    """
    meanings = [_split(label, several) for label in samples.labels]
    of_labels: Labels
    if all(len(names) == 1 for names in meanings):
        of_labels = np.array([numbers[name] for (name,) in meanings], np.int64)
    else:
        of_labels = np.zeros((len(meanings), classes), np.uint8)
        for row, names in enumerate(meanings):
            of_labels[row, [numbers[name] for name in names]] = 1
    labels = of_labels[samples.label_of]
    order = np.argsort(samples.label_of if labels.ndim == 2 else labels, kind="stable")
    places = Places(root, samples.names, samples.spans).select(order)
    return ListedPictures(replace(places, names=pack(places.names)), labels[order])


def _check_classes(
    root: Path, class_names: Sequence[str], parts: Mapping[str, ListedPictures]
) -> None:
    if len(class_names) < 2:
        raise UserError(f"data.root: {root} must have at least 2 classes; found {len(class_names)}")
    for part, pictures in parts.items():
        counts = label_matrix.count_images(pictures.labels, len(class_names))
        lacking = np.flatnonzero(counts == 0).tolist()
        if lacking:
            some = join_some([describe(class_names[label]) for label in lacking])
            raise UserError(
                f"data.root: {root} has no {part} pictures of {some}; all parts must have the same "
                "classes"
            )


def _used_classes(
    class_names: tuple[str, ...], parts: Mapping[str, ListedPictures]
) -> tuple[tuple[str, ...], Mapping[str, ListedPictures]]:
    """Leave out the classes that no picture has."""
    counts = [label_matrix.count_images(each.labels, len(class_names)) for each in parts.values()]
    used = np.flatnonzero(np.sum(counts, axis=0))
    left = {
        part: replace(
            pictures,
            labels=np.searchsorted(used, pictures.labels)
            if pictures.labels.ndim == 1
            else pictures.labels[:, used],
        )
        for part, pictures in parts.items()
    }
    return tuple(class_names[label] for label in used), left
