"""List what the cache of pictures has, check it, or remove what was not used for long.

An entry is of one folder, archive, table or address: images of one size (images), pictures in their
stored form, which are added when they are first needed (stored), what the pictures contain and
become (notes), copies of archives and of tables that can be read at random (archives, tables), or a
download (remote). Entries that a process uses stay, and so do those of other users.

example: python -m trainer cache --prune 10
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.commands.options import add_json_option

if TYPE_CHECKING:
    from trainer.data.stored.entries import Entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--cache_dir", type=Path, metavar="DIR", help="data.cache_dir; default: the usual folder"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the checksums of decoded pictures; remove images that are damaged",
    )
    parser.add_argument(
        "--prune",
        type=_gigabytes,
        metavar="GB",
        help="remove entries that were not used for longest until at most this is left",
    )
    add_json_option(parser)


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GB, from 0")
    return value


def run(arguments: argparse.Namespace) -> None:
    """Print the entries."""
    from trainer.base.terminal import print_report
    from trainer.config.schema import DataConfig
    from trainer.data.stored import entries

    where = str(arguments.cache_dir) if arguments.cache_dir else None
    folder = entries.folder_of(DataConfig(cache_dir=where))
    removed: list[Entry] = []
    if arguments.prune is not None:
        entries.remove_leftovers(folder)
        removed = entries.prune(folder, arguments.prune * 1e9)
    found = entries.list_entries(folder)
    report = {
        "folder": str(folder),
        "size_bytes": sum(entry.size_bytes for entry in found),
        "entries": [_describe(entry, check=arguments.check) for entry in found],
        "removed": [_describe(entry, check=False) for entry in removed],
    }
    print_report(report, _lines(report), as_json=arguments.json)


def _describe(entry: Entry, *, check: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": entry.path.name,
        "of": entry.about,
        "kind": entry.kind,
        "size_bytes": entry.size_bytes,
        "used": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.used_s)),
        "in_use": entry.is_held,
    }
    return described | ({"check": _check(entry)} if check else {})


def _check(entry: Entry) -> dict[str, Any] | None:
    from trainer.data.sources import decoded_cache
    from trainer.data.stored import entries, slots

    if entry.kind == "stored":
        return slots.check(entry.path)
    if entry.kind == "images":
        is_whole = decoded_cache.is_whole(entry.path)
        # A run looks only at its size.
        return {"whole": is_whole, "removed": not is_whole and entries.remove(entry.path)}
    return None  # nothing says what it should contain


def _lines(report: dict[str, Any]) -> list[str]:
    from trainer.base.terminal import format_table

    found = report["entries"]
    lines = [f"cache   {report['folder']}, {report['size_bytes'] / 1e9:,.2f} GB"]
    if found:
        head = ("  entry", "kind", "MB", "last used", "", "of")
        rows = [
            (
                f"  {entry['name']}",
                entry["kind"],
                f"{entry['size_bytes'] / 1e6:,.1f}",
                entry["used"],
                "in use" if entry["in_use"] else "",
                f"{entry['of']}{_checked(entry)}",
            )
            for entry in found
        ]
        lines += format_table([head, *rows], left=(0, 1, 3, 4, 5))
    return lines + [f"removed {entry['name']}" for entry in report["removed"]]


def _checked(entry: dict[str, Any]) -> str:
    match entry.get("check"):
        case {"whole": True}:
            return "; whole"
        case {"removed": removed}:
            return "; damaged, removed" if removed else "; damaged, but in use: remove it later"
        case {"pictures": count, "kept": kept, "damaged": damaged}:
            words = f"; {kept:,} of {count:,} pictures kept"
            return words + f", {damaged:,} damaged, which count as absent" * bool(damaged)
    return ""
