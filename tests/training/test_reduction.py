"""The cut, the tree and the accumulator; the exchange between processes is in distributed/."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.sampling import microbatch_sizes, rank_microbatches
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
    sums = Accumulator(len(values))
    alive = 0
    for index, value in enumerate(values):
        sums.add(index, [torch.tensor([value])])
        alive = max(alive, len(sums.nodes))
    (((first, end), (total,)),) = sums.nodes
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
    finish = Accumulator(count)
    for rank in range(processes):
        block = rank_microbatches(rank, processes, count)
        sums = Accumulator(count)
        for index in block:
            sums.add(index, [torch.tensor([values[index]])])
        assert [interval for interval, _ in sums.nodes] == subtrees(count, block)
        for interval, value in sums.nodes:
            finish.add_node(interval, value)
    ((_, (total,)),) = finish.nodes
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
