"""Find out which rank a run has failed on, and let one of the others say so.

When a rank dies, the others only learn that a connection was closed; when one hangs, that a timeout
has passed. So each rank that ends notes this in the launcher's key-value store, and the remaining
ranks check which one has not. One rank prints the message, however many there are.
"""

from __future__ import annotations

import platform
import re
import time
import traceback
from typing import TYPE_CHECKING

from trainer.base.errors import (
    DifferentRunError,
    FirstFailureError,
    LostRankError,
    NonFiniteLossError,
    RankError,
    StoppedOnRequest,
    UserError,
)
from trainer.base.timeouts import run_with_timeout

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch._C._distributed_c10d import Store, TCPStore

FAILURE_KEY = "lockstep/failure"
"""in the launcher's store: the rank that has failed, and why"""

_HOST_KEY = "lockstep/host/"

_SAID_KEY = "lockstep/said"

PATIENCE_S = 10.0
"""for the other ranks to notice too; launchers kill after thirty seconds"""

ANSWER_S = 5.0
"""for the store to answer, in addition"""

_KNOWN_TO_ALL_RANKS = (
    UserError,
    StoppedOnRequest,
    NonFiniteLossError,
    DifferentRunError,
    FirstFailureError,
    LostRankError,
    KeyboardInterrupt,
)
"""errors that are raised on all ranks, or that no other rank has to be told of"""


def is_known_to_all(error: BaseException) -> bool:
    """Return whether no other rank has to be told of an error that ends this one."""
    return isinstance(error, _KNOWN_TO_ALL_RANKS) and not isinstance(error, RankError)


def note_host(accelerator: Accelerator) -> None:
    """Note in the store which machine this rank runs on."""
    if accelerator.num_processes > 1:
        default_store().set(f"{_HOST_KEY}{accelerator.process_index}", platform.node())


def diagnose(
    accelerator: Accelerator, error: BaseException
) -> LostRankError | FirstFailureError | None:
    """Find out whether an unexpected error of this rank comes from another rank.

    Returns:
        What to raise in its place, which names the rank that failed; None where the error itself
        says all: of a run of one process, or a `RankError` of the rank that failed first.
    """
    count, rank = accelerator.num_processes, accelerator.process_index
    if count == 1:
        return None
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    text = text.partition(" This is typically caused by")[0]  # gloo's guesses
    own = not _is_connection_error(error)
    try:
        # If the network is cut, the store does not answer and raises nothing.
        return run_with_timeout(
            PATIENCE_S + ANSWER_S,
            lambda: (
                _tell_others(error, text, rank) if own else _ask_others(error, text, rank, count)
            ),
        )
    except (TimeoutError, RuntimeError) as silence:
        if own:
            return _first_failed(error)
        if isinstance(silence, TimeoutError):
            return LostRankError(
                f"the machine of rank 0, or the network to it, does not answer ({text})",
                prints=accelerator.is_local_main_process,
            )
        # The store ended with the process that kept it.
        return LostRankError(f"rank 0, or the launcher, died ({text})", prints=True)


def _first_failed(error: BaseException) -> FirstFailureError | None:
    return None if isinstance(error, RankError) else FirstFailureError(error)


def _tell_others(
    error: BaseException, text: str, rank: int
) -> LostRankError | FirstFailureError | None:
    """Note a failure of this rank in the store, unless another rank failed first."""
    store = default_store()
    own = f"{_describe_rank(store, rank)} failed first ({text})"
    first = _first_failure(store, own)
    if first == own:
        return _first_failed(error)
    # The same mistake on all ranks is reported once, a different one as well.
    same = first.endswith(f" failed first ({text})")
    return LostRankError(first if same else f"{text}, after {first}", prints=not same)


def _ask_others(error: BaseException, text: str, rank: int, count: int) -> LostRankError:
    """Find the rank that has not noted its end, after a connection was lost."""
    store = default_store()
    store.set(f"lockstep/end/{rank}", text)
    _close_connections(error)
    end_s = time.monotonic() + PATIENCE_S
    while missing := [r for r in range(count) if not store.check([f"lockstep/end/{r}"])]:
        if store.check([FAILURE_KEY]) or time.monotonic() > end_s:
            break
        time.sleep(0.1)
    message = f"the ranks lost their connection ({text})"
    if missing:
        lost = ", ".join(_describe_rank(store, each) for each in missing)
        message = f"{lost} died, or has not answered in time ({text})"
    first = _first_failure(store, message)
    # A rank whose own code has failed reports it itself.
    own = " failed first (" in first
    return LostRankError(first, prints=not own and store.add(_SAID_KEY, 1) == 1)


def _close_connections(error: BaseException) -> None:
    """Let the ranks that wait for this one notice too: few wait directly for the one that died.

    Only gloo's connections close at once, and only when nothing refers to the group any more; the
    frames of the failed call do.
    """
    import torch.distributed as dist

    if dist.get_backend() == "gloo":
        traceback.clear_frames(error.__traceback__)
        dist.destroy_process_group()


def default_store() -> Store:
    """Return the key-value store through which the process group was formed."""
    import torch.distributed as dist

    store: Store = dist.distributed_c10d._get_default_store()
    return store


def note_death(store: TCPStore, text: str) -> None:
    """Note in a launcher's store how a rank died, for a launcher that says it itself."""
    for key in store.list_keys():
        prefix, of_group, _ = key.partition(_HOST_KEY)
        if of_group:
            store.add(f"{prefix}{_SAID_KEY}", 1)  # no rank says it again
            store.compare_set(f"{prefix}{FAILURE_KEY}", "", text)
            return


def _first_failure(store: Store, message: str) -> str:
    """Return the first failure that a rank noted in the store, or note this one as the first."""
    first: str = store.compare_set(FAILURE_KEY, "", message).decode()
    return first


def _is_connection_error(error: BaseException) -> bool:
    """Tell whether another rank may have caused it: gloo and NCCL name themselves in errors."""
    return isinstance(error, RuntimeError) and (
        type(error).__module__.startswith("torch.distributed")
        or type(error).__name__.startswith("Dist")
        or re.search("gloo|nccl", str(error), re.IGNORECASE) is not None
    )


def _describe_rank(store: Store, rank: int) -> str:
    return f"rank {rank} on {store.get(f'{_HOST_KEY}{rank}').decode()}"
