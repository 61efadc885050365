"""Name the rank that has failed where NCCL connects them.

A call of NCCL only queues an exchange on the GPU. If another rank is lost, the host waits for the
GPU for ever, and no call fails: a thread of torch, the watchdog, notices that an exchange has
failed or taken too long, writes down what this rank exchanged last (its flight recorder), and
aborts the process a minute later without naming anybody. So another thread asks the watchdog every
second, and ends the process before that by a message as from `lost_ranks`.

Not run on a GPU. As read in a ProcessGroupNCCL.cpp of about torch 2.9 and in headers of 2.13, whose
defaults serve: errors end a process (TORCH_NCCL_ASYNC_ERROR_HANDLING), the flight recorder is on
(TORCH_FR_BUFFER_SIZE) and written (TORCH_NCCL_DUMP_ON_TIMEOUT) by a thread that is there
(TORCH_NCCL_ENABLE_MONITORING). TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC is about the watchdog itself, not
about exchanges, so it need not be longer than their timeout.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import LostRankError
from trainer.base.timeouts import run_with_timeout
from trainer.ranks import exit_codes, lost_ranks, processes

if TYPE_CHECKING:
    from accelerate import Accelerator

DUMP_VARIABLES = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
"""of where torch writes its flight recorder, before the number of the rank: the newer name first"""

INTERVAL_S = 1.0

LAST_S = 3.0
"""that the rank with the message still lives: torch writes its flight recorder, others ask"""

SUCCESS, TIMED_OUT = "SUCCESS", "TIMEOUT"
"""of the states of torch's watchdog"""

_NAME = "watch of NCCL"

_ending = threading.Event()

_STATE_KEY = "lockstep/nccl"
"""in the launcher's store: the state of the first rank whose exchange has failed"""


def choose_dump_place() -> None:
    """Choose where torch writes its flight recorder, unless the user has: so that it is known.

    Call it before the process group is formed.
    """
    if _dump_prefix() is None:
        home = Path(os.environ.get("HOME") or tempfile.gettempdir())  # some containers have none
        folder = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "torch"
        with contextlib.suppress(OSError):  # torch goes on without it
            folder.mkdir(parents=True, exist_ok=True)
        os.environ[DUMP_VARIABLES[0]] = str(folder / "comm_lib_trace_rank_")


def _dump_prefix() -> str | None:
    return next((os.environ[name] for name in DUMP_VARIABLES if name in os.environ), None)


def watch_group(accelerator: Accelerator, timeout_seconds: float) -> None:
    """Begin to watch the exchanges of this rank, if NCCL makes them."""
    import torch.distributed as dist

    if accelerator.num_processes == 1 or dist.get_backend() != "nccl":
        return
    # 0: the user wants a process to go on whose exchange has failed.
    if os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING") == "0":
        return
    group = dist.distributed_c10d._get_default_group()
    backend: Any = group._get_backend(accelerator.device)
    if hasattr(backend, "get_error"):  # of torch's own NCCL, which is the one described above
        watch_exchanges(accelerator, lambda: str(backend.get_error().name), timeout_seconds)


def watch_exchanges(
    accelerator: Accelerator, get_state: Callable[[], str], timeout_seconds: float
) -> None:
    """End this process soon after an exchange of any rank has failed; return at once.

    Args:
        get_state: returns SUCCESS, or how an exchange of this rank has failed.
        timeout_seconds: after which it fails.
    """
    started_s = time.time()

    def watch() -> None:
        state = _wait_for_failure(get_state)
        if state is None:
            return
        text = f"NCCL reports {state}"
        if state == TIMED_OUT:
            text = f"an exchange has not ended within {timeout_seconds:g} s"
        error = lost_ranks.name_lost(accelerator, text, "in an exchange")
        # A rank without the message may have an error of its own, which its main thread reports;
        # with it, that thread is not to end the process before the message.
        is_ending = _ending.wait(LAST_S if error.prints else lost_ranks.PATIENCE_S)
        if is_ending and not error.prints:
            return
        exit_codes.end_now(
            LostRankError(f"{error}{_describe_dump(started_s)}", prints=error.prints)
        )

    # The group outlives a run in a program that does several.
    if not any(thread.name == _NAME for thread in threading.enumerate()):
        _start(watch)


def _start(work: Callable[[], None]) -> None:
    """Start a thread that is asked to end before the process does.

    One that Python stopped in a call of torch's would end the process by a signal.
    """
    thread = threading.Thread(target=work, name=_NAME, daemon=True)
    thread.start()

    def stop() -> None:
        _ending.set()
        thread.join(INTERVAL_S)

    atexit.register(stop)


def _wait_for_failure(get_state: Callable[[], str]) -> str | None:
    """Return how an exchange has failed, of this rank or, if its end is known to be near, another.

    A rank that others have waited for too long is the one to be named, so it does not answer them.

    Returns:
        None where the process ends.
    """
    heard = queue.SimpleQueue[str]()
    _start(lambda: _listen(heard))
    store = lost_ranks.default_store()
    while not _ending.wait(INTERVAL_S):
        if (state := get_state()) != SUCCESS:
            note = functools.partial(store.compare_set, _STATE_KEY, "", state)
            with contextlib.suppress(RuntimeError, TimeoutError):  # the store may have gone
                run_with_timeout(lost_ranks.ANSWER_S, note)
            return state
        if not heard.empty():
            return heard.get()
    return None


def _listen(heard: queue.SimpleQueue[str]) -> None:
    """Put what another rank notes; a thread of its own, as the store may never answer."""
    store = lost_ranks.default_store()
    with contextlib.suppress(RuntimeError):  # the store ended with the process that kept it
        while not _ending.wait(INTERVAL_S):
            if store.check([_STATE_KEY]) and not store.check([lost_ranks.FAILURE_KEY]):
                state = store.get(_STATE_KEY).decode()
                if state != TIMED_OUT:
                    heard.put(state)
                    return


def _describe_dump(started_s: float) -> str:
    """Say where torch has written what the ranks exchanged last, if it has since `started_s`."""
    prefix = _dump_prefix() or ""
    dump = Path(f"{prefix}{processes.launched_rank()}")
    if not dump.is_file() or dump.stat().st_mtime < started_s:
        return ""
    return f"; what each rank exchanged last is on its machine in {prefix}RANK"
