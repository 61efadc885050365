"""A process ends with its launcher, and not with the thread of it that has started the process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.distributed.launch import environment

WORKER = """
import sys, time
from pathlib import Path
from trainer.ranks.preemption import end_with_launcher

end_with_launcher()
Path(sys.argv[1]).touch()
time.sleep(float(sys.argv[2]))
print("at its end")
"""

LAUNCHER = """
import subprocess, sys, threading, time
from pathlib import Path

started = []
def start():
    started.append(subprocess.Popen([sys.executable, *sys.argv[1:]]))
    while not Path(sys.argv[2]).exists():
        time.sleep(0.05)

thread = threading.Thread(target=start)
thread.start()
thread.join()
sys.exit(started[0].wait())
"""


def launch(folder: Path, seconds: float) -> tuple[subprocess.Popen[str], Path]:
    """Start a program that starts a worker in a thread; return it, and a file of the worker."""
    for name, text in (("worker.py", WORKER), ("launcher.py", LAUNCHER)):
        (folder / name).write_text(text)
    running = folder / "running"
    words = [str(folder / "launcher.py"), str(folder / "worker.py"), str(running), str(seconds)]
    process = subprocess.Popen(
        [sys.executable, *words],
        env=environment(TORCHELASTIC_RUN_ID="run"),
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, running


def test_a_worker_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    process, _ = launch(tmp_path, 1.5)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "at its end\n")


def test_the_end_of_the_launcher_ends_the_worker(tmp_path: Path) -> None:
    process, running = launch(tmp_path, 50.0)
    while not running.exists():
        time.sleep(0.05)
    process.kill()
    output, _ = process.communicate(timeout=20)  # until all writers have ended
    assert output == ""
