"""Networks that count their passes outside of buffers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from tests.nets.body import Body

CALLS = 0


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
    """A late counter in a tensor that is not a buffer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.calls = torch.zeros(())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return super().forward(images) * (0.5 if self.calls > 1000 else 1.0)


class LongMemory(Body):
    """A list of what it saw, which it uses once it is long."""

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


class EvaluationCounts(Body):
    """An evaluation changes what the next step does."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.seen = 0.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.seen += 0.125
        return super().forward(images) * (1 + self.seen * self.training)
