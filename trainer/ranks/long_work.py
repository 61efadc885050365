"""Work of some ranks that the others wait for, however long it takes.

Who waits in a collective gives up after the group's timeout. So those at work say every second that
they still are, in a collective of all ranks; one that dies or hangs is noticed as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

PERIOD_S = 1.0


def awaited(accelerator: Accelerator, function: Callable[[], T]) -> T:
    """The result of `function`, when all ranks have done theirs; a collective.

    An error is raised at once: it has to end the run, or to be a result.
    """
    if accelerator.num_processes == 1:
        return function()
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PERIOD_S):
            try:
                _anybody_at_work(accelerator, True)
            except RuntimeError:  # this rank's next collective fails too, and is heard
                return

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        result = function()
    finally:
        done.set()
        teller.join()
    while _anybody_at_work(accelerator, False):
        pass
    return result


def _anybody_at_work(accelerator: Accelerator, this_rank: bool) -> bool:
    import torch
    import torch.distributed as dist

    at_work = torch.tensor([this_rank], dtype=torch.float32, device=accelerator.device)
    dist.all_reduce(at_work, op=dist.ReduceOp.MAX)
    return bool(at_work)
