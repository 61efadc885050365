"""Leave out what a library imports where it is installed, and nothing here uses."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

_NAME = "boto3"


@contextlib.contextmanager
def without_boto3() -> Iterator[None]:
    """Let `import accelerate` find no boto3 inside; afterwards anybody can import it.

    Accelerate's launcher for SageMaker needs it, whose settings `accelerate.utils` imports. Neither
    an argument nor a variable of Accelerate 1.15 leaves it out; Python's own way to block a module
    does (docs.python.org/3/reference/import.html, "the module cache").
    """
    if _NAME in sys.modules:
        yield
        return
    sys.modules[_NAME] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_NAME]
