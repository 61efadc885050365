"""Turn what the exporters raise and print into one message."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

from models.construct import place_of
from trainer.base.errors import UserError

EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "openvino": "openvino"}
"""of the packages that formats need"""


@contextlib.contextmanager
def explain_failure(what: str) -> Iterator[None]:
    """Turn what the exporters raise on a network that they do not understand into one message.

    Args:
        what: has failed, in words.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(
            f"--format: {what} ({describe_failure(error)}); nothing is written"
        ) from error


def describe_failure(error: BaseException) -> str:
    """Describe what went wrong first: what was raised on top of it advises on exporters."""
    place = place_of(error)
    while (first := error.__cause__ or error.__context__) is not None:
        error = first
        place = place_of(error) or place
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    # After an empty line torch tells how to debug itself.
    words = " ".join(text.partition("\n\n")[0].split())[:300]
    return f"{type(error).__name__}: {words}" + (f"; {place}" if place else "")


@contextlib.contextmanager
def silence_libraries() -> Iterator[None]:
    """Drop the libraries' notes on their own future and on unneeded packages.

    Before it raises, torch prints the whole program that it does not understand.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def find_missing(packages: tuple[str, ...]) -> str | None:
    """Say which of some packages cannot be imported, and what brings it; None: all can."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            extra = EXTRAS[package]
            return (
                f"{package} cannot be imported ({error}); pip install 'lockstep-trainer[{extra}]', "
                f"or pip install -e '.[{extra}]' in its folder"
            )
    return None
