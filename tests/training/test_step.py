"""One optimiser step against what it is by definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from torch import nn

from trainer.config.schema import TrainConfig
from trainer.data.sampling import microbatch_sizes
from trainer.training import arriving_gradients
from trainer.training.step import TrainStep


class Net(nn.Module):
    """Everything that a step has to carry: filters, batch norm, dropout, an unused parameter."""

    def __init__(self, *, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.filters = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4, 3)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("table", torch.rand(5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = F.gelu(self.norm(self.filters(images))).amax((2, 3))
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


IMAGES = torch.randn(22, 1, 8, 8, generator=torch.Generator().manual_seed(1))
TARGETS = torch.randint(0, 3, (22,), generator=torch.Generator().manual_seed(2))


def do_step(
    accelerator: Accelerator, model: Net, microbatches: int, *, samples: int = 22, step: int = 1,
    **train: float,
) -> tuple[float, float]:  # fmt: skip
    optimizer = accelerator.prepare_optimizer(torch.optim.SGD(model.parameters(), 0.5))
    config = TrainConfig(microbatches=microbatches, **train)  # type: ignore[arg-type]
    train_step = TrainStep(accelerator, model, optimizer, config, seed=0)
    model.train()
    sizes = microbatch_sizes(samples, microbatches)
    result = train_step(step, IMAGES[:samples], TARGETS[:samples], sizes)
    return float(result.loss), float(result.accuracy)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("microbatches", [2, 4, 5, 22])
def test_accumulation_equals_the_large_batch(accelerator: Accelerator, microbatches: int) -> None:
    """22 samples in 4 or 5 pieces are uneven: a mean of means would differ."""
    whole, pieces = Net(), Net()
    expected = F.cross_entropy(whole(IMAGES), TARGETS).item()
    losses = [
        do_step(accelerator, whole, 1, clip_norm=0.1),
        do_step(accelerator, pieces, microbatches, clip_norm=0.1),
    ]
    torch.testing.assert_close(weights(whole), weights(pieces))
    assert losses[0] == pytest.approx((expected, losses[1][1]), rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_short_step_leaves_empty_pieces_out(accelerator: Accelerator) -> None:
    whole, pieces = Net(norm=True), Net(norm=True)
    do_step(accelerator, whole, 3, samples=3)
    do_step(accelerator, pieces, 8, samples=3)
    assert torch.equal(weights(whole), weights(pieces))
    assert torch.equal(whole.norm.running_mean, pieces.norm.running_mean)


def test_running_statistics_are_the_mean_over_the_pieces(accelerator: Accelerator) -> None:
    model = Net(norm=True)
    model.norm.running_mean.fill_(0.25)
    features = model.filters(IMAGES).detach()
    do_step(accelerator, model, 4)
    means = [piece.mean((0, 2, 3)) for piece in features.split(microbatch_sizes(22, 4))]
    weighted = sum(
        mean * size / 22 for mean, size in zip(means, microbatch_sizes(22, 4), strict=True)
    )
    torch.testing.assert_close(model.norm.running_mean, 0.9 * 0.25 + 0.1 * weighted)
    assert model.norm.num_batches_tracked == 1


@pytest.mark.parametrize("microbatches", [1, 4])
def test_other_buffers_and_unused_parameters_stay(
    accelerator: Accelerator, microbatches: int
) -> None:
    model = Net(norm=True)
    table = model.table.clone()
    do_step(accelerator, model, microbatches)
    assert torch.equal(model.table, table)
    assert model.unused.tolist() == [1.0, 1.0]
    assert model.unused.grad is None
    assert model.norm.num_batches_tracked == 1


class Recorder(Net):
    """Buffers of every kind, also ones that a forward pass replaces instead of changing them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(2**40 + 1))
        self.register_buffer("warm", torch.tensor(True))
        self.register_buffer("smallest", torch.tensor(torch.inf))
        self.register_buffer("untouched", torch.tensor([-torch.inf, torch.nan, 3e38]))
        self.register_buffer("precise", torch.tensor(1 / 3, dtype=torch.float64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.count = self.count + len(images)
        self.warm.fill_(False)
        self.smallest = torch.minimum(self.smallest, images.detach().amin())
        self.precise.add_(1.0)
        return super().forward(images)


@pytest.mark.parametrize("samples", [3, 22])
def test_buffers_of_every_kind(accelerator: Accelerator, samples: int) -> None:
    """The first micro-batch counts, exactly; the others move by the mean, from infinity too."""
    model = Recorder()
    do_step(accelerator, model, 4, samples=samples)
    sizes = microbatch_sizes(samples, 4)
    assert model.count == 2**40 + 1 + sizes[0]
    assert model.warm.dtype == torch.bool
    assert not model.warm
    pieces = zip(IMAGES[:samples].split(sizes), sizes, strict=True)
    mean = sum(piece.amin() * size / samples for piece, size in pieces if size)
    assert model.smallest.item() == pytest.approx(float(mean), rel=1e-5)
    assert model.untouched.tolist() == pytest.approx([-torch.inf, torch.nan, 3e38], nan_ok=True)
    assert model.precise.item() == pytest.approx(4 / 3, rel=1e-14)


def test_dropout_is_a_function_of_the_step(accelerator: Accelerator) -> None:
    ends = []
    for step, draws_before in ((3, 0), (3, 17), (4, 0)):
        model = Net(dropout=0.5)
        torch.rand(draws_before)
        do_step(accelerator, model, 2, step=step)
        ends.append(weights(model))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_label_smoothing_and_accuracy(accelerator: Accelerator) -> None:
    model = Net()
    logits = model(IMAGES).detach()
    loss, accuracy = do_step(accelerator, model, 2, label_smoothing=0.2)
    expected = F.cross_entropy(logits, TARGETS, label_smoothing=0.2).item()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == TARGETS).float().mean().item())


def test_clipping_bounds_the_whole_gradient(accelerator: Accelerator) -> None:
    model = Net()
    before = weights(model)
    do_step(accelerator, model, 2, clip_norm=1e-3)
    assert (weights(model) - before).norm().item() == pytest.approx(0.5e-3, rel=1e-3)


@pytest.mark.parametrize("microbatches", [2, 4, 5, 22])
def test_gradients_that_are_summed_as_they_come_give_the_same_bits(
    accelerator: Accelerator, microbatches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second step on, and where the last micro-batch of a short step is empty."""
    steps = []
    for cached_bytes in (2**22, 0):
        monkeypatch.setattr(arriving_gradients, "CACHED_BYTES", cached_bytes)
        model = Net(norm=True, dropout=0.2).to(memory_format=torch.channels_last)
        optimizer = accelerator.prepare_optimizer(torch.optim.SGD(model.parameters(), 0.5))
        train_step = TrainStep(
            accelerator, model.train(), optimizer, TrainConfig(microbatches=microbatches), seed=0
        )
        found = []
        for number, samples in enumerate((22, 22, microbatches - 1, 22), start=1):
            sizes = microbatch_sizes(samples, microbatches)
            result = train_step(number, IMAGES[:samples], TARGETS[:samples], sizes)
            found.append(torch.cat([weights(model), result.loss.view(1), result.accuracy.view(1)]))
            assert model.unused.grad is None
        steps.append([*found, model.norm.running_var])
    assert all(torch.equal(*pair) for pair in zip(*steps, strict=True))
