"""Networks whose results depend on more than their parameters, buffers and torch's generators.

Each class says in its docstring what it hides. They are plug-ins: the classes take what the data
determine.
"""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

CALLS = 0
GENERATOR = np.random.RandomState(0)


class Body(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu().amax((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(images))
        return logits


# ---------------------------------------------------------------------- made right


class UnsavedBuffer(Body):
    """A moving mean in a buffer that no state_dict holds."""

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


class NumpyInitialisation(Body):
    """First weights from numpy's global generator."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        weights = np.random.normal(size=(num_classes, 8)) * 0.1  # noqa: NPY002
        self.head.weight.data = torch.tensor(weights, dtype=torch.float32)


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


class MaxNorm(Body):
    """A weight whose norm is limited in place, as in EEGNet."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.conv.weight.data = torch.renorm(self.conv.weight.data, 2, 0, 0.5)
        return super().forward(images)


class Teacher(Body):
    """A frozen twin that follows the head in the forward pass."""

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
    """A frozen twin of the convolution whose values are set through .data, which lie as they come.

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


class ExtraState(Body):
    """A module with JSON and one with a tensor beside its parameters."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.scale = {"factor": 1.5}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self.scale["factor"]

    def get_extra_state(self) -> Any:
        return self.scale

    def set_extra_state(self, state: Any) -> None:
        self.scale = state


class Versioned(Body):
    """Asks in which version its state was written."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *more: Any) -> None:
        if metadata.get("version") not in (1, 2):
            raise ValueError(f"version should be set to 1 or 2 instead of {metadata}")
        super()._load_from_state_dict(state, prefix, metadata, *more)


class TableOfTheLargest(Body):
    """A table that grows with the largest batch that it has seen, also in an evaluation."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.table: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.table is None or len(self.table) < len(images):
            self.table = torch.ones(len(images), 8)
        return self.head(self.features(images) * self.table[: len(images)])


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


class HarmlessAttributes(Body):
    """Caches, counts and logs that nothing reads."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.calls = 0
        self.history: list[float] = []
        self.shape: torch.Size | None = None
        self.grids: dict[tuple[int, int], torch.Tensor] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.shape = images.shape
        size = (images.shape[2], images.shape[3])
        if size not in self.grids:
            self.grids[size] = torch.linspace(-1, 1, size[0] * size[1]).view(1, 1, *size)
        self.features_kept = self.features(images + self.grids[size])
        self.history.append(float(self.features_kept.mean()))
        if self.calls % 1000 == 0:
            print("still here")
        return self.head(self.features_kept)


# ---------------------------------------------------------------------- refused


class Counter(Body):
    """A warm-up by a counter in an attribute."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return super().forward(images) * min(1.0, self.calls / 50)


class LateCounter(Counter):
    """A counter that matters from the thousandth pass on."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return Body.forward(self, images) * (0.5 if self.calls > 1000 else 1.0)


class EveryThousandth(Counter):
    """A counter that matters at each thousandth pass."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return Body.forward(self, images) * (0.5 if self.calls % 1000 == 0 else 1.0)


class CounterInADictionary(Body):
    """A late counter among other facts."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.facts = {"calls": 0}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.facts["calls"] += 1
        return super().forward(images) * (0.5 if self.facts["calls"] > 1000 else 1.0)


class CounterOfTheClass(Body):
    """A late counter that belongs to the class."""

    calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        CounterOfTheClass.calls += 1
        return super().forward(images) * (0.5 if self.calls > 1000 else 1.0)


class CounterOfTheFile(Body):
    """A late counter that belongs to the file."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        global CALLS  # noqa: PLW0603 - that is the point
        CALLS += 1
        return super().forward(images) * (0.5 if CALLS > 1000 else 1.0)


class CountsImages(Counter):
    """A counter of images, so of other amounts in each pass."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += len(images) * self.training
        return Body.forward(self, images) * (0.5 if self.calls > 1000 else 1.0)


class CountsDown(Body):
    """A counter that ends at zero."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.left = 500

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return super().forward(images) * (0.5 if self.left <= 0 else 1.0)


class ExactlyThen(Counter):
    """A counter that matters at one number."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return Body.forward(self, images) * (0.5 if self.calls == 137 else 1.0)


class Scheduled(Counter):
    """A rate from a table, up to its end, as DropBlock has it."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.rates = [0.0] * 100 + [0.1] * 20
        self.rate = 0.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and self.calls < len(self.rates):
            self.rate = self.rates[self.calls]
        self.calls += self.training
        return self.head(F.dropout(self.features(images), self.rate, self.training))


class CounterInATensor(Body):
    """A late counter in a tensor that is no buffer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.calls = torch.zeros(())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return super().forward(images) * (0.5 if self.calls > 1000 else 1.0)


class LongMemory(Body):
    """A list of what it saw, of which it makes use once it is long."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.seen.append(features.detach().mean(0))
        return self.head(features - (self.seen[-1] if len(self.seen) > 100 else 0))


class FailsLate(Counter):
    """Gives up after some passes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        assert self.calls < 1000, "enough"
        return Body.forward(self, images)


class TeacherInAList(Body):
    """A twin that is no submodule, as a list holds it."""

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
    """What a network keeps in an object of its own."""

    center: torch.Tensor | float = 0.0


class RemembersInAnObject(Body):
    """A moving mean in an object that is no module."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.facts = Facts()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.training:
            self.facts.center = 0.9 * self.facts.center + 0.1 * features.detach().mean(0)
        return self.head(features - self.facts.center)


class GeneratorOfTheFile(Body):
    """Noise from a generator of numpy's that the file has made."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * float(GENERATOR.uniform(0.5, 1.5))


class EpochCounter(Body):
    """A counter of calls of train() that matters late."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.epoch = 0

    def train(self, mode: bool = True) -> EpochCounter:
        self.epoch += mode
        return super().train(mode)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (0.5 if self.epoch > 30 else 1.0)


class ReadsFreshMemory(Body):
    """Adds what nobody has written."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + torch.empty(1)


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


class EvaluationCounts(Body):
    """An evaluation changes what the next step does."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.seen = 0.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.seen += 0.125
        return super().forward(images) * (1 + self.seen * self.training)


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


class OwnGenerator(Body):
    """Noise from a generator of torch's that nobody else seeds."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        return self.head(features * torch.rand(8, generator=self.generator))


class OwnNumpyGenerator(Body):
    """Noise from a generator of numpy's that nobody else seeds."""

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
    """Noise of a generator of its own in the backward pass alone."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if features.requires_grad:
            features.register_hook(lambda g: g + 0.1 * torch.rand(8, generator=self.generator))
        return self.head(features)


class NeverInitialised(Body):
    """A parameter of whatever stood in memory."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.scale = nn.Parameter(torch.empty(8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images) * self.scale)


class NoNumbers(Body):
    """Begins with weights that are no numbers."""

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


class UnsafeExtraState(ExtraState):
    """Extra state that only a pickle could hold."""

    def get_extra_state(self) -> Any:
        return {"factor": self}
