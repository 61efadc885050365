"""Draw the first convolution of a model: its filters, and their maps of a few test images."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from trainer.data import label_matrix
from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.network.buffers_in_passes import preserve_state
from trainer.run.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FILTERS = 16
MOST_IMAGES = 3
FILTERS_IN_A_ROW = 8
GAP = 0.12
"""between the pictures, whose width is 1"""
PITCH = 1 + GAP


@dataclass(frozen=True)
class FirstLayer:
    """The first convolution's weights and outputs, on the CPU."""

    name: str
    """of the module"""
    weights: torch.Tensor
    """float32 (filters, channels, height, width)"""
    maps: torch.Tensor
    """its outputs, without what follows: float32 (images, filters, height, width)"""


def write_features(
    path: Path, model: nn.Module, images: ImageSet, scaling: Scaling, device: torch.device
) -> None:
    """Draw the first convolution's filters and feature maps as PNG; no file without a convolution.

    The images are the first ones of the first few classes. The picture has no background.

    Args:
        model: on `device`; its mode is restored.
    """
    strata = label_matrix.strata(images.targets.cpu().numpy())
    index = _first_of_classes(torch.from_numpy(strata))
    pixels, _ = images.fetch(index.to(images.images.device))
    found = first_layer(model, scaling.apply(pixels.to(device)))
    if found is not None:
        drawn = draw_features(images.pictures(index.numpy()), found)
        plots.save(drawn, path, transparent=True)


@torch.no_grad()
def first_layer(model: nn.Module, inputs: torch.Tensor) -> FirstLayer | None:
    """Find the first 2-D convolution that is run, and its outputs; None for a model without.

    Args:
        inputs: scaled images (n, channels, height, width), on the model's device.
    """
    found: list[FirstLayer] = []

    def keep(name: str, module: nn.Module, output: torch.Tensor) -> None:
        if not found:
            # Copies: what follows may work in place.
            weights, maps = (
                tensor.detach().to("cpu", torch.float32, copy=True)
                for tensor in (torch.as_tensor(module.weight), output)
            )
            found.append(FirstLayer(name, weights, maps))

    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(preserve_state(model))
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                hook = module.register_forward_hook(
                    lambda module, _, output, name=name: keep(name, module, output)
                )
                cleanup.callback(hook.remove)
        model.eval()
        model(inputs)
    return found[0] if found else None


def draw_features(images: np.ndarray, layer: FirstLayer) -> Figure:
    """Draw a column for each filter: its weights, and under them its map of each image.

    Red is positive and blue negative, each filter on its own scale; a filter of three channels
    shows them as red, green and blue around grey, any other the mean of its channels.

    Args:
        images: uint8, (n, height, width) or (n, height, width, 3).
    """
    weights = layer.weights[:MOST_FILTERS]
    shown = len(weights)
    in_a_row = min(shown, FILTERS_IN_A_ROW)
    blocks = -(-shown // in_a_row)
    tall = images.shape[1] / images.shape[2]
    image_pitch = tall + GAP
    block_height = 1 + 2 * GAP + len(images) * image_pitch
    columns, rows = PITCH * (in_a_row + 1), blocks * (block_height + 3 * GAP) - 4 * GAP
    figure = plots.new_figure(0.8 * columns, 0.8 * rows)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    def place(image: np.ndarray, left: float, top: float, height: float, **look: Any) -> None:
        extent = (left, left + 1, top + height, top)
        axes.imshow(image, extent=extent, interpolation="nearest", **look)

    for block in range(blocks):
        top = block * (block_height + 3 * GAP)
        axes.text(0.5, top + 0.5, "filters", ha="center", va="center", color="#808891", fontsize=10)
        tops = [top + 1 + 2 * GAP + row * image_pitch for row in range(len(images))]
        for image, image_top in zip(images, tops, strict=True):
            place(image, 0, image_top, tall, cmap="gray", vmin=0, vmax=255)
        for column, number in enumerate(
            range(block * in_a_row, min((block + 1) * in_a_row, shown))
        ):
            left = PITCH * (column + 1)
            _place_filter(place, weights[number], left, top)
            maps = layer.maps[:, number].numpy()
            for one, image_top in zip(maps, tops, strict=True):
                place(one, left, image_top, tall, **_signed(maps))
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    return figure


def _place_filter(place: Any, weights: torch.Tensor, left: float, top: float) -> None:
    if len(weights) == 3:
        largest = float(weights.abs().max()) or 1.0
        place((0.5 + 0.5 * weights / largest).permute(1, 2, 0).numpy(), left, top, 1)
    else:
        mean = weights.mean(0).numpy()
        place(mean, left, top, 1, **_signed(mean))


def _signed(values: np.ndarray) -> dict[str, Any]:
    """Return a colour scale that shows the sign: white is zero."""
    largest = float(np.abs(values).max()) or 1.0
    return {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}


def _first_of_classes(targets: torch.Tensor) -> torch.Tensor:
    """Find the first images of the first few classes, int64."""
    seen: dict[int, int] = {}
    for index, target in enumerate(targets.tolist()):
        seen.setdefault(target, index)
        if len(seen) == MOST_IMAGES:
            break
    return torch.tensor(list(seen.values()), dtype=torch.int64)
