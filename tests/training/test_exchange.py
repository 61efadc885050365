"""The sum between ranks in one process: what each rank sends, and that all get the tree's bits.

Real processes are in distributed/.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from tests.distributed.fake_ranks import Message, Notes, be_rank, note_messages, sum_on_threads
from tests.distributed.test_reduce import bits, make_leaves, tree
from trainer.data.sampling import rank_microbatches
from trainer.training import exchange
from trainer.training.step_sum import StepSum

UNIT = 64
"""bytes, which are never divided"""


@pytest.mark.parametrize("small_bytes", [0, 3000, 2**20])
@pytest.mark.parametrize(
    ("processes", "each"), [(2, 1), (2, 3), (3, 1), (3, 2), (4, 3), (5, 1), (6, 2), (8, 1), (12, 1)]
)
def test_all_ranks_get_the_bits_of_the_tree(
    processes: int, each: int, small_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves = make_leaves(processes * each, 200, types=3)
    root = bits([tree(list(part)) for part in zip(*leaves, strict=True)])
    for bucket_bytes in (1024, 2**20):
        found = sum_on_threads(
            processes, leaves, bucket_bytes=bucket_bytes, small_bytes=small_bytes
        )
        assert found == [root] * processes
    if processes == 3:  # as GPUs that share one, whose messages go by the host
        monkeypatch.setattr(exchange, "_goes_by_host", lambda _: True)
        assert sum_on_threads(processes, leaves, small_bytes=small_bytes) == [root] * processes


def note(
    rank: int,
    processes: int,
    units: int,
    small_bytes: int,
    each: int = 1,
    bucket_bytes: int = 2**20,
) -> Notes:
    """Note what a rank does, for a vector of so many units."""
    leaf = [torch.empty(units * UNIT, dtype=torch.uint8, device="meta")]
    with (
        be_rank(rank, processes),
        note_messages() as notes,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(exchange, "SMALL_BYTES", small_bytes)
        patch.setattr(exchange, "BUCKET_BYTES", bucket_bytes)
        sums = StepSum(processes * each)
        for index in rank_microbatches(rank, processes, processes * each):
            sums.add(index, leaf)
        sums.finish()
    return notes


def messages(*words: int, **keys: int) -> list[list[Message]]:
    """What a rank sends and receives; arguments as of `note`."""
    return note(*words, **keys).groups


def swap(*others: tuple[int, int, int]) -> list[Message]:
    """Messages to other ranks and from them: each rank, units sent, units received."""
    both = [[(True, rank, sent * UNIT), (False, rank, got * UNIT)] for rank, sent, got in others]
    return [one for pair in both for one in pair]


def test_a_pair_exchanges_halves_or_all_where_that_is_little() -> None:
    assert messages(0, 2, 4, small_bytes=4 * UNIT) == [swap((1, 2, 2)), swap((1, 2, 2))]
    assert messages(1, 2, 4, small_bytes=4 * UNIT) == [swap((0, 2, 2)), swap((0, 2, 2))]
    assert messages(0, 2, 4, small_bytes=4 * UNIT + 1) == [swap((1, 4, 4))]
    # Of an odd number of units the second has one more.
    assert messages(0, 2, 5, small_bytes=0) == [swap((1, 3, 2)), swap((1, 2, 3))]
    assert messages(0, 2, 1, small_bytes=0) == [swap((1, 1, 1))]
    assert messages(0, 2, 2, small_bytes=0) == [swap((1, 1, 1)), swap((1, 1, 1))]


def test_an_odd_number_of_ranks_exchanges_all_at_once() -> None:
    cut = [swap((1, 1, 1), (2, 2, 1)), swap((1, 1, 1), (2, 1, 2))]
    assert messages(0, 3, 4, small_bytes=8 * UNIT) == cut
    cut = [swap((0, 1, 2), (1, 1, 2)), swap((0, 2, 1), (1, 2, 1))]
    assert messages(2, 3, 4, small_bytes=8 * UNIT) == cut
    assert messages(0, 3, 4, small_bytes=8 * UNIT + 1) == [swap((1, 4, 4), (2, 4, 4))]
    assert messages(1, 3, 2, small_bytes=0) == [swap((0, 2, 2), (2, 2, 2))]
    assert len(messages(1, 3, 3, small_bytes=0)) == 2


def test_later_rounds_are_of_smaller_pieces() -> None:
    whole = [swap((1, 4, 4)), swap((2, 2, 2)), swap((2, 2, 2)), swap((1, 4, 4))]
    assert messages(0, 4, 8, small_bytes=4 * UNIT) == whole
    assert messages(0, 4, 8, small_bytes=4 * UNIT + 1) == [whole[0], swap((2, 4, 4)), whole[0]]
    # All ranks ask whether the smallest piece is cut once more: of five units that is two.
    assert messages(0, 4, 5, small_bytes=2 * UNIT + 1) == [
        swap((1, 3, 2)), swap((2, 2, 2)), swap((1, 2, 3)),
    ]  # fmt: skip
    assert messages(3, 4, 8, small_bytes=0) == [
        swap((2, 4, 4)), swap((1, 2, 2)), swap((1, 2, 2)), swap((2, 4, 4)),
    ]  # fmt: skip


def test_sums_that_cannot_be_added_yet_go_in_one_message() -> None:
    """Of six leaves the first three are a pair and one, the last three one and a pair."""
    halves = [swap((1, 4, 4)), swap((1, 2, 2))]
    assert messages(0, 2, 4, small_bytes=0, each=3) == halves
    assert messages(0, 2, 4, small_bytes=2**20, each=3) == [swap((1, 8, 8))]
    assert messages(0, 2, 4, small_bytes=2**20, each=2) == [swap((1, 4, 4))]
    # Where they are joined, the message takes memory; one sum is sent from where it is.
    assert note(0, 2, 4, small_bytes=2**20, each=3).most_bytes == 16 * UNIT
    assert note(0, 2, 4, small_bytes=2**20, each=2).most_bytes == 4 * UNIT


def test_a_long_vector_goes_in_buckets_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    once = [swap((1, 1, 1)), swap((1, 1, 1))]
    rest = [swap((1, 1, 1))]
    assert messages(0, 2, 5, small_bytes=0, bucket_bytes=2 * UNIT) == once + once + rest
    # Each is cut or not by its own size.
    whole = [swap((1, 2, 2)), swap((1, 2, 2)), swap((1, 1, 1))]
    assert messages(0, 2, 5, small_bytes=3 * UNIT, bucket_bytes=2 * UNIT) == whole
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 100)
    assert list(exchange.buckets(201)) == [(101, 201), (1, 101), (0, 1)]
    assert list(exchange.buckets(200)) == [(100, 200), (0, 100)]
    assert list(exchange.buckets(0)) == []


def test_the_root_is_in_the_first_buffer_and_one_process_alone_asks_nobody() -> None:
    leaves = make_leaves(2, 10, types=0)
    sums = StepSum(2)
    for index, leaf in enumerate(leaves):
        sums.add(index, leaf)
    first = sums._sums.nodes[0][1]
    root = exchange.sum_over_ranks(sums._layout, sums._sums.nodes, 2)
    assert root is first
    assert bits(sums.finish()) == bits([one + other for one, other in zip(*leaves, strict=True)])


@pytest.mark.parametrize(
    ("device", "backend", "expected"),
    [("meta", "gloo", True), ("meta", "nccl", False), ("cpu", "gloo", False)],
)
def test_only_gloo_takes_messages_of_a_gpu_by_the_host(
    device: str, backend: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    assert exchange._goes_by_host(torch.empty(1, device=device)) is expected
