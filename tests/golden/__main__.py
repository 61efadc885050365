"""Compute golden digests and compare them with those in digests.json, or write them there."""

from __future__ import annotations

import argparse
import json
import sys
import time

from tests.golden import __doc__ as about
from tests.golden import cases, running


def main() -> None:
    """Print which digests differ; exit code 1 if any does."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases; default: all")
    parser.add_argument("--emulate", nargs="+", default=[], metavar="CPU", help="models of qemu's")
    parser.add_argument("--write", action="store_true", help="write digests.json, of all cases")
    arguments = parser.parse_args()
    if arguments.write:
        found = running.compute(cases.names())
        content = {"versions": running.versions(), "digests": found}
        running.FILE.write_text(json.dumps(content, indent=2) + "\n")
        return
    names = arguments.names or cases.names()
    expected = json.loads(running.FILE.read_text())["digests"]
    failed = False
    for processor in arguments.emulate or [None]:
        start_s = time.monotonic()
        found = running.compute(names, processor)
        wrong = [name for name in names if found[name] != expected.get(name)]
        failed |= bool(wrong)
        print(
            f"{processor or 'this processor'}: {len(names) - len(wrong)} as written down, "
            f"{len(wrong)} different, {time.monotonic() - start_s:.0f} s"
        )
        for name in wrong:
            print(f"  different: {name}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
