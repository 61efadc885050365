"""What is known of a published data set and of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.pictures.places import Places
from trainer.data.sources.source_data import LabelledImages

Files = Mapping[str, Path]
"""where the files of a set are on this machine, by `PublishedFile.name`"""

Archives = Mapping[str, Places]
"""what is in the archives of a set, by `PublishedFile.name`"""

Parts = Mapping[str, LabelledImages]
"""images by part: train, test, and validation where the set has an official one"""


@dataclass(frozen=True)
class PublishedFile:
    """A file of a published data set.

    Args:
        name: at the mirrors; of a file that lies in an archive its name there, with slashes.
        checksum: of its bytes, as ALGORITHM:HEXADECIMAL.
        unpacked_sha256: of what is in a file that ends in .gz, hexadecimal; the file may then
            also be unpacked, or have been gzipped again. None where nobody has published it.
    """

    name: str
    checksum: str
    unpacked_sha256: str | None = None

    def find(self, folder: Path) -> Path | None:
        """Return the file in a folder; None if the folder lacks it."""
        names = [self.name, self.name.rpartition("/")[2]]
        if self.unpacked_sha256:
            names.insert(0, self.name.removesuffix(".gz"))
        return next((folder / name for name in names if (folder / name).is_file()), None)

    def __str__(self) -> str:
        """Return its name for messages."""
        return self.name.removesuffix(".gz") if self.unpacked_sha256 else self.name


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A published data set.

    Args:
        name: its data.name.
        files: as they are downloaded.
        mirrors: addresses that end in a slash, in the order in which they are tried.
        unpacked: what is in an archive of `files`; whoever has unpacked it has the set too.
        folder: where it is looked for in $LOCKSTEP_DATA and in the cache; None: `name`. Sets that
            come in one file share a folder.
        package: the Debian package that has the files; None if there is none.
        package_folder: where that package puts them.
    """

    name: str
    files: tuple[PublishedFile, ...]
    mirrors: tuple[str, ...]
    unpacked: tuple[PublishedFile, ...] = ()
    folder: str | None = None
    package: str | None = None
    package_folder: Path | None = None

    @property
    def forms(self) -> tuple[tuple[PublishedFile, ...], ...]:
        """The files as they are downloaded, and unpacked: all of one form are the set."""
        return (self.files, self.unpacked) if self.unpacked else (self.files,)


@dataclass(frozen=True, kw_only=True)
class ArraySet(KnownSet):
    """A set whose files have images of one size.

    Args:
        class_names: in the order of the set's labels.
        read: reads the files into memory, and takes the limit of data.memory_limit_mb in bytes.
    """

    class_names: tuple[str, ...]
    read: Callable[[Files, float], Parts]


@dataclass(frozen=True, eq=False)
class Listing:
    """The pictures of a set.

    Args:
        class_names: in the order of the set's labels.
        parts: those that the set has, in the order train, validation, test.
    """

    class_names: tuple[str, ...]
    parts: Mapping[str, ListedPictures]


@dataclass(frozen=True, kw_only=True)
class PictureSet(KnownSet):
    """A set whose archives have picture files of any size.

    Args:
        archives: the names of those of `files` that have pictures or lists of them.
        list_pictures: tells the classes, and what is in the parts.
        parts: that the set has; without a test part, ours is taken from the training pictures.
    """

    archives: tuple[str, ...]
    list_pictures: Callable[[Files, Archives], Listing]
    parts: tuple[str, ...] = ("train", "test")
