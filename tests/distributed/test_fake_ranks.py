"""Up to 512 ranks in this process: what each sends is what others expect, and what they add up.

What a rank would send and receive is noted, and afterwards the notes of all ranks are played
against each other.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.distributed.fake_ranks import Notes, be_rank, note_messages, play, sum_on_threads
from tests.distributed.test_reduce import bits, make_leaves, tree
from trainer.data.sampling import rank_microbatches
from trainer.training import exchange
from trainer.training.reduction import subtrees
from trainer.training.step_sum import StepSum

MIB = 2**20


def sum_as_rank(rank: int, processes: int, each: int, length: int, *, early: bool = False) -> Notes:
    """Sum leaves of `length` numbers without values, `each` of them on a rank."""
    leaf = [torch.empty(length, device="meta"), torch.empty(3, dtype=torch.int64, device="meta")]
    leaf += [torch.empty(length // 3, device="meta")]
    *others, last = rank_microbatches(rank, processes, processes * each)
    with be_rank(rank, processes), note_messages() as notes:
        sums = StepSum(processes * each)
        for index in others:
            sums.add(index, leaf)
        if early:
            arriving = sums.begin(last, leaf, exchanged=True)
            for number in ((rank + place) % 3 for place in range(3)):
                arriving.put(number, leaf[number])
        else:
            sums.add(last, leaf)
        sums.finish()
    return notes


@pytest.mark.parametrize("processes", [2, 3, 4, 6, 7, 8, 12, 25, 48, 64, 96, 256, 512])
def test_messages_of_all_ranks_fit(processes: int) -> None:
    """Of a vector that is small, a part of a bucket, or longer; of one partial sum and of two.

    A rank sends 2 (W - 1) / W of a long vector, twice as much at most where its micro-batches are
    not a subtree; messages take the memory of a bucket at most, or of four.
    """
    for each in (1, 2, 3) if processes < 48 else (1,):
        sums = len(subtrees(processes * each, range(each)))
        for length in (100, 300_000, 13 * MIB // 4) if processes < 48 else (12_000, 13 * MIB // 4):
            ranks = [sum_as_rank(rank, processes, each, length) for rank in range(processes)]
            play([notes.groups for notes in ranks])
            assert len({len(notes.groups) for notes in ranks}) == 1, "all wait as often"
            size_bytes = ranks[0].size_bytes
            bucket_bytes = min(size_bytes, exchange.BUCKET_BYTES)
            for notes in ranks:
                at_once_bytes = max(bucket_bytes, exchange.SMALL_BYTES)
                # Several sums are joined into one message, which takes memory too.
                assert notes.most_bytes <= (1 if sums == 1 else 2 * sums) * at_once_bytes
                if size_bytes > exchange.BUCKET_BYTES:
                    least_bytes = 2 * (processes - 1) / processes * size_bytes
                    assert 0.999 * least_bytes < notes.sent_bytes < 1.06 * sums * least_bytes
                else:
                    assert len(notes.groups) <= 2 * len(exchange.groups(0, processes))


@pytest.mark.parametrize("processes", [2, 6, 12])
def test_messages_during_the_backward_pass_are_the_same(processes: int) -> None:
    for rank, each in itertools.product(range(processes), (1, 2, 3)):
        late, early = (
            sum_as_rank(rank, processes, each, 13 * MIB // 4, early=early)
            for early in (False, True)
        )
        assert early.groups == late.groups


@pytest.mark.parametrize(("processes", "each"), [(48, 1), (50, 3), (64, 2), (128, 1)])
def test_every_one_of_many_ranks_has_the_bits_of_the_tree(processes: int, each: int) -> None:
    leaves = make_leaves(processes * each, 1000, types=3)
    root = bits([tree(list(part)) for part in zip(*leaves, strict=True)])
    assert sum_on_threads(processes, leaves, small_bytes=700) == [root] * processes
