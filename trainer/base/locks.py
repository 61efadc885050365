"""Lock files: one process at a time, on a machine and, if the file system can, on several.

The kernel takes a lock from a process that ends, however it ends, so a lock file that is left means
nothing. The process with the lock writes into the file who it is, for those who wait, and touches
it to show that it is alive; `filelock` does neither.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from trainer.base.errors import UserError

BEAT_S = 2.0
"""how often the process with the lock shows that it is alive"""
SILENT_S = 60.0
"""how long after its owner's last sign of life others stop waiting"""
SAID_AFTER_S = 10.0
"""how long to wait without a message"""
_SAID_EVERY_S = 60.0
_ASKED_EVERY_S = 0.1

_TAKEN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class Lock:
    """Represents a lock that this process has.

    Args:
        file: the open file that is locked.
        is_exclusive: whether it keeps others away; False if the file system has no locks.
    """

    file: FileIO
    is_exclusive: bool

    def release(self) -> None:
        """Give the lock up; the end of a process does it too."""
        if self.is_exclusive and not self.file.closed:
            self._note("")
        self.file.close()

    def _note(self, text: str) -> None:
        # It only serves a message, so a full disk does not matter here.
        with contextlib.suppress(OSError):
            self.file.truncate(0)
            self.file.write(text.encode(errors="replace"))


def try_lock(path: Path, without: str) -> Lock | None:
    """Lock a file, which is made if it is missing; return None if another process has it.

    Where the file system has no locks (Lustre without `flock`, some NFS), a warning says so.

    Args:
        without: what to mind where nobody is kept away, for that warning.

    Raises:
        OSError: the file cannot be made or opened.
    """
    file = path.open("ab", buffering=0)
    try:
        _flock(file)
    except OSError as error:
        if error.errno in _TAKEN:
            file.close()
            return None
        log.warning("%s: cannot be locked here (%s); %s", path, error.strerror, without)
        return Lock(file, is_exclusive=False)
    lock = Lock(file, is_exclusive=True)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    lock._note(f"process {os.getpid()} on {platform.node()} since {since}")
    return lock


def describe_holder(path: Path) -> str:
    """Return in words who has the lock."""
    try:
        note = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        note = ""
    return "".join(filter(str.isprintable, note)) or _known_to_the_kernel(path)


def _known_to_the_kernel(path: Path) -> str:
    """Return who has a lock but has not written it down, as Linux knows it of its processes."""
    with contextlib.suppress(OSError, ValueError):
        inode = path.stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            # 1: FLOCK  ADVISORY  WRITE 3404 08:01:1315 0 EOF
            words = line.split()
            is_it = words[1:2] == ["FLOCK"] and int(words[5].rpartition(":")[2]) == inode
            if is_it and int(words[4]) > 0:  # another container's processes have no number here
                return f"process {words[4]} on {platform.node()}"
    return "another process"


@contextlib.contextmanager
def lock_file(path: Path, work: str, without: str) -> Iterator[bool]:
    """Have the lock inside this context; a process that has it now is waited for, and named.

    Args:
        work: what is done inside, as in "decodes these pictures".
        without: as of `try_lock`.

    Yields:
        Whether others are kept away.

    Raises:
        UserError: the process that has it shows no sign of life.
        OSError: the file cannot be made or opened.
    """
    lock = _wait(path, work, without)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, done), daemon=True)
    beat.start()
    try:
        yield lock.is_exclusive
    finally:
        done.set()
        beat.join()
        lock.release()


def _flock(file: FileIO) -> None:
    """Lock a file now.

    Raises:
        OSError: it is locked, or cannot be.
    """
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from error
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _wait(path: Path, work: str, without: str) -> Lock:
    begin_s = seen_s = time.monotonic()
    say_s = begin_s + SAID_AFTER_S
    sign: int | None = None
    while (lock := try_lock(path, without)) is None:
        now_s = time.monotonic()
        last, sign = sign, None  # what changes while the process with the lock lives
        with contextlib.suppress(FileNotFoundError):
            sign = path.stat().st_mtime_ns
        if sign != last:
            seen_s = now_s
        if now_s - seen_s > SILENT_S:
            raise UserError(
                f"{path}: {describe_holder(path)} has this lock and has shown no sign of life for "
                f"{SILENT_S:.0f} s; end it and start again, or remove the file if there is "
                "no such process"
            )
        if now_s > say_s:
            say_s = now_s + _SAID_EVERY_S
            log.warning(
                "waiting for %s, which %s (for %.0f s now; lock %s)",
                describe_holder(path), work, now_s - begin_s, path,
            )  # fmt: skip
        time.sleep(_ASKED_EVERY_S)
    return lock


def _beat(path: Path, done: threading.Event) -> None:
    """Touch the file again and again while this process has its lock."""
    while not done.wait(BEAT_S):
        with contextlib.suppress(OSError):  # somebody has removed it
            os.utime(path)
