"""What benchmarks change of the process that tests them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Other tests keep their number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
