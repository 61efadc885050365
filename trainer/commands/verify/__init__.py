"""Compute a run, or a part of it, again, and say whether it gives what the run's folder says.

Compared are the loss of every step, the figures and digests of every epoch, every tensor of every
checkpoint, and the weights and test results at the end. Before that the run's receipt.json is
compared with the run's other files. A receipt alone, without its run, is enough to compute the run
from its start. Nothing in the folder is changed, but for the signature that --sign asks for. Like a
training it uses the machine's cores or GPUs, and any launcher may start it. Exit code 3: the run
differs, and the first difference is printed; 2: equal bits cannot be promised here.

example: python -m trainer verify runs/digits
         python -m trainer verify runs/digits --segment 2
         python -m trainer verify runs/digits --sample 3 --seed 1
         python -m trainer verify receipt.json --data.root DIR
"""

from __future__ import annotations

import argparse
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base import kernels
from trainer.base.errors import UserError
from trainer.commands import recompute
from trainer.commands.verify import computing, verdict
from trainer.config import stored_config

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.config.schema import RunConfig
    from trainer.finished.recomputation import Plan
    from trainer.finished.segments import Segments, Source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run's folder, or a receipt.json alone"
    )
    recompute.add_arguments(parser)
    parser.add_argument(
        "--segment", type=int, metavar="K",
        help="only from one checkpoint in the folder to the next, counted from 1; the first "
        "segment begins at the start of the run",
    )  # fmt: skip
    parser.add_argument(
        "--sample", type=int, metavar="N",
        help="only N of the segments, drawn at random; after one that differs, others until one is "
        "found that follows on one that agrees",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, metavar="S", help="of --sample; default: another one each time"
    )
    parser.add_argument(
        "--signers", type=Path, metavar="FILE",
        help="whose signature the receipt must have: ssh-keygen's file of allowed signers",
    )  # fmt: skip
    parser.add_argument(
        "--sign", type=Path, metavar="KEY",
        help="where all agrees, sign the receipt with this key of SSH's, into receipt.json.sig",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Compute, and print on rank 0 what was found.

    Raises:
        UserError: there is no such run or segment, or equal bits cannot be promised.
        DifferentRunError: on rank 0, where something differs; on all where the receipt was changed.
    """
    kernels.choose(stored_config.kernels_of(arguments.run))
    from trainer.finished import segments, signatures

    source = segments.open_source(arguments.run, getattr(arguments, "data.root"))
    _check(arguments, source)
    _check_signing(arguments, source)
    signer = None
    if arguments.signers:
        signer = signatures.signer_of(source.receipt_path, arguments.signers)
    recompute.in_processes(
        arguments, source.config, source.path, partial(_run, arguments, source, signer)
    )


def _run(
    arguments: argparse.Namespace, source: Source, signer: str | None, config: RunConfig
) -> None:
    from trainer.finished import segments, signatures
    from trainer.ranks import collectives

    with recompute.join(config) as accelerator:
        found = collectives.run_on_main_rank(accelerator, partial(segments.read, source))
        parts, chosen = _compute(arguments, accelerator, config, found)
    if not accelerator.is_main_process:  # rank 0 has the exit code
        return
    report = {
        **verdict.combine(parts, found, accelerator.num_processes, config.threads),
        **chosen,
        "receipt": _about_receipt(source, found, signer),
    }
    if arguments.sign and report["agrees"]:
        report["receipt"]["signature"] = str(signatures.sign(source.receipt_path, arguments.sign))
    recompute.conclude(report, verdict.lines_of(report), as_json=arguments.json)


def _check(arguments: argparse.Namespace, source: Source) -> None:
    """Check the arguments that say what of the run to compute.

    Raises:
        UserError: they contradict each other, or ask for what a receipt alone cannot give.
    """
    segment, sample = arguments.segment, arguments.sample
    if segment is not None and sample is not None:
        raise UserError("--sample: draws segments, and --segment names one: give one of them")
    if sample is not None and sample < 1:
        raise UserError(f"--sample: must be 1 or more segments, found {sample}")
    if arguments.seed is not None and sample is None:
        raise UserError("--seed: is that of --sample, which is not given")
    if not source.is_receipt:
        return
    if segment is not None or sample is not None:
        option = "segment" if sample is None else "sample"
        raise UserError(
            f"--{option}: needs the run's folder, whose checkpoints a segment begins with; with "
            f"{source.path} alone, the run is computed from its start"
        )
    if arguments.tolerance is not None:
        raise UserError(
            f"--tolerance: needs the run's folder: {source.path} has digests of the losses, and "
            f"digests are equal or not"
        )


def _check_signing(arguments: argparse.Namespace, source: Source) -> None:
    """Check the arguments that are about a signature.

    Raises:
        UserError: there is nothing to sign, or nothing to sign it with.
    """
    for option in ("sign", "signers"):
        if getattr(arguments, option) and source.receipt is None:
            raise UserError(f"--{option}: {source.path} has no receipt")
    if arguments.sign and not arguments.sign.is_file():
        raise UserError(f"--sign: {arguments.sign}: there is no such file")
    if arguments.sign and arguments.tolerance is not None:
        raise UserError("--sign: is for a run that agrees in bits, so without --tolerance")


def _compute(
    arguments: argparse.Namespace, accelerator: Accelerator, config: RunConfig, found: Segments
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compute what the arguments ask for; a collective.

    Returns:
        A report on each part, and what is to be said of a sample.

    Raises:
        UserError: the run has no such segment, or equal bits cannot be promised.
    """
    from trainer.finished import segments
    from trainer.ranks import collectives

    name, parts = found.run.folder, list[dict[str, Any]]()

    def agrees(plan: Plan, number: int | None) -> bool:
        asked = (accelerator, config, plan, arguments.tolerance)
        with recompute.recompute(*asked, f"verifying {name}") as again:
            first_step = again.engine.state.step + 1
            results = computing.verify(again)
        part = {
            "segment": number,
            "first_step": first_step,
            "last_step": plan.end[1],
            "steps": again.comparison.steps,
            "epochs": again.comparison.epochs,
            **again.verdict(),
            **results,
        }
        # Rank 0 compares, and all have to know what comes next.
        parts.append(collectives.run_on_main_rank(accelerator, lambda: part))
        return bool(parts[-1]["agrees"])

    count = len(found.ends)
    if arguments.sample is not None:
        seed = arguments.seed
        if seed is None:  # nobody can foresee it, the run least of all
            seed = collectives.run_on_main_rank(accelerator, lambda: secrets.randbelow(2**31))
        drawn = segments.sample(count, arguments.sample, seed)
        parting = segments.find_parting(drawn, lambda number: agrees(found.plan(number), number))
        computed = [{"segment": part["segment"], "agrees": part["agrees"]} for part in parts]
        return parts, {
            "seed": seed, "sample": drawn, "segments": count, "computed": computed,
            "parting_segment": parting,
        }  # fmt: skip
    if arguments.segment is None:
        agrees(found.whole(), None)
        return parts, {}
    if not 1 <= arguments.segment <= count:
        bounds = [0, *(step for _, step in found.ends)]
        listed = [f"{k}: steps {bounds[k - 1] + 1} to {bounds[k]}" for k in range(1, len(bounds))]
        raise UserError(
            f"--segment: {arguments.segment}, but by its checkpoints {name} has {'; '.join(listed)}"
        )
    agrees(found.plan(arguments.segment), arguments.segment)
    return parts, {}


def _about_receipt(source: Source, found: Segments, signer: str | None) -> dict[str, Any] | None:
    if source.receipt is None:
        return None
    return {
        "sha256": source.receipt["sha256"],
        "signed_by": signer,
        "signature": None,
        "contradictions": found.contradictions,
    }
