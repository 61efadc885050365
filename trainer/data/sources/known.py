"""Find, download and verify the files of published data sets."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.base.errors import UserError
from trainer.base.locks import lock_file
from trainer.data.sources.archive import is_decompressed, list_archive
from trainer.data.sources.download import DownloadError, cache_folder, download
from trainer.data.sources.known_sets.published import (
    ArraySet,
    Files,
    KnownSet,
    PictureSet,
    PublishedFile,
)
from trainer.data.sources.known_sets.registry import KNOWN
from trainer.data.sources.known_sets.verification import (
    is_published,
    verify,
    verify_once,
    was_verified,
)
from trainer.data.sources.picture_plan import PictureList
from trainer.data.sources.source_data import SourceData
from trainer.ranks import processes


@dataclass(frozen=True)
class Location:
    """A folder that has the files of a known set.

    Args:
        origin: its name in messages.
        is_cache: whether `prepare` may put files there.
    """

    folder: Path
    origin: str
    is_cache: bool = False


def prepare(known: KnownSet, root: str | None) -> None:
    """Download the files into the cache, unless they are on this machine.

    Processes that start at the same time wait for the one that downloads.

    Raises:
        UserError: says where the files were looked for and what to do.
    """
    if not lacks_files(known, root):
        return
    cache = _cache(known)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        without = "processes that start together download the same files, each for itself"
        with lock_file(cache / ".lock", f"downloads {known.name}", without) as is_exclusive:
            if is_exclusive:
                for leftover in cache.glob("tmp*"):  # of a download that was killed
                    leftover.unlink()
            lacking = _lacking(known, cache)
            download({file.name: file.checksum for file in lacking}, known.mirrors, cache)
            for file in lacking:  # a damaged unpacked file would be found before the new one
                if (found := file.find(cache)) and found.name != file.name:
                    found.unlink()
    except DownloadError as error:
        raise UserError(f"{describe_missing(known)}\nNo mirror helped:\n{error}") from error
    except OSError as error:
        message = f"{describe_missing(known)}\nThe cache cannot be written: {error}"
        raise UserError(message) from error


def lacks_files(known: KnownSet, root: str | None) -> bool:
    """Return whether this machine has no undamaged set, so that `prepare` asks the mirrors.

    Raises:
        UserError: as `find`.
    """
    location = find(known, root)
    return location is None or (location.is_cache and bool(_lacking(known, location.folder)))


def read(known: ArraySet, root: str | None, limit_bytes: float = math.inf) -> SourceData:
    """Read a set of arrays from the first location that has it; one process verifies every byte.

    Args:
        limit_bytes: of images in memory.

    Raises:
        UserError: no location has it, a file is not what its name says, or there are too many
            images for the memory.
    """
    location = _find(known, root)
    files = _files_in(known, location.folder)
    if processes.launched_local_rank() == 0:  # once on each machine, and the others hear of it
        for file, path in files:
            verify(known, file, path, KNOWN.values())
    parts = known.read(_by_name(files), limit_bytes)
    return SourceData(
        train=parts["train"],
        test=parts["test"],
        class_names=known.class_names,
        origin=location.origin,
        validation=parts.get("validation"),
    )


def list_pictures(known: PictureSet, root: str | None, part: str | None = None) -> PictureList:
    """List the pictures of a set from the first location that has it.

    A file is compared with its checksum the first time, and again when it may have changed. An
    archive is decompressed into the cache where it has to be.

    Args:
        part: the only one that is listed; None: all.

    Raises:
        UserError: no location has it, or a file is not what its name says.
    """
    location = _find(known, root)
    files = _files_in(known, location.folder)
    for file, path in files:
        verify_once(known, file, path, KNOWN.values())
    paths = _by_name(files)
    archives = {name: list_archive(paths[name]).places for name in known.archives}
    listing = known.list_pictures(paths, archives)
    return PictureList(
        root=location.folder,
        class_names=listing.class_names,
        parts={part: listing.parts[part]} if part else listing.parts,
        kind="archive",
        makes_test=part is None and "test" not in known.parts,
    )


def describe_unlisted(known: PictureSet, root: str | None) -> str | None:
    """Say what `list_pictures` would have to decompress; None for nothing."""
    paths = _by_name(_files_in(known, _find(known, root).folder))
    packed = [str(paths[name]) for name in known.archives if not is_decompressed(paths[name])]
    if not packed:
        return None
    return f"{', '.join(packed)}: not decompressed yet; a run does it at its start, into the cache"


def _find(known: KnownSet, root: str | None) -> Location:
    location = find(known, root)
    if location is None:
        raise UserError(describe_missing(known))
    return location


def find(known: KnownSet, root: str | None) -> Location | None:
    """Return the first location that has all files of a set.

    Raises:
        UserError: `root` lacks some of the files, or another folder but the cache has only some.
    """
    if root is not None:
        folder = Path(root).expanduser()
        if _form_in(known, folder) is None:
            raise _incomplete(known, folder, "data.root")
        return Location(folder, f"data.root {folder}")
    for location in _locations(known):
        if _form_in(known, location.folder) is not None:
            return location
        if not location.is_cache and any(
            file.find(location.folder) for form in known.forms for file in form
        ):
            raise _incomplete(known, location.folder, location.origin)
    return None


def _form_in(known: KnownSet, folder: Path) -> tuple[PublishedFile, ...] | None:
    """Return the files that a folder has: of one form all; None if it has no form."""
    return next((form for form in known.forms if all(file.find(folder) for file in form)), None)


def _files_in(known: KnownSet, folder: Path) -> list[tuple[PublishedFile, Path]]:
    """Return the files of a folder that has the set."""
    form = _form_in(known, folder)
    assert form is not None, "find has seen to it"
    found = [(file, file.find(folder)) for file in form]
    return [(file, path) for file, path in found if path is not None]


def _by_name(files: list[tuple[PublishedFile, Path]]) -> Files:
    return {file.name: path for file, path in files}


def _incomplete(known: KnownSet, folder: Path, key: str) -> UserError:
    lacking = [str(file) for file in known.files if file.find(folder) is None]
    if folder.is_dir():
        problem = f"lacks {', '.join(lacking)}"
    else:
        problem = "is not a folder" if folder.exists() else "there is no such folder"
    return UserError(f"{key}: {folder} {problem}; there must be {_describe_files(known)}")


def _describe_files(known: KnownSet) -> str:
    """List the files that a folder must have."""
    forms = [", ".join(map(str, form)) for form in known.forms]
    unpacked = any(file.unpacked_sha256 for file in known.files)
    return " or, unpacked, ".join(forms) + (" (each with or without .gz)" if unpacked else "")


def _cache(known: KnownSet) -> Path:
    return cache_folder(known.folder or known.name)


def _locations(known: KnownSet) -> Iterator[Location]:
    """Yield the locations in the order in which they are searched."""
    if data := os.environ.get("LOCKSTEP_DATA"):
        names = [known.name, known.name.replace("_", "-"), known.folder or known.name]
        for name in dict.fromkeys(names):
            folder = Path(data).expanduser() / name
            yield Location(folder, f"$LOCKSTEP_DATA/{name} in {data}")
    if known.package_folder is not None:
        origin = f"Debian package {known.package} in {known.package_folder}"
        yield Location(known.package_folder, origin)
    cache = _cache(known)  # last: it takes the import of pooch
    yield Location(cache, f"cache {cache}", is_cache=True)


def describe_missing(known: KnownSet) -> str:
    """Say where the files were looked for, and what to do about it."""
    lines = [f"data.name: the files of {known.name} were not found, or are damaged. Looked in:"]
    if not os.environ.get("LOCKSTEP_DATA"):
        lines.append("- $LOCKSTEP_DATA (not set)")
    lines += [f"- {location.folder}" for location in _locations(known)]
    lines.append(
        f"Set data.root to a folder with {_describe_files(known)}, or LOCKSTEP_DATA to a folder "
        f"that has them in {known.folder or known.name}"
        + (f", or: apt-get install {known.package}" if known.package else "")
    )
    return "\n".join(lines)


def _lacking(known: KnownSet, folder: Path) -> list[PublishedFile]:
    """Return the files to be downloaded, as they are missing or not the published ones."""
    unpacked = [file.find(folder) for file in known.unpacked]
    if unpacked and all(map(_is_published, known.unpacked, unpacked)):
        return []
    return [file for file in known.files if not _is_published(file, file.find(folder))]


def _is_published(file: PublishedFile, path: Path | None) -> bool:
    return path is not None and (was_verified(file, path) or is_published(file, path))
