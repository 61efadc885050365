"""List the pictures that data.root names: of a folder, an archive or shards, here or elsewhere."""

from __future__ import annotations

from pathlib import Path

from trainer.base.errors import UserError
from trainer.data.sources import archive, layout, shards, webdataset
from trainer.data.sources.folder import list_folder
from trainer.data.sources.layout import Layout
from trainer.data.sources.members import Members
from trainer.data.sources.picture_plan import PictureList


def list_pictures(root: Path, *, several: bool = False) -> PictureList:
    """List the pictures of all parts.

    Args:
        several: whether a picture of a shard may have several labels.

    Raises:
        UserError: they are not laid out as they should be, or an archive is broken.
    """
    if found := shards.find_shards(root):
        return webdataset.list_pictures(root, found, several=several)
    members = _members(root)
    if webdataset.is_shard(members):
        return webdataset.list_pictures(root, [root], several=several)
    return _picture_list(members, layout.read_layout(members))


def has_part(root: Path, part: str) -> bool:
    """Return whether there is a part that `list_part` can list."""
    if found := shards.find_shards(root):
        return webdataset.has_part(root, found, part)
    if not root.exists():
        return False
    members = _members(root, part)
    if webdataset.is_shard(members):
        return webdataset.has_part(root, [root], part)
    return layout.has_part(members, part)


def is_without_parts(root: Path) -> bool:
    """Return whether nothing says which pictures are to train on and which to test on."""
    if found := shards.find_shards(root):
        return list(shards.divide(root, found)) == [None]
    members = _members(root)
    if webdataset.is_shard(members):
        return list(shards.divide(root, [root])) == [None]
    return layout.is_flat(members)


def list_part(root: Path, part: str, *, several: bool = False) -> PictureList:
    """List only one part, which may have any classes: images to evaluate, not to learn from.

    Where there are no parts, all are test images.

    Args:
        part: one that there is by `has_part`.
        several: as of `list_pictures`.

    Raises:
        UserError: there are no pictures, or they are not laid out as they should be.
    """
    if found := shards.find_shards(root):
        return webdataset.list_pictures(root, found, part, several=several)
    members = _members(root, part)
    if webdataset.is_shard(members):
        return webdataset.list_pictures(root, [root], part, several=several)
    return _picture_list(members, layout.read_part(members, part))


def _members(root: Path, only: str | None = None) -> Members:
    if archive.is_archive(root.name) and not root.is_dir():
        return archive.list_archive(root)
    if root.is_file():
        raise UserError(
            f"data.root: {root} is neither a folder nor an archive, whose name ends in one of "
            f"{', '.join(archive.SUFFIXES)}"
        )
    return list_folder(root, only)


def _picture_list(members: Members, found: Layout) -> PictureList:
    return PictureList(
        root=members.root,
        class_names=found.class_names,
        parts=found.parts,
        kind="archive" if members.is_archive else "folder",
        makes_test="train" in found.parts and "test" not in found.parts,
        warnings=found.warnings,
    )
