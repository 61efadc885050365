"""Predict what an optimiser step costs at any process count: pure functions.

docs/scaling.md says where the formulas and the figures of the hardware come from. Times are in
seconds, sizes in bytes; a message is the vector of the gradients, four bytes a parameter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import page

from trainer.training import exchange

GRADIENT_BYTES = 4
"""of a parameter"""
ADAM_BYTES = 28
"""of a parameter in an update: reads of weight, gradient and two moments, writes of three"""
ADDING_PASSES = 3
"""over what a rank adds: two reads and a write"""
PACKING_PASSES = 2
"""over the vector in each step: gradients that lie apart become one vector"""
BACKWARD_SHARE = 2 / 3
"""of the computation: the backward pass computes two gradients where the forward has one output"""
LAST_BUCKET_BYTES = 25 * 2**20
"""DDP's bucket: what is sent when the backward pass is over has nothing left to hide behind"""


# ---------------------------------------------------------------------- what was measured


@dataclass(frozen=True)
class Link:
    """A link as in Hockney's model."""

    latency_s: float
    bytes_per_s: float

    def message_s(self, size_bytes: float) -> float:
        """Return the time of a message."""
        return self.latency_s + size_bytes / self.bytes_per_s


def fit_link(sizes_bytes: Sequence[float], seconds: Sequence[float]) -> Link:
    """Fit a link to messages of at least two sizes, by least squares of the relative errors."""
    measured = np.asarray(seconds)
    terms = np.stack([np.ones(len(measured)), np.asarray(sizes_bytes)], axis=1)
    latency_s, s_per_byte = np.linalg.lstsq(terms / measured[:, None], np.ones(len(measured)))[0]
    return Link(float(latency_s), 1 / float(s_per_byte))


def ideal_step_s(alone_s: float, optimiser_s: float, exchange_s: float, processes: int) -> float:
    """Return a step of several processes from that of one: all but the optimiser is divided."""
    return (alone_s - optimiser_s) / processes + optimiser_s + exchange_s


# ---------------------------------------------------------------------- what was not


@dataclass(frozen=True)
class Cluster:
    """Machines of equal GPUs; every GPU has its own port to the network."""

    gpus_per_node: int
    inside: Link
    """from a GPU to another of its machine, in one direction"""
    network: Link
    """of one GPU's port"""
    memory_bytes_per_s: float
    """of a GPU"""
    call_s: float
    """what starting a collective takes, besides the latency of its messages"""
    tree_inside_s: float
    """latency of a level of NCCL's tree, its first chunk included"""
    tree_network_s: float
    overlaps: bool = True
    """whether an exchange and a backward pass can run at once"""


H100 = Cluster(
    gpus_per_node=8,
    inside=Link(3.4e-6, 450e9),
    network=Link(9.6e-6, 50e9),
    memory_bytes_per_s=3.35e12,
    call_s=8.4e-6,
    tree_inside_s=28e-6,
    tree_network_s=50e-6,
)


@dataclass(frozen=True)
class Net:
    """A network, and how fast one GPU trains it."""

    parameters: int
    images_per_s: float

    @property
    def size_bytes(self) -> int:
        """The size of its gradients."""
        return GRADIENT_BYTES * self.parameters

    def compute_s(self, samples: float) -> float:
        """Return the forward and backward pass, in proportion to the samples."""
        return samples / self.images_per_s

    def optimiser_s(self, cluster: Cluster) -> float:
        """Return the update by Adam, which moves memory and hardly computes."""
        return ADAM_BYTES * self.parameters / cluster.memory_bytes_per_s


@dataclass(frozen=True)
class Round:
    """A round of the exchange along the tree: what one rank does."""

    ranks: int
    """from the first to the last of those that meet"""
    sent_bytes: float
    added_bytes: float


def rounds(size_bytes: float, processes: int) -> list[Round]:
    """Return the rounds that sum a bucket, if each rank's micro-batches are a subtree."""
    found, gathers = [], []
    for group in exchange.groups(0, processes):
        members = len(group.members)
        ranks = group.stride * members
        is_cut = (members - 1) * size_bytes >= exchange.SMALL_BYTES
        piece_bytes = size_bytes / members if is_cut else size_bytes
        moved_bytes = (members - 1) * piece_bytes
        found.append(Round(ranks, moved_bytes, moved_bytes))
        if is_cut:
            gathers.append(Round(ranks, moved_bytes, 0.0))
        size_bytes = piece_bytes
    return found + gathers[::-1]


