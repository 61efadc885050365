"""Write what was found as an HTML page that contains its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.base.files import write_text
from trainer.commands.inspect_data.image_statistics import InspectedImages, Place
from trainer.commands.inspect_data.label_errors import JUDGES
from trainer.commands.options import report_write_errors
from trainer.config.schema import RunConfig
from trainer.data import label_matrix
from trainer.data.augment.policy import Augmentation
from trainer.data.batches import fetch_augmented
from trainer.data.dataset import ImageSet
from trainer.run.report import pages
from trainer.run.report.pages import Picture

SAMPLES = 12
"""how many training images of each class are shown"""
EPOCHS = 8
"""how many epochs of a sample are shown"""
MOST_AUGMENTED = 8
"""how many samples are shown as epochs train on them, each of another class"""
SMALL = 64
"""the longer side of samples, in CSS pixels"""
LARGEST_GROUP = 6
"""how many images of a group of duplicates are shown"""


def write(
    path: Path,
    found: dict[str, Any],
    inspected: InspectedImages,
    classes: Sequence[int],
    config: RunConfig | None,
) -> None:
    """Write the page.

    Args:
        classes: the numbers of those to show.
        config: of the run whose augmentation is shown; None: it is not shown.

    Raises:
        UserError: it cannot be written.
    """
    groups = [group[:LARGEST_GROUP] for group in found["duplicates"]["groups"]]
    suspects = (found["suspects"] or {}).get("images", [])
    near = (pair["images"] for pair in found["near_duplicates"]["pairs"])
    images = [*suspects, *(image for group in (*groups, *near) for image in group)]
    labels = inspected.splits["train"].targets.numpy()
    samples: list[list[Place]] = [
        [("train", place) for place in label_matrix.with_label(labels, label)[:SAMPLES].tolist()]
        for label in classes
    ]
    shown = [(image["part"], image["position"]) for image in images]
    large = _pictures(inspected, shown, pages.LARGE)
    small = _pictures(inspected, [place for places in samples for place in places], SMALL)
    text = pages.render(
        "inspect_data.html",
        found=found,
        classes=[found["classes"][label] for label in classes],
        groups=groups,
        suspects=suspects,
        judges=JUDGES,
        samples=[
            [(small[place], inspected.describe(place)["name"]) for place in places]
            for places in samples
        ],
        augment=config.data.augment if config else "none",
        augmented=_augmented(inspected, config, samples) if config else [],
        shown=lambda image: large[image["part"], image["position"]],
        largest=max(row["train"] for row in found["classes"]),
    )
    with report_write_errors("--page", path):
        write_text(path, text)


def _augmented(
    inspected: InspectedImages, config: RunConfig, samples: Sequence[Sequence[Place]]
) -> list[list[Picture]]:
    """Return the first sample of some classes, a row each, in the first epochs."""
    if config.data.augment == "none":
        return []
    chosen = torch.tensor([places[0][1] for places in samples if places][:MOST_AUGMENTED])
    augmentation = Augmentation(config.data.augment, config.seed)
    train, device = inspected.splits["train"], torch.device("cpu")
    columns = []
    for epoch in range(1, EPOCHS + 1):
        images, _ = fetch_augmented(train, augmentation, chosen, epoch, device)
        shown = ImageSet(images, chosen).pictures(np.arange(len(chosen)))
        columns.append([pages.picture(pixels, SMALL) for pixels in shown])
    return [list(row) for row in zip(*columns, strict=True)]


def _pictures(
    inspected: InspectedImages, places: Sequence[Place], longest: int
) -> dict[Place, Picture]:
    """Return each image as it is shown, its longer side up to `longest`."""
    found = {}
    for part, split in inspected.splits.items():
        positions = sorted({position for other, position in places if other == part})
        for position in positions:
            (pixels,) = split.pictures(np.array([position]))
            found[part, position] = pages.picture(pixels, longest)
    return found
