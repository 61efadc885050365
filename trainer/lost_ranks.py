"""Which rank a run has failed on, told by the others.

When a rank dies, the others learn no more than that a connection was closed; when one hangs, that
time is up. So each rank that ends notes it in the launcher's key-value store, and those that are
left look who has not.
"""

from __future__ import annotations

import platform
import re
import time
from typing import TYPE_CHECKING

from accelerate import Accelerator

from trainer.errors import LostRankError
from trainer.processes import FAILURE_KEY, default_store
from trainer.time_limit import within

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

PATIENCE_SECONDS = 10.0
"""for the other ranks to notice too; launchers kill after thirty seconds"""

ANSWER_SECONDS = 5.0
"""for the store to answer, besides"""


def announce(accelerator: Accelerator) -> None:
    """Note where this rank runs."""
    if accelerator.num_processes > 1:
        default_store().set(f"lockstep/host/{accelerator.process_index}", platform.node())


def explain(accelerator: Accelerator, error: BaseException) -> LostRankError | None:
    """What an unexpected error of this rank has to do with another rank.

    Returns:
        The error that names the rank that has failed; None where the error is this rank's own.
    """
    count, rank = accelerator.num_processes, accelerator.process_index
    if count == 1:
        return None
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    try:
        # Where the network is cut, the store does not answer, and says nothing.
        return within(
            PATIENCE_SECONDS + ANSWER_SECONDS, lambda: _ask_others(error, text, rank, count)
        )
    except TimeoutError:
        return LostRankError(
            f"the machine of rank 0, or the network to it, does not answer ({text})",
            speaks=accelerator.is_local_main_process,
        )
    except RuntimeError:  # the store has gone with the process that held it
        return LostRankError(f"rank 0, or the launcher, died ({text})", speaks=True)


def _ask_others(error: BaseException, text: str, rank: int, count: int) -> LostRankError | None:
    store = default_store()
    if not _is_of_connection(error):
        store.set(FAILURE_KEY, f"{_name(store, rank)} failed first ({text})")
        return None
    store.set(f"lockstep/end/{rank}", text)
    message, speaker = _message(store, count, text)
    return LostRankError(message, speaks=rank == speaker)


def _message(store: Store, count: int, text: str) -> tuple[str, int]:
    """Who has failed, and which rank is to say so."""
    end_s = time.monotonic() + PATIENCE_SECONDS
    while missing := [r for r in range(count) if not store.check([f"lockstep/end/{r}"])]:
        if store.check([FAILURE_KEY]) or time.monotonic() > end_s:
            break
        time.sleep(0.1)
    speaker = next(rank for rank in range(count) if rank not in missing)
    if store.check([FAILURE_KEY]):
        return store.get(FAILURE_KEY).decode(), speaker
    if missing:
        lost = ", ".join(_name(store, rank) for rank in missing)
        return f"{lost} died, or has not answered in time ({text})", speaker
    return f"the ranks lost their connection ({text})", speaker


def _is_of_connection(error: BaseException) -> bool:
    """Whether another rank may have caused it: gloo and NCCL name themselves in their errors."""
    return isinstance(error, RuntimeError) and (
        type(error).__module__.startswith("torch.distributed")
        or type(error).__name__.startswith("Dist")
        or re.search("gloo|nccl", str(error), re.IGNORECASE) is not None
    )


def _name(store: Store, rank: int) -> str:
    return f"rank {rank} on {store.get(f'lockstep/host/{rank}').decode()}"
