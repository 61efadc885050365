"""Write what was found as an HTML page that contains its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.files import write_text
from trainer.commands.inspect_data.image_statistics import InspectedImages, Place
from trainer.commands.options import report_write_errors
from trainer.run.report import pages

SAMPLES = 12
"""how many training images of each class are shown"""
LARGEST_GROUP = 6
"""how many images of a group of duplicates are shown"""


def write(
    path: Path, found: dict[str, Any], inspected: InspectedImages, classes: Sequence[int]
) -> None:
    """Write the page.

    Args:
        classes: the numbers of those to show.

    Raises:
        UserError: it cannot be written.
    """
    groups = [group[:LARGEST_GROUP] for group in found["duplicates"]["groups"]]
    suspects = (found["suspects"] or {}).get("images", [])
    images = [*suspects, *(image for group in groups for image in group)]
    labels = inspected.splits["train"].targets.numpy()
    samples: list[list[Place]] = [
        [("train", position) for position in np.flatnonzero(labels == label)[:SAMPLES].tolist()]
        for label in classes
    ]
    shown = [(image["part"], image["position"]) for image in images]
    uris = _uris(inspected, [*shown, *(place for places in samples for place in places)])
    text = pages.render(
        "inspect_data.html",
        found=found,
        classes=[found["classes"][label] for label in classes],
        groups=groups,
        suspects=suspects,
        samples=[
            [(uris[place], inspected.describe(place)["name"]) for place in places]
            for places in samples
        ],
        uri=lambda image: uris[image["part"], image["position"]],
        largest=max(row["train"] for row in found["classes"]),
    )
    with report_write_errors("--page", path):
        write_text(path, text)


def _uris(inspected: InspectedImages, places: Sequence[Place]) -> dict[Place, str]:
    """Return each image as the address of a PNG file."""
    found = {}
    for part, split in inspected.splits.items():
        positions = sorted({position for other, position in places if other == part})
        for position in positions:
            (pixels,) = split.pictures(np.array([position]))
            found[part, position] = pages.image_uri(pixels)
    return found
