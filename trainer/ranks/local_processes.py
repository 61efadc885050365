"""Start a run's processes on this machine, where no launcher has: one for each core or GPU.

They are forked when everything is imported, which takes seconds, and before anything is computed:
neither OpenMP's threads nor a CUDA context would survive a fork. Each finds the variables that
torchrun sets, so from there on nothing differs from a launch by torchrun.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import multiprocessing
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from typing import TYPE_CHECKING

from trainer.config.schema import RunConfig
from trainer.ranks import exit_codes, lost_ranks, process_group, processes
from trainer.ranks.preemption import STOP_SIGNALS

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

log = logging.getLogger("lockstep")

GRACE_S = 30.0
"""for the others to end when one has failed, as launchers give"""

INTERRUPTED_S = 5.0
"""for all to end after a second SIGINT"""


def run(config: RunConfig, work: Callable[[], object]) -> None:
    """Do `work` as one process, or as each of several that are started here.

    Call it when all modules are imported. Behind a launcher it only calls `work`.

    Args:
        config: what is null in it and known from an earlier start should be filled in.

    Raises:
        UserError: there are fewer GPUs than processes asked for.
        SystemExit: the processes did not all finish; with their exit code.
    """
    if processes.is_launched() or config.processes == 1:
        work()
        return
    gpus = _count_gpus()
    if idle := processes.idle_warning(config, gpus):
        log.warning("%s", idle)
    count = processes.count_to_start(config, gpus)
    if count == 1:
        work()
    elif code := _Launch(count, on_cpu=gpus == 0).run(work):
        sys.exit(code)


def _count_gpus() -> int:
    """Return how many GPUs runs here would use, without asking CUDA in this process."""
    import torch

    if process_group.wants_cpu() or torch.accelerator.current_accelerator() is None:
        return 0
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(torch.accelerator.device_count()))
    child.start()
    sender.close()
    count: int = receiver.recv()
    child.join()
    return count


class _Launch:
    """The processes of one run, seen by the one that has started them and waits for them."""

    def __init__(self, count: int, *, on_cpu: bool) -> None:
        self.count = count
        self.on_cpu = on_cpu
        self.ranks: list[ForkProcess] = []
        self.stopped_by: signal.Signals | None = None
        self.interrupts = 0
        self.deadline_s = float("inf")

    def run(self, work: Callable[[], object]) -> int:
        """Start the processes, wait for all of them, and return their common exit code."""
        from torch._C._distributed_c10d import TCPStore

        # The kernel chooses a free port and keeps it: bound here, served when all are forked,
        # because the store's thread would not be in them.
        listener = socket.create_server(("127.0.0.1", 0), backlog=4 * self.count)
        port = listener.getsockname()[1]
        context = multiprocessing.get_context("fork")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or each would print again what waits there
        gc.freeze()  # the collector would copy the pages that all share
        try:
            with self._forward_signals():
                for rank in range(self.count):
                    arguments = (self._variables(rank, port), listener, work)
                    process = context.Process(target=_be_rank, args=arguments)
                    process.start()
                    self.ranks.append(process)
                store = TCPStore(
                    "127.0.0.1",
                    port,
                    is_master=True,
                    wait_for_workers=False,
                    master_listen_fd=listener.detach(),
                )
                codes = self._wait(store)
        finally:
            for process in self.ranks:
                process.kill()
                process.join()
        return self._conclude(codes)

    def _variables(self, rank: int, port: int) -> dict[str, str]:
        """Return what torchrun would set for a rank."""
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.count),
            "LOCAL_WORLD_SIZE": str(self.count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": processes.STARTED_HERE,
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # or Accelerate warns
        }
        if self.on_cpu:
            variables["ACCELERATE_USE_CPU"] = "true"
            # By the machine's name gloo may find a network that is not there, or a firewall.
            variables["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
        return variables

    @contextlib.contextmanager
    def _forward_signals(self) -> Iterator[None]:
        """Pass on each request to stop; a terminal's Ctrl-C reaches the others by itself, too."""

        def forward(number: int, _: object) -> None:
            self.stopped_by = signal.Signals(number)
            if number == signal.SIGINT:
                self.interrupts += 1
                if self.interrupts > 1:
                    self.deadline_s = min(self.deadline_s, time.monotonic() + INTERRUPTED_S)
            for process in self.ranks:
                # Not as a second SIGINT, which would end them at once.
                if process.pid and process.exitcode is None:
                    os.kill(process.pid, signal.SIGTERM if number == signal.SIGINT else number)

        before = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wait(self, store: TCPStore) -> list[int]:
        """Wait for all ranks, of which the others end soon after one has failed."""
        running = dict(enumerate(self.ranks))
        codes = [0] * self.count
        while running:
            left_s = self.deadline_s - time.monotonic()
            if left_s <= 0:
                self._kill(list(running))
            wait([process.sentinel for process in running.values()], min(left_s, 3600.0))
            for rank, process in list(running.items()):
                if process.exitcode is None:
                    continue
                codes[rank] = code = process.exitcode
                del running[rank]
                if code < 0:
                    self._note_death(store, rank, signal.Signals(-code))
                if code < 0 or code in (exit_codes.FAILED, exit_codes.USER_CAN_FIX):
                    self.deadline_s = min(self.deadline_s, time.monotonic() + GRACE_S)
        return codes

    def _note_death(self, store: TCPStore, rank: int, number: signal.Signals) -> None:
        """Say which rank a signal has killed, once, instead of the ranks that notice it."""
        if self._was_asked(number) or self.deadline_s < float("inf"):
            return
        text = f"rank {rank} on {platform.node()} was killed by {number.name}"
        if number is signal.SIGKILL:
            text += ", as the kernel does where memory is short"
        lost_ranks.note_death(store, text)
        print(text, file=sys.stderr, flush=True)

    def _was_asked(self, number: int) -> bool:
        """Tell whether a signal that ended a rank was one to stop, before the rank heard it."""
        return self.stopped_by is not None and number in (self.stopped_by, signal.SIGTERM)

    def _kill(self, ranks: Sequence[int]) -> None:
        names = ", ".join(f"rank {rank}" for rank in ranks)
        print(f"{names}: killed, as not ended by itself in time", file=sys.stderr, flush=True)
        self.deadline_s = float("inf")
        for rank in ranks:
            self.ranks[rank].kill()

    def _conclude(self, codes: Sequence[int]) -> int:
        """Return the exit code of a run with these of its ranks, negative ones of signals."""
        if self.stopped_by and any(code < 0 and self._was_asked(-code) for code in codes):
            # As of one process that has not begun.
            if self.stopped_by is signal.SIGINT:
                if codes[0] < 0:  # or rank 0 has said it
                    print("interrupted", file=sys.stderr, flush=True)
                return exit_codes.FAILED
            signal.signal(self.stopped_by, signal.SIG_DFL)
            os.kill(os.getpid(), self.stopped_by)
        return common_exit_code(codes)


def common_exit_code(codes: Sequence[int]) -> int:
    """Return the exit code of a run whose ranks ended with these, negative ones of signals."""
    for code in (exit_codes.USER_CAN_FIX, exit_codes.DIFFERENT):
        if code in codes:
            return code
    if set(codes) <= {exit_codes.FINISHED, exit_codes.STOPPED_ON_REQUEST}:
        return max(codes)
    return exit_codes.FAILED


def _be_rank(
    variables: dict[str, str], listener: socket.socket, work: Callable[[], object]
) -> None:
    """Be a rank: the whole life of a started process."""
    listener.close()
    for number in STOP_SIGNALS:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    os.environ.update(variables)
    atexit._clear()  # what the other process has to do at its end
    try:
        with exit_codes.program():
            work()
    finally:
        atexit._run_exitfuncs()  # which this kind of process leaves out
