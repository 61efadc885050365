"""Say what is wrong with pictures, or worth a warning, before a run begins with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.names import join_some
from trainer.data.sources.picture_index import Contents
from trainer.data.sources.picture_plan import PictureList
from trainer.ranks import processes

_FEW_GREYS = 16
"""what 12 bits keep next to 16: fewer are worth a warning"""

log = logging.getLogger("lockstep")


def check_errors(errors: Sequence[str], count: int, config: DataConfig) -> None:
    """Refuse broken pictures, or warn of them, as data.on_bad says.

    Args:
        errors: one for each broken picture.
        count: of all pictures.

    Raises:
        UserError: names the first of them.
    """
    if not errors:
        return
    counts = f"{len(errors):,} of {count:,} pictures cannot be read"
    named = "- " + join_some(errors, "\n- ")
    if config.on_bad == "stop":
        raise UserError(
            f"data.root: {counts}:\n{named}\nRepair or remove them, or leave them out: "
            "data.on_bad: skip"
        )
    if processes.launched_rank() == 0:
        log.warning("%s and are left out:\n%s", counts, named)


def describe_made_test(kind: str, count: int) -> str:
    """Say that there was no test, and how many pictures of train became one.

    Args:
        kind: of the list of pictures.
    """
    return (
        f"no {'part' if kind == 'table' else 'folder'} test: {count:,} of the pictures in train, "
        "chosen by their content, are kept for the test and not trained on"
    )


def warn(
    pictures: PictureList, contents: Mapping[str, Contents], grey_range: GreyRange | None
) -> None:
    """Warn of what the list left out, and of pictures that keep few greys."""
    for warning in pictures.warnings:
        log.warning("%s: %s", pictures.root, warning)
    if grey_range is not None:
        _warn_of_few_greys(pictures, contents, grey_range)


def _warn_of_few_greys(
    pictures: PictureList, contents: Mapping[str, Contents], grey_range: GreyRange
) -> None:
    """Warn if a wrong pixel in one file of more than 8 bits takes the contrast of all others."""
    low, high = grey_range
    flat, count = [], 0
    for part, found in contents.items():
        span = found.value_ranges[:, 1] - found.value_ranges[:, 0]
        count += int((~np.isnan(span)).sum())
        rows = np.flatnonzero((span > 0) & (255 * span < _FEW_GREYS * (high - low)))
        flat += [pictures.parts[part].places.names[row] for row in rows.tolist()]
    if flat:
        log.warning(
            "%s: %s of %s pictures of more than 8 bits keep fewer than %s greys, as %g is black "
            "and %g white, the range of the pictures to train on or data.grey_range, which sets "
            "another: %s",
            pictures.root, f"{len(flat):,}", f"{count:,}", _FEW_GREYS, low, high, join_some(flat),
        )  # fmt: skip
