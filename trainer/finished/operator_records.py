"""Compare what the operators of one step gave on two machines, by the files of `replay`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.base import numerics
from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, read_json

Record = dict[str, Any]


def read(path: Path) -> Record:
    """Read a file of `replay --operators`.

    Raises:
        UserError: it is missing, damaged, or another file.
    """
    found: Record = read_json(path)
    check_type(found, dict[str, Any], str(path))
    for key, kind in {
        "step": int,
        "environment": numerics.Environment,
        "operators": list[dict[str, Any]],
    }.items():
        check_type(found.get(key), kind, f"{path}: {key}")
    for place, call in enumerate(found["operators"], start=1):
        for key, kind in {
            "name": str,
            "tensors": list[list[int | str]],
            "digests": list[str],
        }.items():
            check_type(call.get(key), kind, f"{path}: operator {place}: {key}")
    return found


def compare(ours: Record, theirs: Record) -> dict[str, Any]:
    """Find the first operator whose results differ.

    Returns:
        `identical`; `operators`, how many were compared; `first_difference`, in words, and
        `position`, `name` and `tensor`, counted from 1, of the operator, or None;
        `expected_because`, the differences of machine and versions that change the rounding.

    Raises:
        UserError: the files are of different steps.
    """
    if ours["step"] != theirs["step"]:
        raise UserError(
            f"--operators: the files are of steps {ours['step']} and {theirs['step']}; write both "
            f"by replay with the same --step"
        )
    found: dict[str, Any] = {
        "identical": True,
        "operators": min(len(one["operators"]) for one in (ours, theirs)),
        "first_difference": None,
        "position": None,
        "name": None,
        "tensor": None,
        "expected_because": numerics.differences(ours["environment"], theirs["environment"]),
    }
    for position, (mine, other) in enumerate(
        zip(ours["operators"], theirs["operators"], strict=False), start=1
    ):
        if (words := _difference(mine, other)) is not None:
            tensor, what = words
            return found | {
                "identical": False,
                "first_difference": what,
                "position": position,
                "name": mine["name"],
                "tensor": tensor,
            }
    if len(ours["operators"]) != len(theirs["operators"]):
        counts = " against ".join(str(len(one["operators"])) for one in (ours, theirs))
        return found | {"identical": False, "first_difference": f"{counts} operators"}
    return found


def _difference(mine: Record, other: Record) -> tuple[int | None, str] | None:
    """Return which tensor of a call differs, from 1, and how in words; None: none."""
    for key in ("name", "tensors"):
        if mine[key] != other[key]:
            return None, f"other operators: {_describe(mine)} against {_describe(other)}"
    for tensor, (one, two) in enumerate(zip(mine["digests"], other["digests"], strict=True), 1):
        if one != two:
            return tensor, f"{_describe(mine)}: other bits in its tensor {tensor}"
    return None


def _describe(call: Record) -> str:
    shapes = [f"{kind} {'x'.join(map(str, sides)) or 'scalar'}" for kind, *sides in call["tensors"]]
    return f"{call['name']} ({', '.join(shapes)})"


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """Return the comparison as text."""
    if found["identical"]:
        yield f"bit-identical: {found['operators']:,} operators"
    else:
        place = f"operator {found['position']:,}: " if found["position"] else ""
        yield f"different: {place}{found['first_difference']}"
    for difference in found["expected_because"]:
        yield f"equal at best to rounding, not in bits: {difference}"
