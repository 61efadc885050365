"""Find out which rank a run has failed on, and let one of the others say so.

When a rank dies, the others only learn that a connection was closed; when one hangs, that a timeout
has passed. So each rank that ends notes this in the launcher's key-value store, and the remaining
ranks check which one has not. If all have, they tell where each of them waited. One rank prints the
message, however many there are.
"""

from __future__ import annotations

import platform
import re
import time
import traceback
from pathlib import Path
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
from trainer.ranks import mailboxes, process_ends

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch._C._distributed_c10d import Store, TCPStore

FAILURE_KEY = "lockstep/failure"
"""in the launcher's store: the rank that has failed, and why"""

_HOST_KEY = "lockstep/host/"

_PROCESS_KEY = "lockstep/process/"

_END_KEY = "lockstep/end/"

_SAID_KEY = "lockstep/said"

_BY_ANOTHER = "gloo|nccl|monitoredBarrier"
"""in errors that another rank may have caused; the last with TORCH_DISTRIBUTED_DEBUG=DETAIL"""

_MISMATCH = "Detected mismatch between collectives"
"""what torch says with the same, where ranks call different ones"""

_CALL = re.compile(r"is running collective: .*?OpType=(\w+)(?:, TensorShape=(\[[^]]*\]))?")
"""in it: this rank's collective and the shape of its tensor"""

_IN_TORCH = re.compile(r"[/\\](torch|accelerate)[/\\]|[/\\]contextlib\.py$")

PATIENCE_S = 10.0
"""for the other ranks to notice too; launchers kill after thirty seconds"""

ENDED_S = 2.0
"""the same where all that are missing have ended: for their launcher to say how, if it does"""

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
    """Note in the store which machine this rank runs on, and as which process."""
    if accelerator.num_processes > 1:
        store, rank = default_store(), accelerator.process_index
        store.set(f"{_HOST_KEY}{rank}", platform.node())
        store.set(f"{_PROCESS_KEY}{rank}", process_ends.own_name())


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
    if _is_connection_error(error):
        return _ask_others(accelerator, error, text)
    try:
        # If the network is cut, the store does not answer and raises nothing.
        return run_with_timeout(PATIENCE_S + ANSWER_S, lambda: _tell_others(error, text, rank))
    except (TimeoutError, RuntimeError):
        return _first_failed(error)


def _first_failed(error: BaseException) -> FirstFailureError | None:
    return None if isinstance(error, RankError) else FirstFailureError(error)


def _tell_others(
    error: BaseException, text: str, rank: int
) -> LostRankError | FirstFailureError | None:
    """Note a failure of this rank in the store, unless another rank failed first."""
    store = default_store()
    own = f"{_describe_rank(store, rank)} failed first ({text})"
    first = _first_failure(store, own)
    mailboxes.close()  # those who wait for this rank find the failure
    if first == own:
        return _first_failed(error)
    # The same mistake on all ranks is reported once, a different one as well.
    same = first.endswith(f" failed first ({text})")
    return LostRankError(first if same else f"{text}, after {first}", prints=not same)


def _ask_others(accelerator: Accelerator, error: BaseException, text: str) -> LostRankError:
    """Find the rank that has not noted its end, after a connection was lost."""
    place = f"in {_own_place(error)}"
    if _MISMATCH in str(error) and (call := _CALL.search(str(error))):
        place = f"{call[1]}{f' of {call[2]}' if call[2] else ''} {place}"
        text = _MISMATCH
    return name_lost(accelerator, text, place, error)


def name_lost(
    accelerator: Accelerator, text: str, place: str, error: BaseException | None = None
) -> LostRankError:
    """Note the end of this rank, and find those that have not noted theirs.

    Args:
        text: what this rank has noticed.
        place: where it waits for others.
        error: of which the frames refer to the process group.
    """
    rank, count = accelerator.process_index, accelerator.num_processes
    mailboxes.close()
    try:
        return run_with_timeout(
            PATIENCE_S + ANSWER_S, lambda: _find_lost(rank, count, text, place, error)
        )
    except TimeoutError:
        return LostRankError(
            f"the machine of rank 0, or the network to it, does not answer ({text})",
            prints=accelerator.is_local_main_process,
        )
    except RuntimeError:  # the store ended with the process that kept it
        return LostRankError(f"rank 0, or the launcher, died ({text})", prints=True)


def _find_lost(
    rank: int, count: int, text: str, place: str, error: BaseException | None
) -> LostRankError:
    store = default_store()
    store.set(f"{_END_KEY}{rank}", place)
    if error is not None:
        _close_connections(error)
    end_s, have_ended = time.monotonic() + PATIENCE_S, False
    while missing := [r for r in range(count) if not store.check([f"{_END_KEY}{r}"])]:
        have_ended = all(_has_ended(store, each) for each in missing)
        if have_ended:
            end_s = min(end_s, time.monotonic() + ENDED_S)
        if store.check([FAILURE_KEY]) or time.monotonic() > end_s:
            break
        time.sleep(0.1)
    if missing:
        lost = ", ".join(_describe_rank(store, each) for each in missing)
        silent = "" if have_ended else ", or has not answered in time"
        message = f"{lost} died{silent} ({text})"
    elif text == _MISMATCH:
        message = f"the ranks do not call the same collective: {_describe_ends(store, count)}"
    else:
        message = f"the ranks lost their connection: {_describe_ends(store, count)} ({text})"
    first = _first_failure(store, message)
    # A rank whose own code has failed reports it itself.
    own = " failed first (" in first
    return LostRankError(first, prints=not own and store.add(_SAID_KEY, 1) == 1)


def _has_ended(store: Store, rank: int) -> bool:
    key = f"{_PROCESS_KEY}{rank}"
    return store.check([key]) and process_ends.has_ended(store.get(key).decode())


def _own_place(error: BaseException) -> str:
    """Return the file and line of the call that failed, outside of torch."""
    frames = traceback.extract_tb(error.__traceback__)
    ours_or_users = (one for one in reversed(frames) if not _IN_TORCH.search(one.filename))
    frame = next(ours_or_users, frames[-1])
    path = Path(frame.filename)
    ours = Path(__file__).parents[2]
    name = path.relative_to(ours).as_posix() if ours in path.parents else str(path)
    return f"{name}, line {frame.lineno}"


def _describe_ends(store: Store, count: int) -> str:
    """Tell where each rank waited, the fewest first."""
    places: dict[str, list[int]] = {}
    for rank in range(count):
        places.setdefault(store.get(f"{_END_KEY}{rank}").decode(), []).append(rank)
    found = sorted(places.items(), key=lambda item: (len(item[1]), item[1]))
    return "; ".join(
        f"{_describe_rank(store, ranks[0])}{f' and {len(ranks) - 1} more' * (len(ranks) > 1)} "
        f"{place}"
        for place, ranks in found
    )


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
    """Tell whether another rank may have caused it, by the names in its text."""
    return isinstance(error, RuntimeError) and (
        isinstance(error, mailboxes.LostNeighbourError)
        or type(error).__module__.startswith("torch.distributed")
        or type(error).__name__.startswith("Dist")
        or re.search(f"{_BY_ANOTHER}|{_MISMATCH}", str(error), re.IGNORECASE) is not None
    )


def _describe_rank(store: Store, rank: int) -> str:
    key = f"{_HOST_KEY}{rank}"
    # A rank that died at its start has not noted it, and the store would wait for that.
    return f"rank {rank} on {store.get(key).decode()}" if store.check([key]) else f"rank {rank}"
