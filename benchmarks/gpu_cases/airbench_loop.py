"""A loop in the manner of airbench, written from its description; it is not airbench's code.

Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, arXiv 2404.00498, sections 3 and A:
half precision, batches of 1024, SGD with Nesterov's momentum, a triangle of the rate, label
smoothing, biases of batch norms at 64 times the rate, lookahead, alternating flip, translation by
two pixels, and six views of a test image. The net is Lockstep's `airbench`, whose first filters are
cosines and not the eigenvectors of the training images' patches.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

if TYPE_CHECKING:
    from gpu_cases.peers import Clock, Parts

BATCH_SIZE = 1024
EPOCHS = 10
RATE = 11.5
"""for each 1024 samples of a step whose momentum is summed up"""
MOMENTUM = 0.85
DECAY = 0.0153
"""likewise"""
BIAS_FACTOR = 64.0
LABEL_SMOOTHING = 0.2
LOGIT_SCALE = 1 / 9
SHIFT = 2
BEGIN, PEAK, END = 0.2, 0.23, 0.07
"""of the triangle: the first and the last share of the rate, and the share of the run at its top"""
LOOKAHEAD_STEPS = 5
MEAN, DEVIATION = 0.47, 0.25
"""of pixels from 0 to 1"""


def train(parts: Parts, clock: Clock) -> None:
    """Train all epochs."""
    size = min(BATCH_SIZE, len(parts.pixels))
    net = halve(parts)
    pixels = scale(parts, parts.pixels)
    labels = parts.labels.to(parts.device)
    optimizer = build_optimizer(net, size)
    rates = [group["lr"] for group in optimizer.param_groups]
    epochs = parts.task.epochs if parts.task.small else EPOCHS
    each = len(pixels) // size
    slow = [tensor.detach().float() for tensor in net.parameters()]
    net.train()
    for epoch in range(epochs):
        clock.begin()
        images = move(flip(pixels, epoch))
        order = torch.randperm(len(images), device=images.device)
        for number in range(each):
            step = epoch * each + number
            chosen = order[number * size : (number + 1) * size]
            share = triangle(step / (epochs * each))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            batch = images[chosen].contiguous(memory_format=torch.channels_last)
            logits = net(batch).float() * LOGIT_SCALE
            loss = F.cross_entropy(
                logits, labels[chosen], label_smoothing=LABEL_SMOOTHING, reduction="sum"
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % LOOKAHEAD_STEPS == LOOKAHEAD_STEPS - 1:
                look_ahead(net, slow, 0.95**5 * (step / (epochs * each)) ** 3)
        clock.end(each * size)
    look_ahead(net, slow, 1.0)


def halve(parts: Parts) -> nn.Module:
    """Put the net into half precision, but for its batch norms."""
    half = torch.float16 if parts.device.type == "cuda" else torch.bfloat16
    net: nn.Module = parts.net.to(half)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    return net


def scale(parts: Parts, pixels: torch.Tensor) -> torch.Tensor:
    """Return uint8 images on the device, scaled, in half precision."""
    half = next(parts.net.parameters()).dtype
    return pixels.to(parts.device).to(half).div(255).sub(MEAN).div(DEVIATION)


def build_optimizer(net: nn.Module, size: int) -> torch.optim.SGD:
    """Return SGD in which the biases of the batch norms have a rate of their own."""
    steps = 1024 * (1 + 1 / (1 - MOMENTUM))
    rate, decay = RATE / steps, DECAY * size / steps
    biases = [
        module.bias
        for module in net.modules()
        if isinstance(module, nn.BatchNorm2d) and module.bias is not None
    ]
    others = [p for p in net.parameters() if all(p is not bias for bias in biases)]
    groups: list[dict[str, Any]] = [
        {"params": biases, "lr": rate * BIAS_FACTOR, "weight_decay": decay / (rate * BIAS_FACTOR)},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)


def triangle(done: float) -> float:
    """Return the share of the rate after this share of the run."""
    if done < PEAK:
        return BEGIN + (1 - BEGIN) * done / PEAK
    return 1 + (END - 1) * (done - PEAK) / (1 - PEAK)


def flip(images: torch.Tensor, epoch: int) -> torch.Tensor:
    """Mirror a random half in the first epoch, and the other half in each second one."""
    draws = torch.Generator(images.device).manual_seed(
        int.from_bytes(hashlib.sha256(b"alternating flip").digest()[:6], "big")
    )
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device, generator=draws) < 0.5
    return torch.where(mirrored ^ bool(epoch % 2), images.flip(3), images)


def move(images: torch.Tensor) -> torch.Tensor:
    """Cut each image out of itself with reflected edges, at a place of its own."""
    count, _, height, width = images.shape
    padded = F.pad(images, [SHIFT] * 4, mode="reflect")
    places = torch.randint(2 * SHIFT + 1, (2, count), device=images.device)
    moved = torch.empty_like(images)
    for down in range(2 * SHIFT + 1):
        for right in range(2 * SHIFT + 1):
            here = (places[0] == down) & (places[1] == right)
            moved[here] = padded[here, :, down : down + height, right : right + width]
    return moved


@torch.no_grad()
def look_ahead(net: nn.Module, slow: list[torch.Tensor], decay: float) -> None:
    """Move the slow weights towards the net's, and set the net's to them."""
    for kept, parameter in zip(slow, net.parameters(), strict=True):
        kept.lerp_(parameter.float(), 1 - decay)
        parameter.copy_(kept)


@torch.no_grad()
def test(parts: Parts) -> float:
    """Return the accuracy on the test images, by six views: moved and mirrored."""
    parts.net.eval()
    pixels = scale(parts, parts.test_pixels)
    height, width = pixels.shape[2:]
    padded = F.pad(pixels, [1] * 4, mode="reflect")
    views = [(pixels, 0.5)]
    for place in (0, 2):
        views.append((padded[:, :, place : place + height, place : place + width], 0.25))
    hits = 0
    for begin in range(0, len(pixels), 2000):
        part = slice(begin, begin + 2000)
        logits: Any = 0
        for images, weight in views:
            for view in (images[part], images[part].flip(3)):
                logits = logits + weight * parts.net(view).float()
        hits += int((logits.argmax(1) == parts.test_labels[part].to(parts.device)).sum())
    return hits / len(pixels)
