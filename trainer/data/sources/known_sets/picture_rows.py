"""List pictures of an archive by their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.base.errors import UserError
from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.pictures.places import Places

Rows = list[tuple[str, int]]
"""names of pictures in an archive, and the numbers of their classes"""


def list_rows(members: Places, rows: Sequence[tuple[str, int]]) -> ListedPictures:
    """Return the places and labels of pictures, in the order of `rows`.

    Raises:
        UserError: a picture is not in the archive.
    """
    positions = {name: position for position, name in enumerate(members.names)}
    lacking = [name for name, _ in rows if name not in positions]
    if lacking or not rows:
        what = f"the picture {lacking[0]}" if lacking else "pictures of this set"
        raise UserError(f"{members.root}: lacks {what}; get the published file")
    return ListedPictures(
        members.select(np.array([positions[name] for name, _ in rows], dtype=np.int64)),
        np.array([label for _, label in rows], dtype=np.int64),
    )


def read_lines(members: Places, name: str) -> list[str]:
    """Read a text file in an archive, without blank lines and lines that start with #.

    Raises:
        UserError: it is not in the archive.
    """
    found = [position for position, other in enumerate(members.names) if other == name]
    if not found:
        raise UserError(f"{members.root}: lacks {name}; get the published file")
    lines = members[found[0]].read().decode("utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
