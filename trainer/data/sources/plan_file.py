"""Keep a plan in the cache, in columns: what the processes of a machine read instead of listing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.array_files import Arrays, read_arrays, write_arrays
from trainer.data.pictures import formats
from trainer.data.pictures.packed_names import PackedNames, pack
from trainer.data.pictures.picture_set import KnownPictures, ListedPictures
from trainer.data.pictures.places import Places, Spans
from trainer.data.pictures.resizing import Fit
from trainer.data.sources.picture_index import Contents
from trainer.data.sources.picture_plan import FORMAT, PictureList, Plan, Target


@dataclass(frozen=True, eq=False)
class WrittenPlan:
    """A plan as it was read from its file.

    Args:
        root, kind, class_names, makes_test: as listed.
        plan: what the pictures become.
        made_from: names what it was made from, by `digest_inputs`; "" in older files.
        groups: numbers of the groups of each part's pictures, int64 (n,), the same in all parts;
            empty if there are no groups.
    """

    root: Path
    kind: str
    class_names: tuple[str, ...]
    makes_test: bool
    plan: Plan
    made_from: str
    groups: Mapping[str, npt.NDArray[np.int64]]


def digest_inputs(pictures: PictureList, contents: Mapping[str, Contents]) -> str:
    """Return a hash of all that a plan is made from, besides the keys that name its file."""
    head = (
        *(FORMAT, *formats.decoder_versions(), str(pictures.root), pictures.kind),
        *(pictures.class_names, pictures.makes_test, list(pictures.parts)),
    )
    digest = hashlib.sha256(json.dumps(head).encode())
    for part, listed in pictures.parts.items():
        content, columns = contents[part], _list_columns(listed)
        columns |= {"sizes": content.sizes, "sha256": content.sha256}
        columns |= {"channels": content.channels, "value_ranges": content.value_ranges}
        if listed.groups is not None:
            groups = pack(listed.groups)
            columns |= {"groups": groups.blob, "group_ends": groups.ends}
        places = [part, str(listed.places.root), _files(listed.places.spans)]
        digest.update(json.dumps(places).encode())
        for name, column in columns.items():
            digest.update(f"/{name}/{column.dtype}/{column.shape}/".encode())
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def write(path: Path, pictures: PictureList, plan: Plan, made_from: str) -> None:
    """Write a plan.

    Args:
        made_from: by `digest_inputs`.

    Raises:
        OSError: it cannot be written.
    """
    head = {
        "root": str(pictures.root),
        "kind": pictures.kind,
        "class_names": pictures.class_names,
        "makes_test": pictures.makes_test,
        "target": asdict(plan.target),
        "key": plan.key,
        "made_from": made_from,
        "parts": {
            part: {
                "root": str(known.listed.places.root),
                "files": _files(known.listed.places.spans),
                "origins": _origins(known.listed.places.spans),
            }
            for part, known in plan.parts.items()
        },
    }
    columns = {
        f"{part}/{name}": column
        for part, known in plan.parts.items()
        for name, column in _to_columns(known).items()
    }
    columns |= _encode_groups(plan.parts)
    write_arrays(path, {"head": np.array(json.dumps(head)), **columns})


def read(path: Path) -> WrittenPlan | None:
    """Read a plan; None if the file is missing or damaged."""
    columns = read_arrays(path)
    if columns is None:
        return None
    head = json.loads(str(columns["head"]))
    target = {name: _tuple(value) for name, value in head["target"].items()}
    target["resize"] = Fit(**target["resize"])
    parts = {part: _from_columns(part, about, columns) for part, about in head["parts"].items()}
    return WrittenPlan(
        root=Path(head["root"]),
        kind=head["kind"],
        class_names=tuple(head["class_names"]),
        makes_test=head["makes_test"],
        plan=Plan(parts, Target(**target), head["key"]),
        made_from=head.get("made_from", ""),
        groups={part: columns[f"{part}/groups"] for part in parts if f"{part}/groups" in columns},
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _files(spans: Spans | None) -> list[str] | None:
    return None if spans is None else [str(file) for file in spans.files]


def _origins(spans: Spans | None) -> tuple[str, ...] | None:
    return None if spans is None else spans.origins


def _to_columns(known: KnownPictures) -> dict[str, npt.NDArray[Any]]:
    return _list_columns(known.listed) | {"sizes": known.sizes, "sha256": known.sha256}


def _list_columns(listed: ListedPictures) -> dict[str, npt.NDArray[Any]]:
    names, spans = pack(listed.places.names), listed.places.spans
    columns: dict[str, npt.NDArray[Any]] = {
        "names": names.blob,
        "name_ends": names.ends,
        "labels": listed.labels,
    }
    if listed.weights is not None:
        columns["weights"] = listed.weights
    if spans is not None:
        columns |= {name: getattr(spans, name) for name in _OF_SPANS}
    return columns


_OF_SPANS = ("file", "offset_bytes", "size_bytes", "is_deflated")


def _from_columns(part: str, about: Mapping[str, Any], columns: Arrays) -> KnownPictures:
    def column(name: str) -> npt.NDArray[Any]:
        return columns[f"{part}/{name}"]

    spans = None
    if about["files"] is not None:
        files = tuple(map(Path, about["files"]))
        origins = _tuple(about.get("origins"))  # older files have none
        columns_of_spans = {name: column(name) for name in _OF_SPANS}
        spans = Spans(files=files, origins=origins, **columns_of_spans)
    places = Places(Path(about["root"]), PackedNames(column("names"), column("name_ends")), spans)
    groups = None
    if f"{part}/groups" in columns:
        groups = PackedNames(columns["groups"], columns["group_ends"], column("groups"))
    listed = ListedPictures(places, column("labels"), groups, columns.get(f"{part}/weights"))
    return KnownPictures(listed, column("sizes"), column("sha256"))


def _encode_groups(parts: Mapping[str, KnownPictures]) -> dict[str, npt.NDArray[Any]]:
    """Number the groups of all parts by their sorted names."""
    given: dict[str, Sequence[str]] = {
        part: known.listed.groups
        for part, known in parts.items()
        if known.listed.groups is not None
    }
    if not given:
        return {}
    names = sorted(set().union(*map(set, given.values())))
    numbers = {name: number for number, name in enumerate(names)}
    packed = pack(names)
    columns: dict[str, npt.NDArray[Any]] = {"groups": packed.blob, "group_ends": packed.ends}
    return columns | {
        f"{part}/groups": np.array([numbers[name] for name in groups], dtype=np.int64)
        for part, groups in given.items()
    }
