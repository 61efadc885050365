"""Which rank a run has failed on, told by the others.

When a rank dies, the others learn no more than that a connection was closed; when one hangs, that
time is up. So each rank that ends notes it in the launcher's key-value store, and those that are
left look who has not. One rank says what it was, however many there are.
"""

from __future__ import annotations

import platform
import re
import time
import traceback
from typing import TYPE_CHECKING

from trainer.base.errors import FirstFailureError, LostRankError
from trainer.base.timeouts import run_with_timeout
from trainer.ranks.processes import FAILURE_KEY, default_store

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch._C._distributed_c10d import Store

PATIENCE_SECONDS = 10.0
"""for the other ranks to notice too; launchers kill after thirty seconds"""

ANSWER_SECONDS = 5.0
"""for the store to answer, besides"""


def announce(accelerator: Accelerator) -> None:
    """Note where this rank runs."""
    if accelerator.num_processes > 1:
        default_store().set(f"lockstep/host/{accelerator.process_index}", platform.node())


def explain(
    accelerator: Accelerator, error: BaseException
) -> LostRankError | FirstFailureError | None:
    """What an unexpected error of this rank has to do with the other ranks.

    Returns:
        The error that names the rank that has failed; None where there is no other rank.
    """
    count, rank = accelerator.num_processes, accelerator.process_index
    if count == 1:
        return None
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    text = text.partition(" This is typically caused by")[0]  # gloo's guesses
    own = not _is_of_connection(error)
    try:
        # Where the network is cut, the store does not answer, and says nothing.
        return run_with_timeout(
            PATIENCE_SECONDS + ANSWER_SECONDS,
            lambda: (
                _tell_others(error, text, rank) if own else _ask_others(error, text, rank, count)
            ),
        )
    except (TimeoutError, RuntimeError) as silence:
        if own:
            return FirstFailureError(error)
        if isinstance(silence, TimeoutError):
            return LostRankError(
                f"the machine of rank 0, or the network to it, does not answer ({text})",
                prints=accelerator.is_local_main_process,
            )
        # The store has gone with the process that held it.
        return LostRankError(f"rank 0, or the launcher, died ({text})", prints=True)


def _tell_others(error: BaseException, text: str, rank: int) -> LostRankError | FirstFailureError:
    """Of an error of this rank's own."""
    store = default_store()
    own = f"{_name(store, rank)} failed first ({text})"
    first = _first_failure(store, own)
    if first == own:
        return FirstFailureError(error)
    # The same mistake on all ranks is said once, another one besides.
    same = first.endswith(f" failed first ({text})")
    return LostRankError(first if same else f"{text}, after {first}", prints=not same)


def _ask_others(error: BaseException, text: str, rank: int, count: int) -> LostRankError:
    """Of a connection that was lost."""
    store = default_store()
    store.set(f"lockstep/end/{rank}", text)
    _close_connections(error)
    end_s = time.monotonic() + PATIENCE_SECONDS
    while missing := [r for r in range(count) if not store.check([f"lockstep/end/{r}"])]:
        if store.check([FAILURE_KEY]) or time.monotonic() > end_s:
            break
        time.sleep(0.1)
    message = f"the ranks lost their connection ({text})"
    if missing:
        lost = ", ".join(_name(store, each) for each in missing)
        message = f"{lost} died, or has not answered in time ({text})"
    first = _first_failure(store, message)
    # A rank whose own code has failed says so by itself.
    own = " failed first (" in first
    return LostRankError(first, prints=not own and store.add("lockstep/said", 1) == 1)


def _close_connections(error: BaseException) -> None:
    """Let the ranks that wait for this one notice too: most wait for others than the one that died.

    Only gloo's close at once. They do when nothing holds the group any more, and what was going on
    when it failed does.
    """
    import torch.distributed as dist

    if dist.get_backend() == "gloo":
        traceback.clear_frames(error.__traceback__)
        dist.destroy_process_group()


def _first_failure(store: Store, message: str) -> str:
    """What has failed first: as another rank has noted it, else what is noted here and now."""
    first: str = store.compare_set(FAILURE_KEY, "", message).decode()
    return first


def _is_of_connection(error: BaseException) -> bool:
    """Whether another rank may have caused it: gloo and NCCL name themselves in their errors."""
    return isinstance(error, RuntimeError) and (
        type(error).__module__.startswith("torch.distributed")
        or type(error).__name__.startswith("Dist")
        or re.search("gloo|nccl", str(error), re.IGNORECASE) is not None
    )


def _name(store: Store, rank: int) -> str:
    return f"rank {rank} on {store.get(f'lockstep/host/{rank}').decode()}"
