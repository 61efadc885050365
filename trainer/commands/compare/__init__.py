"""Say whether runs are bit-identical, or where they part; lay their curves over each other.

example: python -m trainer compare runs/one runs/two --output comparison.html
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.commands.compare.bits import compare
from trainer.commands.compare.courses import course, lines, row, write
from trainer.commands.options import add_json_option

__all__ = ["add_arguments", "compare", "run"]

SUFFIXES = (".html", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "others", type=Path, nargs="+", metavar="RUN", help="one that is compared with the first"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write the curves of all runs over each other: .png, a picture, or .html, "
        "a page with the table too",
    )
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison.

    Raises:
        UserError: a folder holds no run, a file in it is damaged, or --output cannot be written.
    """
    _check_output(arguments.output)
    first, others = arguments.run, arguments.others
    found = compare_all(first, others)
    if arguments.output:
        write(arguments.output, [course(folder) for folder in (first, *others)], found)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for comparison in found["comparisons"]:
        if len(others) > 1:
            print(f"{first} against {comparison['run']}:")
        print("\n".join(_words(comparison)))
    print("\n".join(["", *lines(found["runs"])]))


def compare_all(first: Path, others: list[Path]) -> dict[str, Any]:
    """What several runs have in common with the first.

    Returns:
        `runs`, how far each has come and what it has found; `comparisons`, for each of the others
        its folder `run` and what `compare` gives; at the top `identical`, whether they all are,
        and the other keys of the first comparison that finds a difference, else of the first.

    Raises:
        UserError: a folder holds no run, or a file in it is damaged.
    """
    comparisons = [{"run": str(other), **compare(first, other)} for other in others]
    decisive = next((one for one in comparisons if not one["identical"]), comparisons[0])
    return {
        **{key: value for key, value in decisive.items() if key != "run"},
        "runs": [row(folder) for folder in (first, *others)],
        "comparisons": comparisons,
    }


def _words(comparison: dict[str, Any]) -> list[str]:
    sha256 = comparison["weights_sha256"]
    if comparison["identical"]:
        end = f"weights {sha256}" if sha256 else "both unfinished"
        found = [f"bit-identical: {comparison['steps']} steps, {end}"]
    else:
        found = [f"different: {comparison['first_difference']}"]
    found += [f"configured differently: {line}" for line in comparison["configuration"]]
    found += [
        f"equal at best to rounding, not in bits: {difference}"
        for difference in comparison["expected_because"]
    ]
    found += comparison["images"]
    for tensor in comparison["tensors"]:
        largest = tensor["largest_difference"]
        how = "in one run alone, or of another shape"
        how = how if largest is None else f"largest difference {largest:.3g}"
        found.append(f"  {tensor['name']}: {how} ({tensor['checkpoint']})")
    return found


def _check_output(path: Path | None) -> None:
    """Before the work."""
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise UserError(f"--output: must end in .html or .png, found {path}")
    if not path.parent.is_dir():
        raise UserError(f"--output: {path.parent} is no folder; make it, or choose another")
