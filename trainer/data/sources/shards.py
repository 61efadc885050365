"""Find the shards that data.root names, and the part that each of them belongs to."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.base.errors import UserError
from trainer.data.pictures.names import PARTS, guess_part, is_ignored, join_some
from trainer.data.sources.archive import is_tar

_MOST_SHARDS = 1_000_000


def find_shards(root: Path) -> list[Path]:
    """Return the shards in a folder, or those that a pattern such as `{000..009}.tar` names.

    A folder of shards has .tar files, or folders of parts that have some, and no other folders.

    Raises:
        UserError: a shard that the pattern names by its number is not there or no .tar, or none is
            there.
    """
    if root.is_dir():
        folders = _folders_in(root)
        if not all(guess_part(path.name) and not _folders_in(path) for path in folders):
            return []
        return sorted(
            path
            for folder in (root, *folders)
            for path in folder.iterdir()
            if is_tar(path.name) and not is_ignored(path.name)
        )
    if root.exists() or not re.search(r"[{*?\[]", str(root)):
        return []
    found = []
    for name in _expand_braces(str(root)):
        # Of a pattern that may begin anywhere, which `Path.glob` does not take.
        paths = sorted(glob.glob(name)) if re.search(r"[*?\[]", name) else [name]  # noqa: PTH207
        if not paths or not Path(paths[0]).is_file():
            raise UserError(f"data.root: {root} names the shard {name}, which is not there")
        if others := [path for path in paths if not is_tar(path)]:
            raise UserError(f"data.root: {root} names {others[0]}; shards are .tar files")
        found += paths
    return [Path(name) for name in dict.fromkeys(found)]


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not is_ignored(path.name)]


def _expand_braces(pattern: str) -> list[str]:
    """Return the names that `{000..009}` and `{a,b}` stand for."""
    choices: list[list[str]] = []
    count = 1
    for piece in re.split(r"(\{[^{}]*\})", pattern):
        if numbers := re.fullmatch(r"\{(\d+)\.\.(\d+)\}", piece):
            first, last = numbers.groups()
            width = len(first) if first.startswith("0") else 0
            chosen = range(int(first), min(int(last), int(first) + _MOST_SHARDS) + 1)
            choices.append([f"{number:0{width}}" for number in chosen])
        else:
            choices.append(piece[1:-1].split(",") if re.fullmatch(r"\{.*\}", piece) else [piece])
        count *= len(choices[-1])
        if not 0 < count <= _MOST_SHARDS:
            raise UserError(
                f"data.root: {pattern} names {'no shard' if not count else 'too many shards'}"
            )
    return ["".join(names) for names in itertools.product(*choices)]


def divide(root: Path, shards: Sequence[Path]) -> Mapping[str | None, list[Path]]:
    """Return the shards of each part; of None if no name of a shard has a part in it."""
    base = common_folder(root, shards)
    found: dict[str | None, list[Path]] = {}
    for path in shards:
        found.setdefault(_part_of(base, path), []).append(path)
    if None in found and len(found) > 1:
        raise UserError(
            f"data.root: the names of some shards of {root} contain {PARTS[0]}, {PARTS[1]} or "
            f"{PARTS[2]}, but not those of {join_some([path.name for path in found[None]])}"
        )
    return found


def common_folder(root: Path, shards: Sequence[Path]) -> Path:
    """Return the folder that all shards lie in, or in folders of it."""
    return root if root.is_dir() else Path(os.path.commonpath([path.parent for path in shards]))


def _part_of(base: Path, shard: Path) -> str | None:
    folder = [shard.parent.name] if shard.parent != base else []
    words = [word for word in re.split(r"[^a-zA-Z]+", shard.stem) if word]
    parts = {part for word in (*folder, *words) if (part := guess_part(word))}
    if len(parts) > 1 or parts - {*PARTS}:
        raise UserError(
            f"data.root: {shard} may be a shard of {' or '.join(sorted(parts))}; name it by one of "
            f"{', '.join(PARTS)}"
        )
    return next(iter(parts), None)
