"""Run torchrun in a pod, or on a machine that may be taken away; end with the run's exit code.

python launch/pod.py [torchrun's options] train.py --config FILE

torchrun ends with 1 whatever its workers end with. This ends with 2 where the user can fix it, with
75 where the run was asked to stop and is saved, and with 1 for anything else. A SIGTERM goes to the
workers, who have all the time until the machine goes, and not torchrun's thirty seconds. Options
can be in torchrun's own variables, such as PET_NNODES.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from types import FrameType

from trainer.ranks.exit_codes import FAILED, FINISHED, STOPPED_ON_REQUEST, USER_CAN_FIX

POLL_S = 1.0
"""between two attempts to reach the first pod"""


def main(words: list[str]) -> int:
    """Run torchrun with these words and return the exit code of the run on this machine."""
    # As a container's first process this one ignores every signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED_ON_REQUEST))
    meet_at_first_pod()
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousClosedError

    signal.signal(signal.SIGTERM, ask_workers_to_stop)
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGINT"
    try:
        # Not its main(), which would log the failures once more.
        run.run(run.parse_args(words))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = exit_code(failure.exitcode for failure in error.failures.values())
        if code == FAILED:
            print(error, file=sys.stderr)
        return code
    except (RendezvousClosedError, SignalException):
        # Nothing was trained: the other pods have just ended, or the request came before the start.
        return STOPPED_ON_REQUEST
    return FINISHED


def exit_code(of_workers: Iterable[int]) -> int:
    """Return the code for a machine whose failed workers ended with these; a signal is negative."""
    codes = set(of_workers)
    if USER_CAN_FIX in codes:
        return USER_CAN_FIX
    # A worker that has not started to train, or has saved already, dies of the signal.
    return STOPPED_ON_REQUEST if codes <= {STOPPED_ON_REQUEST, -signal.SIGTERM} else FAILED


def ask_workers_to_stop(number: int, _: FrameType | None) -> None:
    """Hand a SIGTERM on; without workers, end at once.

    Raises:
        SignalException: torchrun is still waiting for the other machines. It leaves them their
            meeting point.
    """
    import psutil
    from torch.distributed.elastic.multiprocessing.api import SignalException

    workers = psutil.Process().children()
    for worker in workers:
        worker.terminate()
    if not workers:
        raise SignalException("asked to stop", signal.Signals(number))


def meet_at_first_pod() -> None:
    """Let the first pod of an indexed Job keep the meeting point, and the others wait for it.

    The pods of a Job start, and start again, in any order, and the first one's name is known only
    when it runs; torchrun would give up after a minute.
    """
    index = os.environ.get("JOB_COMPLETION_INDEX")
    if index is None or os.environ.get("PET_RDZV_BACKEND") != "c10d":
        return
    settings = [os.environ.get("PET_RDZV_CONF"), f"is_host={int(index == '0')}"]
    os.environ["PET_RDZV_CONF"] = ",".join(filter(None, settings))
    if index == "0":
        return
    host, _, port = os.environ["PET_RDZV_ENDPOINT"].rpartition(":")
    print(f"waiting for {host}", flush=True)
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=POLL_S).close()
        except OSError:
            time.sleep(POLL_S)
        else:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
