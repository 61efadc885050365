"""No process of a run outlives its launcher, and holds the run's folder."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""of prctl(2)"""

ORPHAN_SECONDS = 30.0
"""to save and end without a launcher, as much as launchers themselves give"""


def end_with_launcher() -> None:
    """Have the kernel ask this process to stop when its launcher ends, however that ends.

    A launcher that is killed cannot tell its workers, which would go on and hold the run's folder.
    Only Linux has such a thing.
    """
    # Accelerate's own variable, which says what torch.compile is to use, is there in any case.
    launched = "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_DYNAMO_BACKEND" in os.environ
    if not launched or sys.platform != "linux":
        return
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # Else it has ended before this process could ask for that.
    if os.getppid() != launcher or (launcher == 1 and not _is_python(launcher)):
        sys.exit(1)
    threading.Thread(target=_end_orphan, args=[launcher], daemon=True).start()


def _end_orphan(launcher: int) -> None:
    """Kill this process where it has not stopped by itself some time after its launcher."""
    while os.getppid() == launcher:
        time.sleep(1.0)
    time.sleep(ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_python(process: int) -> bool:
    """Whether it runs Python, as launchers do, also where they are a container's first process."""
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return b"python" in words[0]
