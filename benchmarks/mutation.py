"""Mutation testing: the modules that every promise rests on are changed, one place at a time.

    pip install -c constraints.txt -e '.[test,mutation]'
    python benchmarks/mutation.py [--workers 2] [MUTANT ...]

A test must fail for each change. Prints how many did by module, and the changes that nothing
noticed; docs/testing.md says of each why. `[tool.mutmut]` in pyproject.toml names the modules and
the tests. Started again it goes on; with names, or patterns of them, it tries those again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
ENDED = ("timeout", "segfault", "suspicious")
"""no test has failed: the process ran out of time or died, which mutmut calls suspicious too"""


def mutmut(*words: str, capture: bool = True) -> str:
    """Run mutmut with one thread, as it forks; return what it prints."""
    command = [sys.executable, "-m", "mutmut", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    stdout = subprocess.PIPE if capture else None
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=stdout, text=True, check=True
    )
    return done.stdout or ""


def table(outcomes: Iterable[tuple[str, str]]) -> str:
    """Return a table of mutants by module from (mutant, outcome), as Markdown."""
    modules: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome in outcomes:
        modules[name.rpartition(".")[0]][outcome] += 1
    lines = ["| module | mutants | killed | of them by time or a crash | survived | killed |"]
    lines.append("|---|---|---|---|---|---|")
    for module, counts in sorted(modules.items()):
        ended = sum(counts[outcome] for outcome in ENDED)
        mutants, killed = counts.total(), counts["killed"] + ended
        share = f"{killed / mutants:.1%}"
        row = [f"`{module}`", mutants, killed, ended, mutants - killed, share]
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def main() -> None:
    """Try the mutants and print what became of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", default="2", help="processes at a time")
    parser.add_argument("mutants", nargs="*", help="names, or patterns of them")
    options = parser.parse_args()
    mutmut("run", "--max-children", options.workers, *options.mutants, capture=False)
    lines = mutmut("results", "--all", "true").splitlines()
    pairs = [line.strip().split(": ") for line in lines]
    outcomes = [(name, outcome) for name, outcome in pairs if outcome != "not checked"]
    for name, outcome in outcomes:
        if outcome not in ("killed", *ENDED):
            print(mutmut("show", name))
    print(table(outcomes))


if __name__ == "__main__":
    main()
