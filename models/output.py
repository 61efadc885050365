"""Trying a network out before training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from models.construct import describe, file_of


def check_output(
    model: nn.Module,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    samples: int = 2,
) -> None:
    """Run black images through the network, in both modes, and check what comes out.

    Training flags, buffers and torch's generators are afterwards as they were before. Only lazy
    layers change: they learn their shapes and draw their weights.

    Args:
        model: on any device.
        num_classes: how many logits the network should return for an image.
        in_channels: of an image.
        image_size: height and width in pixels.
        samples: how many images.

    Raises:
        ValueError: the forward pass fails, or returns no floating-point (samples, num_classes).
    """
    name = type(model).__name__
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    images = torch.zeros(samples, in_channels, *image_size, device=device)
    shape, wanted = tuple(images.shape), (samples, num_classes)
    must = f"it must be a floating-point tensor of shape {wanted}, a logit for each class."
    for training in (False, True):
        mode = "in training, " if training else ""
        with _unchanged(model, device), torch.no_grad():
            try:
                logits = model.train(training)(images)
            except Exception as error:
                message = describe(error, file_of(type(model)))
                text = f"{name} fails {mode}on images of shape {shape}: {message}"
                raise ValueError(text) from error
        if not isinstance(logits, torch.Tensor):
            found = f"a {type(logits).__name__}"
        elif tuple(logits.shape) != wanted or not logits.is_floating_point():
            found = f"a tensor of shape {tuple(logits.shape)} and type {logits.dtype}"
        else:
            continue
        raise ValueError(f"{name} returns {mode}{found} for images of shape {shape}; {must}")


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
