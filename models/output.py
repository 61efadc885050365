"""Trying a network out before training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from models.construct import describe, file_of


def check_output(
    model: nn.Module, *, num_classes: int, in_channels: int, image_size: tuple[int, int]
) -> None:
    """Run two black images through the network and check what comes out.

    Training flags, buffers and torch's generators are afterwards as they were before. Only lazy
    layers change: they learn their shapes and draw their weights.

    Args:
        model: on any device.
        num_classes: how many logits the network should return for an image.
        in_channels: of an image.
        image_size: height and width in pixels.

    Raises:
        ValueError: the forward pass fails, or returns no floating-point (2, num_classes).
    """
    name = type(model).__name__
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    images = torch.zeros(2, in_channels, *image_size, device=device)
    wanted = (2, num_classes)
    with _unchanged(model, device), torch.no_grad():
        try:
            logits = model.eval()(images)
        except Exception as error:
            message = describe(error, file_of(type(model)))
            shape = tuple(images.shape)
            raise ValueError(f"{name} fails on images of shape {shape}: {message}") from error
    must = f"it must be a floating-point tensor of shape {wanted}, a logit for each class."
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"{name} returns a {type(logits).__name__} for two images; {must}")
    if tuple(logits.shape) != wanted or not logits.is_floating_point():
        found = f"shape {tuple(logits.shape)} and type {logits.dtype}"
        raise ValueError(f"{name} returns a tensor of {found} for two images; {must}")


@contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts training flags, buffers and the generators back at the end."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if not is_lazy(buffer)
    ]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, training in flags:
            module.training = training
        for module, name, buffer, value in buffers:
            buffer.copy_(value)
            setattr(module, name, buffer)
