"""Named arrays in one file (NumPy's .npz), which is whole or absent."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.files import write_file

Arrays = Mapping[str, npt.NDArray[Any]]


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays of numbers or text to `path`, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    named = dict(arrays)

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **named)

    write_file(path, save)


def read_arrays(path: Path, names: Sequence[str] | None = None) -> Arrays | None:
    """Return the arrays of a file; None if it is missing or damaged, or lacks one of `names`.

    Args:
        names: of the arrays; None: all.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names or arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
