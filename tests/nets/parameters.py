"""Networks whose parameters are not only set by the constructor and the optimiser."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.nets.body import Body


class NumpyInitialisation(Body):
    """First weights from numpy's global generator."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        weights = np.random.normal(size=(num_classes, 8)) * 0.1  # noqa: NPY002
        self.head.weight.data = torch.tensor(weights, dtype=torch.float32)


class MaxNorm(Body):
    """A weight whose norm is limited in place, as in EEGNet."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.conv.weight.data = torch.renorm(self.conv.weight.data, 2, 0, 0.5)
        return super().forward(images)


class Teacher(Body):
    """A frozen copy that follows the head in the forward pass."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.teacher = nn.Linear(8, num_classes).requires_grad_(False)
        self.teacher.load_state_dict(self.head.state_dict())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            with torch.no_grad():
                self.teacher.weight.lerp_(self.head.weight, 0.05)
        return self.head(features) + self.teacher(features)


class ReplacedTeacher(Body):
    """A frozen copy of the convolution whose values are set through .data, in any memory layout.

    With images of one channel, filters lie in memory in more than one way, and kernels with them.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.teacher = nn.Conv2d(in_channels, 8, 3, padding=1).requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.teacher.weight.data = 0.9 * self.teacher.weight.data + 0.1 * self.conv.weight.data
        return self.head(self.features(images) + self.teacher(images).relu().amax((2, 3)))


class Codebook(Body):
    """Parameters that an average of the data moves."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.codes = nn.Parameter(torch.rand(4, 8), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        nearest = torch.cdist(features, self.codes).argmin(1)
        if self.training:
            chosen = F.one_hot(nearest, 4).float()
            means = chosen.T @ features.detach() / chosen.sum(0).clamp_min(1)[:, None]
            self.codes.data = torch.lerp(self.codes.data, means, 0.1)
        return self.head(features + self.codes[nearest])


class Merging(Body):
    """An adapter that eval() adds to its weight and train() takes out again."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.merged = False
        self.down = nn.Parameter(torch.randn(2, 8) * 0.1)
        self.up = nn.Parameter(torch.zeros(num_classes, 2))
        self.head.weight.requires_grad_(False)

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode == self.merged:
            self.head.weight.data += (-1 if mode else 1) * (self.up @ self.down).data
            self.merged = not mode
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        logits: torch.Tensor = self.head(features)
        return logits if self.merged else logits + features @ self.down.T @ self.up.T


class MadeInTheFirstPass(nn.Module):
    """Learns the width of its head, and its grid, from the first images."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.classes = num_classes
        self.head: nn.Linear | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images).relu().flatten(1)
        if self.head is None:
            self.head = nn.Linear(features.shape[1], self.classes)
            self.register_buffer("grid", torch.linspace(-1, 1, features.shape[1]))
        logits: torch.Tensor = self.head(features + self.grid)
        return logits


class NeverInitialised(Body):
    """A parameter of whatever was in memory."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.scale = nn.Parameter(torch.empty(8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images) * self.scale)


class NoNumbers(Body):
    """Begins with weights of NaN."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        nn.init.constant_(self.head.weight, float("nan"))


class ReplacedParameter(Body):
    """Makes a new parameter in each pass."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.head.weight = nn.Parameter(F.normalize(self.head.weight.detach(), dim=1))
        return super().forward(images)


class Thaws(Body):
    """Trains its body from the first pass on."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.conv.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.conv.requires_grad_(True)
        return super().forward(images)


class ThawsLate(Thaws):
    """Trains its body from some pass on."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        if self.calls > 20:
            self.conv.requires_grad_(True)
        return Body.forward(self, images)


class NoGradient(Body):
    """Runs without gradients."""

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images)
