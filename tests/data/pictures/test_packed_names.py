"""Names in two arrays read as a list of names does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.pictures.packed_names import PackedNames, pack, select

NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=8)


@given(NAMES, st.data())
def test_they_are_the_names(names: list[str], data: st.DataObject) -> None:
    packed = pack(names)
    assert list(packed) == names
    assert [packed[position] for position in range(-len(names), len(names))] == names * 2
    chosen = data.draw(st.lists(st.integers(0, len(names) - 1))) if names else []
    some = packed.select(np.array(chosen, dtype=np.int64))
    assert (
        list(some)
        == [names[position] for position in chosen]
        == [some[i] for i in range(len(some))]
    )
    assert list(some[1:]) == list(some)[1:]


def test_no_name_is_copied_by_a_choice() -> None:
    packed = pack(["a", "bc"])
    some = select(packed, np.array([1, 1, 0]))
    assert isinstance(some, PackedNames)
    assert some.blob is packed.blob
    assert select(["a", "bc"], np.array([1])) == ["bc"]
    with pytest.raises(IndexError):
        packed[2]
