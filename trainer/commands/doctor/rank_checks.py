"""Check the processes together: that they meet, how fast they are, and that they start alike."""

from __future__ import annotations

import os
import platform
import socket
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from trainer.commands.doctor.finding import Finding, Findings
from trainer.config.same_run import differences
from trainer.config.schema import RunConfig, replace
from trainer.ranks import collectives, process_group, processes
from trainer.ranks.cgroups import available_memory_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.base.numerics import Environment

TIMEOUT_S = 14.0
"""how long processes wait for each other"""

LARGE_BYTES = 8_000_000
REPEATS = 10

# A network in good order has a tenth of this latency and ten times this speed, or better.
SLOW_LATENCY_S = 0.01
SLOW_BYTES_PER_S = 50e6

CLOCK_TOLERANCE_S = 2.0
"""processes need some time to come out of the same collective"""


@dataclass(frozen=True)
class RankReport:
    """What a rank tells the others; made just after a collective, as clocks are compared."""

    config: RunConfig | None
    """as it was asked for"""
    start: tuple[str, str, Environment] | None
    """weights, images and environment; None if they could not be loaded"""
    needed_bytes: int
    """memory that the training takes besides data and model"""
    findings: list[Finding]
    host: str = field(default_factory=platform.node)
    local_count: int = field(default_factory=processes.local_count)
    """processes of its machine, by its launcher's variable"""
    time_s: float = field(default_factory=time.time)
    resident_bytes: int = field(default_factory=lambda: int(psutil.Process().memory_info().rss))
    """memory that it takes now, with data and model"""
    available_bytes: int = field(default_factory=available_memory_bytes)
    """memory that is free for all processes of its machine"""


def connect_ranks(config: RunConfig, findings: Findings) -> Accelerator | None:
    """Meet the other processes; None if that fails, which is a problem in `findings`."""
    config = replace(config, {"timeout_seconds": min(config.timeout_seconds, TIMEOUT_S)})
    try:
        if processes.launched_rank() > 0:
            _reach_master(config.timeout_seconds)
        accelerator = findings.attempt("devices", lambda: process_group.create_accelerator(config))
        if accelerator is None:  # because of its precision; the rest may still be in order
            return process_group.create_accelerator(replace(config, {"train.precision": "fp32"}))
        return accelerator
    except (RuntimeError, ValueError, OSError) as error:
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        text = f"they have not met within {config.timeout_seconds:g} s ({reason})"
        advice = (
            "MASTER_ADDR must be reachable from all machines, MASTER_PORT be free there, and "
            "WORLD_SIZE processes must start at about the same time"
        )
        findings.append(Finding("processes", "problem", text, advice))
        return None


def _reach_master(limit_s: float) -> None:
    """Wait until rank 0, or its launcher, takes connections; torch would wait for twice as long.

    Raises:
        OSError: it does not take them in time.
    """
    address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    end_s = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection(address, timeout=limit_s).close()
            return
        except OSError:
            if time.monotonic() > end_s:
                raise
        time.sleep(0.1)


def measure_all_reduce(accelerator: Accelerator) -> Finding:
    """Time a test all-reduce; a collective."""
    latency_s = _all_reduce_s(accelerator, 1)
    bytes_per_s = LARGE_BYTES / _all_reduce_s(accelerator, LARGE_BYTES // 4)
    text = f"{1e3 * latency_s:.2f} ms for 4 bytes, {bytes_per_s / 1e6:,.0f} MB/s for 8 MB"
    if latency_s < SLOW_LATENCY_S and bytes_per_s > SLOW_BYTES_PER_S:
        return Finding("all-reduce", "ok", text)
    advice = (
        "on several machines choose the fast network: GLOO_SOCKET_IFNAME (CPU) or "
        "NCCL_SOCKET_IFNAME (GPU); on one, see that nothing else uses its cores"
    )
    return Finding("all-reduce", "warning", f"slow: {text}", advice)


def _all_reduce_s(accelerator: Accelerator, numbers: int) -> float:
    import torch
    import torch.distributed as dist

    tensor = torch.zeros(numbers, device=accelerator.device)
    durations = []
    for _ in range(REPEATS):
        begin_s = time.perf_counter()
        dist.all_reduce(tensor)
        float(tensor[0])  # waits for the device
        durations.append(time.perf_counter() - begin_s)
    return statistics.median(durations)


def compare(ranks: Sequence[RankReport], findings: Findings) -> None:
    """Add the findings that take the reports of all ranks, in their order."""
    counts = Counter(rank.host for rank in ranks)
    text = "; ".join(f"{host}: {count} of the processes" for host, count in counts.items())
    findings.append(Finding("hosts", "ok", text))
    for host, count in counts.items():
        noted = next(rank.local_count for rank in ranks if rank.host == host)
        if noted != count:
            text = f"{host} has {count} processes, but LOCAL_WORLD_SIZE says {noted} there"
            advice = "the default of threads depends on it: set threads to cores / processes"
            findings.append(Finding("hosts", "warning", text, advice))
    if len(ranks) == 1:
        return
    findings.append(_compare_clocks(ranks))
    if any(rank.config for rank in ranks):
        findings += _compare_configurations(ranks)
    starts = [rank.start for rank in ranks if rank.start]
    if len(starts) == len(ranks):
        _compare_starts(starts, findings)


def _compare_clocks(ranks: Sequence[RankReport]) -> Finding:
    clocks = {rank.time_s: rank.host for rank in ranks}
    first, last = min(clocks), max(clocks)
    if last - first <= CLOCK_TOLERANCE_S:
        return Finding("clocks", "ok", f"equal to {last - first:.2f} s")
    text = f"that of {clocks[last]} is {last - first:.1f} s ahead of that of {clocks[first]}"
    advice = "set them by the network (NTP): logs and file times of several machines mislead"
    return Finding("clocks", "warning", text, advice)


def _compare_configurations(ranks: Sequence[RankReport]) -> list[Finding]:
    found = []
    first = ranks[0].config
    for number, rank in enumerate(ranks):
        if first is None or rank.config is None:
            lines = ["could be read on one of them only"] if first is not rank.config else []
        else:
            lines = differences(first, rank.config)
        if lines:
            text = f"rank 0 against rank {number} on {rank.host}: {'; '.join(lines)}"
            advice = "give all the same command and the same file"
            found.append(Finding("configuration", "problem", text, advice))
    return found or [Finding("configuration", "ok", "the same on all ranks")]


def _compare_starts(starts: Sequence[tuple[str, str, Environment]], findings: Findings) -> None:
    lines = findings.attempt("same start", lambda: collectives.compare_starts(starts))
    if lines == []:
        text = f"images {starts[0][1][:12]} and weights {starts[0][0][:12]} on all ranks"
        findings.append(Finding("same start", "ok", text))
    for line in lines or []:
        text = f"equal to rounding, not in bits: {line}"
        advice = "bits need machines of one kind, with the same versions and threads"
        findings.append(Finding("same start", "warning", text, advice))
