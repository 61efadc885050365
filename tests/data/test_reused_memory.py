"""Memory is lent again when no tensor shares it any more, and not before."""

from __future__ import annotations

import pytest
import torch

from trainer.data.scaling import Scaling

SCALING = Scaling(torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1), torch.full((3, 1, 1), 7.0))


def images_of(count: int) -> torch.Tensor:
    return torch.arange(count * 3 * 200 * 200).remainder(251).byte().view(count, 3, 200, 200)


@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_in_pieces_are_scaled_as_in_one(count: int, layout: torch.memory_format) -> None:
    images = images_of(count).to(memory_format=layout)
    expected = images.float().sub(SCALING.mean).div(SCALING.deviation)
    scaled = SCALING.apply(images)
    assert torch.equal(scaled, expected)
    assert scaled.stride() == expected.stride()


def test_a_view_keeps_its_memory() -> None:
    images = images_of(6)
    scaled = SCALING.apply(images)
    address, view = scaled.data_ptr(), scaled[2:4, 1]
    del scaled
    expected = view.clone()
    assert SCALING.apply(images + 1).data_ptr() != address
    assert torch.equal(view, expected)
    del view
    assert address in {SCALING.apply(images[:count]).data_ptr() for count in (6, 5)}
