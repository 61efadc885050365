"""What `verify` says about the parts that it has computed: one verdict, as JSON and as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.commands.verify.computing import DIGESTS

if TYPE_CHECKING:
    from trainer.finished.segments import Segments


def combine(
    parts: list[dict[str, Any]], found: Segments, processes: int, threads: int | None
) -> dict[str, Any]:
    """Return the verdict on several parts of a run, and on its files."""
    differing = [part for part in parts if not part["agrees"]]
    # Of a sample the last one that differs follows on one that agrees.
    decisive = differing[-1] if differing else None
    difference = decisive["first_difference"] if decisive else None
    difference = difference or next(iter(found.contradictions), None)
    tolerance = next((part["tolerance"] for part in parts if part["tolerance"] is not None), None)
    reasons = [reason for part in parts for reason in part["not_promised"]]
    last = max(parts, key=lambda part: part["last_step"])
    return {
        "run": str(found.run.folder),
        "agrees": difference is None,
        "in_bits": difference is None and tolerance is None,
        "first_difference": difference,
        "parted": decisive["parted"] if decisive else None,
        "processes": processes,
        "threads": threads,
        "not_promised": list(dict.fromkeys(reasons)),
        "tolerance": tolerance,
        "largest_difference": max(part["largest_difference"] for part in parts),
        "first_step": min(part["first_step"] for part in parts),
        "last_step": last["last_step"],
        "steps": sum(part["steps"] for part in parts),
        "epochs": sum(part["epochs"] for part in parts),
        "checkpoints": [name for part in parts for name in part["checkpoints"]],
        **{key: last[key] for key in DIGESTS},
    }


def lines_of(report: dict[str, Any]) -> list[str]:
    """Return the lines for people."""
    count, threads, receipt = report["processes"], report["threads"], report["receipt"]
    processes = "1 process" if count == 1 else f"{count} processes"
    steps = f"steps {report['first_step']:,} to {report['last_step']:,}"
    if "sample" in report:
        numbers = ", ".join(str(part["segment"]) for part in report["computed"])
        steps = f"segments {numbers} of {report['segments']} (--seed {report['seed']})"
    lines = [
        f"{report['run']}: {steps}, on {processes} of {threads} thread{'s' * (threads != 1)}",
        f"compared: the losses of {report['steps']:,} steps, the figures of "
        f"{report['epochs']:,} epochs, checkpoints: "
        f"{', '.join(report['checkpoints']) or 'none'}",
    ]
    if receipt:
        by = f", signed by {receipt['signed_by']}" if receipt["signed_by"] else ""
        lines.append(f"receipt {receipt['sha256']}: whole{by}")
        lines += [f"signed: {receipt['signature']}"] if receipt["signature"] else []
        lines += [f"contradicts its run: {text}" for text in receipt["contradictions"]]
    lines += [f"equal at best to rounding: {reason}" for reason in report["not_promised"]]
    if report["tolerance"] is not None:
        lines.append(
            f"so only losses are compared, to {report['tolerance']:g}; "
            f"the largest relative difference is {report['largest_difference']:.3g}"
        )
    if not report["agrees"]:
        return [*lines, f"first difference: {report['first_difference']}", *_where(report)]
    for key, what in DIGESTS.items():
        if report[key] and report["in_bits"]:
            lines.append(f"{what}: {report[key]}, as in the run")
    how = "bit-identical" if report["in_bits"] else "equal to the tolerance"
    return [*lines, f"{how}: the run gives what its folder says"]


def _where(report: dict[str, Any]) -> list[str]:
    """Say where a run parts from what it recorded, and what could not be found out."""
    parted, lines = report["parted"], list[str]()
    if (segment := report.get("parting_segment")) is not None:
        before = f"segment {segment - 1} agrees" if segment > 1 else "it begins at the start"
        lines.append(f"first in segment {segment}: {before}; others were not computed")
    if parted is None:
        return lines
    lines.append(f"agreed before it: {parted['after'] or 'nothing was compared'}")
    if parted["tensor"] is not None:
        lines.append(f"first tensor: {parted['tensor']}")
    elif report["receipt"] and report["checkpoints"] == []:
        lines.append("not known: which tensor, as no checkpoint and no mark shows it")
    if parted["step"] is None and parted["epoch"] is not None:
        lines.append(f"not known: which step of epoch {parted['epoch']}, as no loss shows it")
    return lines
