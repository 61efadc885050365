"""The cut, the tree and the accumulator; the exchange between processes is in distributed/."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.sampling import microbatch_sizes, rank_microbatches
from trainer.training.exchange import groups
from trainer.training.reduction import Accumulator, subtrees, tree_splits


def tree_sum(values: list[float]) -> float:
    """The tree of the documentation, evaluated by its own definition."""
    if len(values) == 1:
        return values[0]
    half = 1
    while half * 2 < len(values):
        half *= 2
    left = torch.tensor(tree_sum(values[:half]), dtype=torch.float32)
    return float(left + torch.tensor(tree_sum(values[half:]), dtype=torch.float32))


floats = st.floats(-1e6, 1e6, width=32)


@given(st.integers(0, 500), st.integers(1, 40))
def test_cut_is_even_and_complete(size: int, pieces: int) -> None:
    sizes = microbatch_sizes(size, pieces)
    assert sum(sizes) == size
    assert len(sizes) == pieces
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@given(st.lists(floats, min_size=1, max_size=70))
def test_accumulator_adds_in_the_order_of_the_tree(values: list[float]) -> None:
    sums = Accumulator(len(values), torch.add)
    alive = 0
    for index, value in enumerate(values):
        sums.add_node((index, index + 1), torch.tensor(value))
        alive = max(alive, len(sums.nodes))
    (((first, end), total),) = sums.nodes
    assert (first, end) == (0, len(values))
    assert total.item() == tree_sum(values)
    assert alive <= len(values).bit_length()


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_any_division_into_blocks_gives_the_same_bits(
    processes: int, each: int, data: st.DataObject
) -> None:
    """Every rank sums its block into subtrees; all that finish the tree get the same root."""
    count = processes * each
    values = data.draw(st.lists(floats, min_size=count, max_size=count))
    finish = Accumulator(count, torch.add)
    for rank in range(processes):
        block = rank_microbatches(rank, processes, count)
        sums = Accumulator(count, torch.add)
        for index in block:
            sums.add_node((index, index + 1), torch.tensor(values[index]))
        assert [interval for interval, _ in sums.nodes] == subtrees(count, block)
        for interval, value in sums.nodes:
            finish.add_node(interval, value)
    ((_, total),) = finish.nodes
    assert total.item() == tree_sum(values)


def test_the_order_of_addition_matters() -> None:
    """Else the tests above could not fail: from left to right these have another sum."""
    values = [1e8, 1.0, -1e8, 1.0]
    from_left = torch.tensor(0.0)
    for value in values:
        from_left = from_left + value
    assert from_left.item() != tree_sum(values)


@pytest.mark.parametrize("leaves", [1, 2, 3, 6, 8, 13])
def test_tree_has_one_inner_node_less_than_leaves(leaves: int) -> None:
    assert len(tree_splits(leaves)) == leaves - 1


@pytest.mark.parametrize("processes", [*range(1, 17), 24, 40, 96, 512])
def test_the_groups_of_a_round_hold_every_rank_once_and_neighbours_first(processes: int) -> None:
    """After its last round a rank has met, by itself or by others, every rank."""
    rounds = list(zip(*(groups(rank, processes) for rank in range(processes)), strict=True))
    met = [{rank} for rank in range(processes)]
    for groups_of_ranks in rounds:
        for rank, group in enumerate(groups_of_ranks):
            assert group.members[group.place] == rank
            assert all(groups_of_ranks[other].members == group.members for other in group.members)
        met = [set().union(*(met[one] for one in group.members)) for group in groups_of_ranks]
        for rank in range(processes):
            span = sorted(met[rank])
            assert span == list(range(span[0], span[-1] + 1)), "neighbours"
            assert span[0] % len(span) == 0
    assert met == [set(range(processes))] * processes
    sizes = [len(one[0].members) for one in rounds]
    assert all(
        size == 2 or (size % 2 and number == len(sizes) - 1) for number, size in enumerate(sizes)
    )
