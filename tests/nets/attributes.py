"""Networks that remember something in plain attributes."""

from __future__ import annotations

import torch
from torch import nn

from tests.nets.body import Body


class TableOfTheLargest(Body):
    """A table that grows with the largest batch that it has seen, also in an evaluation."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.table: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.table is None or len(self.table) < len(images):
            self.table = torch.ones(len(images), 8)
        return self.head(self.features(images) * self.table[: len(images)])


class TeacherInAList(Body):
    """A copy of the head that is not a submodule, in a list."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.hidden = [nn.Linear(8, num_classes).requires_grad_(False)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            with torch.no_grad():
                self.hidden[0].weight.lerp_(self.head.weight, 0.05)
        return self.head(features) + self.hidden[0](features)


class Facts:
    """What a network keeps in an object."""

    center: torch.Tensor | float = 0.0


class RemembersInAnObject(Body):
    """A moving mean in an object that is not a module."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.facts = Facts()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.facts.center = 0.9 * self.facts.center + 0.1 * features.detach().mean(0)
        return self.head(features - self.facts.center)


class Remembers(Body):
    """A moving mean in a plain attribute."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.center = torch.zeros(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.center = self.center.lerp(features.detach().mean(0), 0.1)
        return self.head(features - self.center)


class RemembersForEvaluation(Remembers):
    """A moving mean in a plain attribute that only evaluations use."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.center = self.center.lerp(features.detach().mean(0), 0.1)
            return self.head(features)
        return self.head(features - self.center)


class StaleCache(Body):
    """Keeps what it has once computed of a weight that goes on changing."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.scale: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.scale is None:
            self.scale = self.conv.weight.detach().norm()
        return super().forward(images) / self.scale


class FlagInAnAttribute(Body):
    """The first batch initialises parameters, and only the process knows that it was done."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.bias = nn.Parameter(torch.zeros(8))
        self.ready = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training and not self.ready:
            self.bias.data = -features.detach().mean(0)
            self.ready = True
        return self.head(features + self.bias)
