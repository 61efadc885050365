"""Say which parts of an image a network's answer comes from: a map of the image's size.

Three methods: Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), occlusion (Zeiler and Fergus
2014, arXiv 1311.2901) and integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365). All
explain the logit of one class. Nets are in evaluation mode; their state is restored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.network.buffers_in_passes import preserve_state

Method = Literal["gradcam", "occlusion", "integrated_gradients"]
METHODS: tuple[Method, ...] = get_args(Method)

MAP_SIDE = 4
"""Grad-CAM takes the last maps of at least this side; smaller ones show no place"""
MAP_SHARE = 4
"""or of this fraction of a smaller image's side"""
PATCH_SHARE = 8
"""the side of what occlusion covers is this fraction of the image's"""
STEPS = 32
"""of integrated gradients, from the mean image to the image"""
BLOCK = 16
"""images at once"""


def explain(
    method: Method, model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return how much each pixel speaks for a class: more is for it, less than 0 against it.

    Args:
        model: gives logits (n, classes).
        inputs: scaled images, float32 (n, channels, height, width), on the model's device.
        labels: the class of each to be explained, int64 (n,).

    Returns:
        float32 (n, height, width), on the CPU; of Grad-CAM nothing is below 0.

    Raises:
        UserError: the network has no maps, which Grad-CAM needs.
    """
    function = _FUNCTIONS[method]
    with preserve_state(model), seeding.preserve_generators():
        model.eval()
        labels = labels.to(inputs.device)
        blocks = zip(torch.split(inputs, BLOCK), torch.split(labels, BLOCK), strict=True)
        return torch.cat([function(model, *block).float().cpu() for block in blocks])


def grad_cam(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Add the last maps up, each weighted by the mean of its gradient; see `explain`."""
    with _maps_of(model) as maps, torch.enable_grad():
        score = _score(model, inputs.detach().requires_grad_(), labels)
        least = min(MAP_SIDE, max(min(inputs.shape[2:]) // MAP_SHARE, 1))
        large = [one for one in maps if min(one.shape[2:]) >= least and len(one) == len(inputs)]
        gradients = torch.autograd.grad(score, large, allow_unused=True) if large else ()
    used = [pair for pair in zip(large, gradients, strict=True) if pair[1] is not None]
    if not used:
        raise UserError(
            f"--method: gradcam needs maps of at least {least} x {least} in the network's modules, "
            "and it has none; occlusion and integrated_gradients need only its logits"
        )
    last, gradient = used[-1]
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (weights * last).sum(1, keepdim=True).relu().detach()
    return F.interpolate(heat, inputs.shape[2:], mode="bilinear", align_corners=False)[:, 0]


@torch.no_grad()
def occlude(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return how much of the logit is lost where a patch is covered, on the mean of all patches.

    What covers them is 0, the mean of the training images' pixels; see `explain`.
    """
    height, width = inputs.shape[2:]
    side = max(min(height, width) // PATCH_SHARE, 1)
    rows, columns = (_starts(length, side) for length in (height, width))
    before = _scores(model, inputs, labels)
    lost = torch.zeros(len(inputs), height, width, device=inputs.device)
    times = torch.zeros(height, width, device=inputs.device)
    for row in rows:
        for column in columns:
            patch = (..., slice(row, row + side), slice(column, column + side))
            covered = inputs.clone()
            covered[patch] = 0
            lost[patch] += (before - _scores(model, covered, labels))[:, None, None]
            times[patch] += 1
    return lost / times


def integrate_gradients(
    model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return the pixels' shares of the difference to the logit of the mean image; see `explain`.

    The mean image is 0. The sum over the pixels is that difference, up to the error of STEPS.
    """
    total = torch.zeros_like(inputs)
    for step in range(STEPS):
        with torch.enable_grad():
            between = (inputs * ((step + 0.5) / STEPS)).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(_score(model, between, labels), between)
        total += gradient
    return (inputs * total / STEPS).sum(1)


_FUNCTIONS: dict[Method, Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gradcam": grad_cam,
    "occlusion": occlude,
    "integrated_gradients": integrate_gradients,
}


def _scores(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(inputs)
    return logits.gather(1, labels[:, None])[:, 0].float()


def _score(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the sum over the images, of which none changes another's logits."""
    return _scores(model, inputs, labels).sum()


def _starts(length: int, side: int) -> list[int]:
    """Return where patches begin so that they overlap by half, and the last ends at the border."""
    return sorted({*range(0, length - side, max(side // 2, 1)), length - side})


@contextlib.contextmanager
def _maps_of(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the maps (n, channels, height, width) that modules give in a pass, in that order."""
    maps: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4 and output.requires_grad:
            maps.append(output)

    with contextlib.ExitStack() as cleanup:
        for module in model.modules():
            cleanup.callback(module.register_forward_hook(keep).remove)
        yield maps
