"""The buffer that gradients are added and sent in."""

from __future__ import annotations

import torch

from trainer.base.flat_buffer import BufferLayout

TENSORS = [
    torch.arange(10.0),
    torch.ones(3, 3),
    torch.tensor(3),
    torch.ones(5, dtype=torch.bfloat16),
    torch.tensor(2.5, dtype=torch.float64),
    torch.arange(1.0, 17.0),
]


def test_tensors_begin_where_a_gpu_loads_them_and_zeros_lie_between() -> None:
    """Every byte that is sent is defined: equal steps send equal bytes."""
    layout = BufferLayout(TENSORS)
    assert all(begin % 16 == 0 for begin in layout.begins)
    packed, filled, summed = layout.pack(TENSORS), layout.allocate(), layout.pack(TENSORS)
    layout.add_tensors(summed, TENSORS)
    for view, tensor in zip(layout.views(filled), TENSORS, strict=True):
        view.copy_(tensor)
    assert torch.equal(filled, packed)
    assert all(map(torch.equal, layout.views(packed), TENSORS))
    layout.add(0, packed, packed.clone())
    assert torch.equal(packed, summed)
    for tensors in (layout.views(filled), layout.views(summed)):
        for tensor in tensors:
            tensor.zero_()
    assert not filled.any()
    assert not summed.any()
