"""What was found as one HTML page with pictures, nothing of which is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.files import write_text
from trainer.commands.inspect_data.examination import Inspected, Place
from trainer.commands.options import report_write_errors
from trainer.run.report import pages

SAMPLES = 12
"""of each class, the first training images"""
LARGEST_GROUP = 6


def write(path: Path, found: dict[str, Any], inspected: Inspected, classes: Sequence[int]) -> None:
    """Write the page.

    Args:
        classes: the numbers of those that are shown.

    Raises:
        UserError: it cannot be written.
    """
    groups = [group[:LARGEST_GROUP] for group in found["duplicates"]["groups"]]
    suspects = (found["suspects"] or {}).get("images", [])
    images = [*suspects, *(image for group in groups for image in group)]
    samples = [_first_of(inspected, label) for label in classes]
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


def _first_of(inspected: Inspected, label: int) -> list[Place]:
    positions = np.flatnonzero(inspected.parts["train"].labels == label)[:SAMPLES]
    return [("train", position) for position in positions.tolist()]


def _uris(inspected: Inspected, places: Sequence[Place]) -> dict[Place, str]:
    """Each image as a PNG file in an address."""
    found = {}
    for name, part in inspected.parts.items():
        positions = sorted({position for other, position in places if other == name})
        for position in positions:
            (pixels,) = part.images.pictures(np.array([position]))
            found[name, position] = pages.image_uri(pixels)
    return found
