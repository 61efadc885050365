"""The samples of a step: what is seen of them, and that looking changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator

from tests.training.test_step import IMAGES, TARGETS, Net, weights
from trainer.config.schema import TrainConfig
from trainer.data.batches import Batch
from trainer.data.sampling import microbatch_sizes
from trainer.training.per_sample import SampleWatch
from trainer.training.step import TrainStep

LR = 0.5


def do_step(model: Net, samples: int, microbatches: int, watched: bool) -> SampleWatch:
    """One step of plain gradient descent."""
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare_optimizer(torch.optim.SGD(model.parameters(), LR))
    config = TrainConfig(microbatches=microbatches, label_smoothing=0.1)
    train_step = TrainStep(accelerator, model, optimizer, config, seed=0)
    batch = Batch(IMAGES[:samples], TARGETS[:samples], microbatch_sizes(samples, microbatches))
    watch = SampleWatch(train_step, batch, lambda: None)
    model.train()
    if watched:
        with watch.observe_step():
            train_step(1, batch.images, batch.targets, batch.microbatch_sizes)
    else:
        train_step(1, batch.images, batch.targets, batch.microbatch_sizes)
    return watch


@pytest.mark.parametrize(("samples", "microbatches"), [(22, 1), (22, 4), (3, 5)])
def test_the_gradient_is_the_steps_own_and_looking_changes_nothing(
    samples: int, microbatches: int
) -> None:
    before, plain, seen = (Net(norm=True, dropout=0.3) for _ in range(3))
    do_step(plain, samples, microbatches, watched=False)
    watch = do_step(seen, samples, microbatches, watched=True)
    assert torch.equal(weights(seen), weights(plain))
    moved = (weights(before) - weights(seen)).norm() / LR
    assert watch.gradient_norm() == pytest.approx(float(moved), rel=1e-4)
    assert [figures.microbatch for figures in watch.figures] == [
        index
        for index, size in enumerate(microbatch_sizes(samples, microbatches))
        for _ in range(size)
    ]


def test_a_sample_by_itself() -> None:
    """Without anything that joins the samples, its loss and gradient are its own."""
    model = Net()
    logits = model(IMAGES)
    losses = F.cross_entropy(logits, TARGETS, reduction="none", label_smoothing=0.1)
    gradients = torch.autograd.grad(losses[7], list(model.parameters()), materialize_grads=True)
    norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    figures = do_step(model, 22, 2, watched=True).figures[7]
    assert figures.loss == pytest.approx(losses[7].item(), rel=1e-5)
    assert figures.gradient_norm == pytest.approx(norm, rel=1e-5)
    assert figures.predicted == int(logits[7].argmax())
    assert figures.probability == pytest.approx(logits[7].softmax(0).max().item(), rel=1e-5)
