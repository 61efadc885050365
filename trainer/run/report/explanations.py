"""Where a network looked: maps of its worst mistakes, and of a right answer for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.run.report import heat_maps, mistakes, pages
from trainer.training import attribution

MOST_MISTAKES = 12
MOST_CLASSES = 24


@dataclass(frozen=True, eq=False)
class Explanations:
    """Maps of test images, each of the class that was predicted.

    Args:
        index: positions of the images, int64 (n,).
        target, predicted: their classes, int64 (n,); the mistakes come first.
        heat: from `attribution.explain`, float32 (n, height, width).
    """

    index: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    heat: npt.NDArray[np.float32]


def find(
    run: Path, model: nn.Module, test: ImageSet, scaling: Scaling, device: torch.device
) -> Explanations | None:
    """Explain answers of a run by Grad-CAM.

    Args:
        run: its folder, with predictions.npz.
        model: on `device`; its state is restored.

    Returns:
        None if the network has no maps to look at.
    """
    columns = mistakes.read_predictions(run / "predictions.npz")
    index = choose(columns)
    predicted = columns["predicted"][index]
    pixels, _ = test.fetch(torch.from_numpy(index).to(test.images.device))
    inputs = scaling.apply(pixels.to(device))
    try:
        heat = attribution.explain("gradcam", model, inputs, torch.from_numpy(predicted).long())
    except UserError:
        return None
    return Explanations(index, columns["target"][index], predicted, heat.numpy())


def choose(columns: dict[str, np.ndarray]) -> npt.NDArray[np.int64]:
    """Return the positions of the most confident mistakes, then of the surest right answers.

    Of these there is one for each of the first classes that have any, in the classes' order.
    """
    worst = mistakes.worst_mistakes(columns | {"place": np.arange(len(columns["target"]))})["place"]
    right = np.flatnonzero(columns["target"] == columns["predicted"])
    surest = right[np.argsort(-columns["probability"][right], kind="stable")]
    _, first = np.unique(columns["target"][surest], return_index=True)
    return np.concatenate([worst[:MOST_MISTAKES], surest[first[:MOST_CLASSES]]]).astype(np.int64)


def describe(
    found: Explanations,
    pictures: Callable[[np.ndarray], np.ndarray],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Return what a page shows of each image: its map, and its classes.

    Args:
        pictures: as for `run_report.write_report`.
        names: of the classes.
    """
    rows = []
    for image, heat, target, predicted in zip(
        pictures(found.index),
        found.heat,
        found.target.tolist(),
        found.predicted.tolist(),
        strict=True,
    ):
        shown = pages.picture(image, pages.MIDDLE)
        uri = pages.image_uri(heat_maps.draw(image, heat))
        rows.append(
            {
                "image": shown,
                "map": shown._replace(uri=uri, is_enlarged=False),
                "true": names[target],
                "predicted": names[predicted],
            }
        )
    return rows
