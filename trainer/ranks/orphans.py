"""No process of a run outlives its launcher, and holds the run's folder."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

LOOK_SECONDS = 0.5
"""between two looks at whether the launcher is there"""

ORPHAN_SECONDS = 30.0
"""to save and end without a launcher, as much as launchers themselves give"""


def end_with_launcher() -> None:
    """Ask this process to stop when its launcher ends, however that ends.

    A launcher that is killed cannot tell its workers, which would go on and hold the run's folder.
    The kernel's own signal for it, PR_SET_PDEATHSIG, comes when the thread ends that has started
    this process, which in a program of several threads may be long before the program does.
    """
    # Accelerate's own variable, which says what torch.compile is to use, is there in any case.
    launched = "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_DYNAMO_BACKEND" in os.environ
    if not launched or sys.platform != "linux":
        return
    launcher = os.getppid()
    if launcher == 1 and not _is_python(launcher):  # it has ended already
        sys.exit(1)
    threading.Thread(target=_end_orphan, args=[launcher], daemon=True).start()


def _end_orphan(launcher: int) -> None:
    """Ask this process to stop after its launcher's end; kill it where it has not done so."""
    while os.getppid() == launcher:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_python(process: int) -> bool:
    """Whether it runs Python, as launchers do, also where they are a container's first process."""
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return b"python" in words[0]
