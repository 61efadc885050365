"""Whether the memory of each machine is enough for its processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer.commands.doctor.finding import Finding
from trainer.commands.doctor.group import Rank
from trainer.commands.doctor.recipe import Needs, gigabytes

ADVICE = (
    "more train.microbatches make what is in work smaller, at the same train.batch_size, and a "
    "smaller train.evaluation_batch_size what is evaluated at once"
)


def findings(ranks: Sequence[Rank]) -> list[Finding]:
    """A line for the machine of rank 0, and for each other one where something is wrong."""
    hosts = dict.fromkeys(rank.host for rank in ranks)
    found = [_of_host([rank for rank in ranks if rank.host == host]) for host in hosts]
    return [finding for i, finding in enumerate(found) if i == 0 or finding.state != "ok"]


def _of_host(ranks: Sequence[Rank]) -> Finding:
    """Each process has its data and its model by now, so the rest is what has to be free."""
    free = min(rank.available_bytes for rank in ranks)
    taken = sum(rank.resident_bytes for rank in ranks)
    needed = sum(rank.needed_bytes for rank in ranks)
    text = f"{ranks[0].host}: {gigabytes(free)} free"
    if ranks[0].start is None:
        return Finding("memory", "ok", text)
    text += (
        f" beside the {gigabytes(taken)} that {len(ranks)} x program, data and model take; "
        f"training takes about {gigabytes(needed)} more, its evaluations included"
    )
    if needed <= free:
        return Finding("memory", "ok", text)
    return Finding("memory", "problem", text, f"{ADVICE}; of a batch system, ask for more memory")


def of_gpu(needs: Needs, device: torch.device) -> Finding:
    """Whether the training fits into a GPU; images that do not fit stay outside anyway."""
    free, _ = torch.cuda.mem_get_info(device)
    needed = needs.weights_bytes + needs.memory_bytes
    text = f"{gigabytes(free)} free; model, training and evaluations take about {gigabytes(needed)}"
    if needed <= free:
        return Finding("GPU memory", "ok", text)
    return Finding("GPU memory", "problem", text, ADVICE)
