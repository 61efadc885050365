"""The CUDA graphs of torch's compiler: recorded where a program asks for that, and counted.

Lockstep asks torch for none (docs/speed.md); this shows whether it could, and what they would save.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch

from trainer.base import compiler


@contextlib.contextmanager
def watch_graphs(*, recorded: bool) -> Iterator[Callable[[], dict[str, int]]]:
    """Yield a function that counts: replays of graphs so far, and graphs that torch left out.

    Args:
        recorded: whether torch is to record what is compiled inside.
    """
    options, replay = compiler.options, torch.cuda.CUDAGraph.replay
    replays = 0

    def choose(mode: compiler.Compile, device: torch.device) -> dict[str, Any]:
        return options(mode, device) | ({"triton.cudagraphs": True} if recorded else {})

    def replay_and_count(graph: torch.cuda.CUDAGraph) -> None:
        nonlocal replays
        replays += 1
        replay(graph)

    def count() -> dict[str, int]:
        from torch._dynamo.utils import counters

        skips = counters["inductor"]["cudagraph_skips"]
        return {"graph_replays": replays, "graph_skips": skips}

    with (
        patch.object(compiler, "options", choose),
        patch.object(torch.cuda.CUDAGraph, "replay", replay_and_count),
    ):
        yield count
