"""The device of the tests: a GPU, or for a trial of the tests themselves the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("cuda", "cpu"), default="cuda", help="of tests/gpu")


@pytest.fixture(scope="session", autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where runs of this process and of those that it starts compute."""
    # Unknown where the folder is not named on the command line.
    chosen: str = request.config.getoption("--device", default="cuda")
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", str(chosen == "cpu").lower())
        yield chosen


@pytest.fixture
def gpu(device: str) -> None:
    """For tests of what a CPU does not have."""
    if device == "cpu":
        pytest.skip("the CPU has nothing of this")
