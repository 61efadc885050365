"""Files that a command writes where its user says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trainer.base.errors import UserError


@contextlib.contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Inside of this context the file that an option names is written.

    Raises:
        UserError: it cannot be.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{option}: {path} cannot be written ({error.strerror})") from error
