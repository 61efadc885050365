"""Networks that people write and that a trainer may stumble over; see test_odd_nets.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint


class Small(nn.Module):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3)
        self.head = nn.Linear(8, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu().amax((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


# ---------------------------------------------------------------------- that train


class FiveDimensions(Small):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.volume = nn.Conv3d(1, 4, (1, 3, 3), padding=(0, 1, 1))
        self.line = nn.Conv1d(4, 8, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.line(self.volume(images[:, None]).relu().flatten(2)).amax(2)
        return self.head(values + self.features(images))


class ParameterList(Small):
    def parameters(self, recurse: bool = True) -> Any:
        return list(super().parameters(recurse))


class SilentTrain(Small):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


class SilentEval(Small):
    def eval(self) -> None:  # type: ignore[override]
        super().eval()


class Scale(torch.autograd.Function):
    """Its backward takes a gradient without gaps for granted."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(values, scale)
        return values * scale

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        values, scale = ctx.saved_tensors
        return gradient * scale, (gradient.view(-1) * values.reshape(-1)).sum()


class Contiguous(Small):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.first = nn.Conv2d(in_channels, in_channels * 8, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.conv = nn.Conv2d(in_channels * 8, 8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(Scale.apply(self.first(images), self.scale)))


class SparseTable(Small):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.table = nn.Embedding(4, 8, sparse=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images) + self.table(images.mean((1, 2, 3)).gt(0).long()))


class Reentrant(Small):
    """Normalises and drops again in its backward pass."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.more = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.conv(images)
        if self.training:
            values = checkpoint(self.more, values, use_reentrant=True)
        else:
            values = self.more(values)
        return self.head(values.amax((2, 3)))


def scripted(num_classes: int, in_channels: int) -> nn.Module:
    return torch.jit.script(
        nn.Sequential(
            nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, num_classes)
        )
    )


def compiled(num_classes: int, in_channels: int) -> nn.Module:
    # As compiled as "inductor", and needs no compiler of C++.
    return torch.compile(Small(num_classes, in_channels), backend="aot_eager")


# ---------------------------------------------------------------------- that are refused


class Complex(Small):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.phase = nn.Parameter(torch.randn(8, dtype=torch.complex64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head((self.features(images) * self.phase).real)


class SparseFunction(SparseTable):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        which = images.mean((1, 2, 3)).gt(0).long()
        return self.head(self.features(images) + F.embedding(which, self.table.weight, sparse=True))


class NoGradient(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(images)


class InPlace(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.conv(images).exp()
        doubled = values * 2
        values += 1
        return self.head((doubled + values).amax((2, 3)))


class Groups(Small):
    def parameters(self, recurse: bool = True) -> Any:
        return [{"params": list(super().parameters(recurse))}]


class TrainFails(Small):
    def train(self, mode: bool = True) -> TrainFails:
        raise KeyError("in train()")


class StateFails(Small):
    def state_dict(self, *arguments: Any, **more: Any) -> Any:
        raise KeyError("in state_dict()")


class NamesFail(Small):
    def named_parameters(self, *arguments: Any, **more: Any) -> Iterator[Any]:
        raise KeyError("in named_parameters()")


class Leaving(Small):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        raise SystemExit("in the constructor")


# ---------------------------------------------------------------------- that fail later


class FailsInLargeBatches(Small):
    """More images than in the trial, and than in a micro-batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 16:
            raise KeyError("in an evaluation")
        return super().forward(images)


class FailsOnImages(Small):
    """Black images, of the trial, are right."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if bool((images != 0).any()):
            raise KeyError("in a step")
        return super().forward(images)


class Brittle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        ctx.count = len(values)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        if ctx.count > 2:
            raise KeyError("in a backward pass")
        return gradient


class FailsBackward(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return Brittle.apply(super().forward(images))


class FailsInTorch(Small):
    """No line of its own is at work when torch notices."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.conv(images).exp()
        doubled = values * 2
        if len(images) > 2:
            values += 1
        return self.head((doubled + values).amax((2, 3)))


class FailsToLoad(Small):
    def load_state_dict(self, *arguments: Any, **more: Any) -> Any:
        raise KeyError("in load_state_dict()")


# ---------------------------------------------------------------------- that get a warning


class Softmax(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).softmax(1)


class LogSoftmax(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).log_softmax(1)
