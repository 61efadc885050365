"""Compute golden digests and compare them with those in digests.json, or write them there."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.golden import __doc__ as about
from tests.golden import cases, running

PAGE = "golden.md"
"""among the results of benchmarks"""


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
    parser.add_argument(
        "--page", type=Path, metavar="FILE",
        help="write in Markdown what the file of --keep has, and compute nothing",
    )  # fmt: skip
    parser.add_argument("--write", action="store_true", help="write digests.json, of all cases")
    arguments = parser.parse_args()
    if arguments.write:
        found = running.compute(cases.names())
        content = {"versions": running.versions(), "digests": found}
        running.FILE.write_text(json.dumps(content, indent=2) + "\n")
        return
    if arguments.page:
        if not arguments.keep:
            parser.error("--page: needs the file of --keep")
        arguments.page.write_text(describe(arguments.keep))
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
                file.write(json.dumps([where, name, digest, running.commit()]) + "\n")
        verdict = "as written down" if digest == expected.get(name) else "DIFFERENT"
        print(f"{where}: {time.monotonic() - start_s:5.0f} s  {name}: {verdict}", flush=True)
    wrong = [name for name in names if found[name] != expected.get(name)]
    print(f"{where}: {len(names) - len(wrong)} as written down, {len(wrong)} different")
    for name in wrong:
        print(f"  different: {name}", flush=True)
    return len(wrong)


def read(kept: Path, where: str) -> dict[str, str]:
    """Return the digests of a processor that a file has."""
    return {name: digest for here, name, digest, _ in read_all(kept) if here == where}


def read_all(kept: Path) -> list[list[str]]:
    """Return what a file has: each time the processor, the case, its digest and the commit."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    return [json.loads(line) for line in lines]


def describe(kept: Path) -> str:
    """Return a page about the digests in a file, in Markdown: how many of each group are right."""
    expected = json.loads(running.FILE.read_text())
    rows, digests = read_all(kept), expected["digests"]
    places = sorted({row[0] for row in rows})
    found = {place: {row[1]: row[2] for row in rows if row[0] == place} for place in places}
    right = {
        place: {name for name, digest in own.items() if digest == digests.get(name)}
        for place, own in found.items()
    }
    lines = [
        "# Golden digests on emulated processors",
        "",
        f"    python -m tests.golden --emulate {' '.join(places)} --keep FILE",
        f"    python -m tests.golden --keep FILE --page benchmarks/results/{PAGE}",
        "",
        "How many cases of `tests/golden/digests.json` a processor that qemu emulates has",
        "computed, and given the digest that is written down. By commit "
        f"{', '.join(sorted({row[3] for row in rows}))}, with "
        + ", ".join(f"{name} {version}" for name, version in expected["versions"].items())
        + ".",
        "",
        f"| group | cases | {' | '.join(places)} |",
        f"| --- |{' --- |' * (1 + len(places))}",
    ]
    groups = dict.fromkeys(name.split(".")[0] for name in digests)
    for group in (*groups, ""):
        own = {name for name in digests if not group or name.split(".")[0] == group}
        counts = " | ".join(str(len(own & right[place])) for place in places)
        lines.append(f"| {group or 'all'} | {len(own)} | {counts} |")
    for place in places:
        wrong = sorted(found[place].keys() & digests.keys() - right[place])
        missing = [name for name in digests if name not in found[place]]
        lines += ["", f"{place}: different {', '.join(wrong) or 'none'}; not computed "]
        lines[-1] += f"{', '.join(missing) or 'none'}."
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
