"""Networks that draw random numbers, from the global generators or from others."""

from __future__ import annotations

import os
import random

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from tests.nets.body import Body

GENERATOR = np.random.RandomState(0)


class NumpyDraws(Body):
    """Noise from numpy's global generator."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            features = features * float(np.random.uniform(0.5, 1.5))  # noqa: NPY002
        return self.head(features)


class PythonDraws(Body):
    """Stochastic depth by Python's random."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training and random.random() < 0.5:
            features = features.detach()
        return self.head(features)


class DropsInEvaluation(Body):
    """Dropout without training=self.training."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(F.dropout(self.features(images), 0.5))


class RandomTable(Body):
    """Fixed features, drawn by the constructor into a plain attribute and an unsaved buffer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.order = torch.randperm(8)
        self.register_buffer("table", torch.rand(8), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head((self.features(images) * self.table)[:, self.order])


class GeneratorOfTheFile(Body):
    """Noise from a generator of numpy's that the file has made."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * float(GENERATOR.uniform(0.5, 1.5))


class OwnGenerator(Body):
    """Noise from a generator of torch's that nothing else seeds."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        return self.head(features * torch.rand(8, generator=self.generator))


class OwnNumpyGenerator(Body):
    """Noise from a generator of numpy's that nothing else seeds."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.generator = np.random.default_rng(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        noise = torch.from_numpy(self.generator.uniform(size=8)).float()
        return self.head(self.features(images) * noise)


class SystemDraws(Body):
    """Noise from the system."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (1 + os.urandom(1)[0] / 256)


class DrawsInBackward(Body):
    """Noise of its own generator in the backward pass only."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if features.requires_grad:
            features.register_hook(lambda g: g + 0.1 * torch.rand(8, generator=self.generator))
        return self.head(features)


class ReadsFreshMemory(Body):
    """Adds what nothing has written."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + torch.empty(1)
