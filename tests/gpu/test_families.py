"""The families of networks on a GPU."""

from __future__ import annotations

import pytest
import torch

from tests.models.test_families import LIGHT, SMALLEST, build


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_all_gradients_have_kernels_that_add_in_a_fixed_order(
    device: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        network = build(name, LIGHT.get(name)).to(device)
        network(torch.rand(8, 1, 28, 28, device=device)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