def exact_reduction_s(cluster: Cluster, size_bytes: float, gpus: int) -> float:
    """Return the exchange along the tree, all buckets one after the other."""
    if gpus == 1:
        return 0.0
    total_s = PACKING_PASSES * size_bytes / cluster.memory_bytes_per_s
    for begin, end in exchange.buckets(int(size_bytes)):
        for one in rounds(end - begin, gpus):
            link = cluster.inside if one.ranks <= cluster.gpus_per_node else cluster.network
            total_s += cluster.call_s + link.message_s(one.sent_bytes)
            total_s += ADDING_PASSES * one.added_bytes / cluster.memory_bytes_per_s
    return total_s


def fast_reduction_s(cluster: Cluster, size_bytes: float, gpus: int) -> float:
    """Return NCCL's all-reduce: the faster one of its ring and its tree."""
    if gpus == 1:
        return 0.0
    nodes = max(1, gpus // cluster.gpus_per_node)
    per_node = gpus // nodes
    bytes_per_s = cluster.inside.bytes_per_s
    if nodes > 1:  # a ring leaves the machine by all of its ports
        bytes_per_s = min(bytes_per_s, per_node * cluster.network.bytes_per_s)
    ring_s = (
        cluster.call_s
        + 2 * (gpus - nodes) * cluster.inside.latency_s
        + 2 * (nodes - 1) * cluster.network.latency_s
        + 2 * (gpus - 1) / gpus * size_bytes / bytes_per_s
    )
    tree_s = (
        2 * ((per_node - 1) * cluster.tree_inside_s + math.log2(nodes) * cluster.tree_network_s)
        + 2 * size_bytes / bytes_per_s
    )
    return min(ring_s, tree_s)


def exact_step_s(cluster: Cluster, net: Net, samples: float, gpus: int) -> float:
    """Return a step with `reduction: exact`, one micro-batch to a GPU.

    Args:
        samples: of one GPU.
    """
    last_bytes = min(end for _, end in exchange.buckets(net.size_bytes))
    return _overlapped_step_s(exact_reduction_s, last_bytes, cluster, net, samples, gpus)


def fast_step_s(cluster: Cluster, net: Net, samples: float, gpus: int) -> float:
    """Return a step with `reduction: fast`, likewise."""
    last_bytes = min(net.size_bytes, LAST_BUCKET_BYTES)
    return _overlapped_step_s(fast_reduction_s, last_bytes, cluster, net, samples, gpus)


def _overlapped_step_s(
    reduction_s: Callable[[Cluster, float, int], float],
    last_bytes: float,
    cluster: Cluster,
    net: Net,
    samples: float,
    gpus: int,
) -> float:
    """Return a step whose exchange hides behind the backward pass, all but its last bucket."""
    hidden_s = BACKWARD_SHARE * net.compute_s(samples) if cluster.overlaps else 0.0
    whole_s = reduction_s(cluster, net.size_bytes, gpus)
    shown_s = max(reduction_s(cluster, last_bytes, gpus), whole_s - hidden_s)
    return _with_logging(net.compute_s(samples) + shown_s + net.optimiser_s(cluster), cluster, gpus)


def _with_logging(step_s: float, cluster: Cluster, gpus: int) -> float:
    """Add the agreement on whether to go on: 24 bytes a second, or after each longer step."""
    return step_s + fast_reduction_s(cluster, 24, gpus) * min(step_s, 1.0)


STEPS = {"exact": exact_step_s, "fast": fast_step_s}


def speed_up(reduction: str, cluster: Cluster, net: Net, batch: int, gpus: int) -> float:
    """Return how many times as fast as one GPU the same global batch is done."""
    step_s = STEPS[reduction]
    return step_s(cluster, net, batch, 1) / step_s(cluster, net, batch / gpus, gpus)


def samples_for(efficiency: float, reduction: str, cluster: Cluster, net: Net, gpus: int) -> int:
    """Return the fewest samples of a GPU whose step has this share of the speed of one GPU."""

    def reached(samples: int) -> bool:
        alone_s = exact_step_s(cluster, net, samples, 1)
        return alone_s >= efficiency * STEPS[reduction](cluster, net, samples, gpus)

    high = 1
    while not reached(high):
        high *= 2
    low = high // 2  # not enough, or 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


# ---------------------------------------------------------------------- the tables of the page

NETS = (Net(10_000_000, 10_000), Net(25_600_000, 2_470))
GPUS = (8, 64, 512)
BATCH = 8192
EFFICIENCY = 0.9


def cluster_tables(cluster: Cluster = H100) -> list[str]:
    """Return what the model says of clusters, as Markdown."""
    speed_heads = ["net", "GPUs", "samples of a GPU", "compute"]
    speed_heads += ["exact: exchange", "speed-up", "fast: exchange", "speed-up"]
    sample_heads = ["net", "GPUs", "exact", "global batch", "fast", "global batch"]
    more_samples = f"more samples of a GPU for {100 * EFFICIENCY:.0f} %"
    cases = [(cluster, net, gpus) for net in NETS for gpus in GPUS]
    return [
        f"A global batch of {BATCH:,}, divided among the GPUs; the speed-up over one GPU, and the "
        "efficiency:",
        "",
        *page.table(speed_heads, (_speed_row(*case) for case in cases)),
        "",
        f"Samples per GPU from which a step is {100 * EFFICIENCY:.0f} % efficient:",
        "",
        *page.table(sample_heads, (_samples_row(*case) for case in cases)),
        "",
        "What each doubling of the machines costs `exact`:",
        "",
        *page.table(
            ["net", "longer exchange", more_samples], (_doubling_row(cluster, net) for net in NETS)
        ),
        "",
        f"How much depends on the assumptions: the efficiency of `exact` on {GPUS[-1]} GPUs.",
        "",
        *page.table(
            ["net", *doubts(cluster)],
            (
                [_name(net), *(_efficiency(other, net) for other in doubts(cluster).values())]
                for net in NETS
            ),
        ),
    ]


def doubts(cluster: Cluster) -> dict[str, Cluster]:
    """Return less favourable clusters, by what they have."""

    def with_links(inside: Link, network: Link, *, overlaps: bool = True) -> Cluster:
        return dataclasses.replace(cluster, inside=inside, network=network, overlaps=overlaps)

    def halve(link: Link) -> Link:
        return Link(link.latency_s, link.bytes_per_s / 2)

    inside, network = cluster.inside, cluster.network
    slow = Link(cluster.tree_inside_s, inside.bytes_per_s)
    slow_network = Link(cluster.tree_network_s, network.bytes_per_s)
    return {
        "as above": cluster,
        "half the bandwidths": with_links(halve(inside), halve(network)),
        "a message takes as long as a level of NCCL's tree": with_links(slow, slow_network),
        "nothing overlaps": with_links(inside, network, overlaps=False),
        "all three": with_links(halve(slow), halve(slow_network), overlaps=False),
    }


def _efficiency(cluster: Cluster, net: Net) -> str:
    return f"{100 * speed_up('exact', cluster, net, BATCH, GPUS[-1]) / GPUS[-1]:.0f} %"


def _name(net: Net) -> str:
    return f"{net.parameters / 1e6:g} M"


def _speed_row(cluster: Cluster, net: Net, gpus: int) -> list[str]:
    samples = BATCH / gpus
    cells = [_name(net), f"{gpus}", f"{samples:g}", f"{net.compute_s(samples) * 1e3:.1f} ms"]
    reductions = {"exact": exact_reduction_s, "fast": fast_reduction_s}
    for name, reduction_s in reductions.items():
        times = speed_up(name, cluster, net, BATCH, gpus)
        cells += [
            f"{reduction_s(cluster, net.size_bytes, gpus) * 1e3:.1f} ms",
            f"{times:.1f} ({100 * times / gpus:.0f} %)",
        ]
    return cells


def _samples_row(cluster: Cluster, net: Net, gpus: int) -> list[str]:
    cells = [_name(net), f"{gpus}"]
    for name in STEPS:
        samples = samples_for(EFFICIENCY, name, cluster, net, gpus)
        cells += [f"{samples:,}", f"{samples * gpus:,}"]
    return cells


def _doubling_row(cluster: Cluster, net: Net) -> list[str]:
    few, many = 64, 128
    few_s, many_s = (exact_reduction_s(cluster, net.size_bytes, gpus) for gpus in (few, many))
    samples = [samples_for(EFFICIENCY, "exact", cluster, net, gpus) for gpus in (few, many)]
    return [_name(net), f"{(many_s - few_s) * 1e3:.1f} ms", f"{samples[1] - samples[0]}"]
