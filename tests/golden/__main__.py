"""Compute golden digests and compare them with those in digests.json, or write them there."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.golden import __doc__ as about
from tests.golden import cases, running


def main() -> None:
    """Print each digest that differs, as it comes; exit code 1 if any does."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases; default: all")
    parser.add_argument("--emulate", nargs="+", default=[], metavar="CPU", help="models of qemu's")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE",
        help="append each digest to this file, and compute none that it has already",
    )  # fmt: skip
    parser.add_argument("--write", action="store_true", help="write digests.json, of all cases")
    arguments = parser.parse_args()
    if arguments.write:
        found = running.compute(cases.names())
        content = {"versions": running.versions(), "digests": found}
        running.FILE.write_text(json.dumps(content, indent=2) + "\n")
        return
    names = arguments.names or cases.names()
    different = [
        compare(names, processor, arguments.keep) for processor in arguments.emulate or [None]
    ]
    sys.exit(any(different))


def compare(names: list[str], processor: str | None, kept: Path | None) -> int:
    """Compute the digests of cases; return how many are not those that are written down.

    Args:
        processor: a model of qemu's; None: this machine's.
        kept: has a line for each digest that was computed before, and gets one for each new one.
    """
    where, start_s = processor or "this processor", time.monotonic()
    expected = json.loads(running.FILE.read_text())["digests"]
    found = read(kept, where) if kept else {}
    todo = [name for name in names if name not in found]
    for name, digest in running.stream(todo, processor) if todo else ():
        found[name] = digest
        if kept:
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps([where, name, digest]) + "\n")
        verdict = "as written down" if digest == expected.get(name) else "DIFFERENT"
        print(f"{where}: {time.monotonic() - start_s:5.0f} s  {name}: {verdict}", flush=True)
    wrong = [name for name in names if found[name] != expected.get(name)]
    print(f"{where}: {len(names) - len(wrong)} as written down, {len(wrong)} different")
    for name in wrong:
        print(f"  different: {name}", flush=True)
    return len(wrong)


def read(kept: Path, where: str) -> dict[str, str]:
    """Return the digests of a processor that a file has."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    return {name: digest for here, name, digest in map(json.loads, lines) if here == where}


if __name__ == "__main__":
    main()
