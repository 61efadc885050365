"""Networks that keep state in buffers or as extra state."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.nets.body import Body


class UnsavedBuffer(Body):
    """A moving mean in a buffer that state_dict leaves out."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.register_buffer("center", torch.zeros(8), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.center.lerp_(features.detach().mean(0), 0.1)
        return self.head(features - self.center)


class SharedBuffer(Body):
    """One buffer in two modules, of which one puts another in its place."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        center = torch.zeros(8)
        self.conv.register_buffer("center", center)
        self.head.register_buffer("center", center)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.conv.center = self.conv.center.lerp(features.detach().mean(0), 0.1)
        return self.head(features - self.conv.center - self.head.center)


class SharedInPlace(SharedBuffer):
    """One buffer in two modules, which both move it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.conv.center.lerp_(features.detach().mean(0), 0.1)
            self.head.center.mul_(0.9)
        return self.head(features - self.conv.center - self.head.center)


class FirstBatch(Body):
    """Activation normalisation that the first batch initialises, with the flag in a buffer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.bias = nn.Parameter(torch.zeros(8))
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training and not self.ready:
            self.bias.data = -features.detach().mean(0)
            self.ready.fill_(True)
        return self.head(features + self.bias)


class GridOfTheBatch(Body):
    """A buffer that takes the shape of each batch."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels + 1)
        self.register_buffer("grid", None)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count, _, height, width = images.shape
        if self.grid is None or len(self.grid) != count:
            self.grid = torch.linspace(-1, 1, height * width).view(1, 1, height, width)
            self.grid = self.grid.repeat(count, 1, 1, 1)
        return super().forward(torch.cat([images, self.grid], 1))


class LateBuffer(Body):
    """A moving mean in a buffer that has no value before the first pass."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.register_buffer("center", None)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        mean = features.detach().mean(0)
        if self.training:
            self.center = mean if self.center is None else self.center.lerp(mean, 0.1)
        return self.head(features if self.center is None else features - self.center)


class EmptyBuffer(Body):
    """A moving mean in a buffer that the first pass makes as large as it has to be."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.register_buffer("center", torch.empty(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if not len(self.center):
            self.center.resize_(8).zero_()
        if self.training:
            self.center.lerp_(features.detach().mean(0), 0.1)
        return self.head(features - self.center)


class LooksInEvaluation(Body):
    """An observer that goes on observing in an evaluation, and uses what it saw."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.register_buffer("largest", torch.ones(8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        self.largest = torch.maximum(self.largest * 0.9, features.detach().amax(0))
        return self.head(features / self.largest)


class GrowingBuffer(Body):
    """Appends to a buffer in each pass."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.register_buffer("seen", torch.zeros(1, 8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.seen = torch.cat([self.seen, features.detach().mean(0, keepdim=True)])
        return self.head(features - self.seen.mean(0))


class ExtraState(Body):
    """A module with JSON and one with a tensor next to its parameters."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.scale = {"factor": 1.5}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self.scale["factor"]

    def get_extra_state(self) -> Any:
        return self.scale

    def set_extra_state(self, state: Any) -> None:
        self.scale = state


class UnsafeExtraState(ExtraState):
    """Extra state that only a pickle could hold."""

    def get_extra_state(self) -> Any:
        return {"factor": self}


class Versioned(Body):
    """Asks in which version its state was written."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *more: Any) -> None:
        if metadata.get("version") not in (1, 2):
            raise ValueError(f"version should be set to 1 or 2 instead of {metadata}")
        super()._load_from_state_dict(state, prefix, metadata, *more)
