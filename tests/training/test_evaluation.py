"""Predictions of one process; tests/distributed has those of several."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.training import evaluation

SCALING = Scaling(torch.full((1, 1, 1), 100.0), torch.full((1, 1, 1), 50.0))


class LeftHalf(nn.Module):
    """Sees only the left half of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * 2, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(images[..., :2].flatten(1))
        return logits


@pytest.fixture
def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(50) % 3)


def mean_of_both(model: nn.Module, images: ImageSet) -> torch.Tensor:
    """Probabilities, the mean of those of an image and of its mirror image."""
    inputs = SCALING.apply(images.images[:])
    with torch.no_grad():
        both = (model(inputs.clone()), model(inputs.flip(3)))
    return torch.stack([logits.softmax(1) for logits in both]).mean(0)


def test_mirrored_predictions_are_the_mean_of_both_probabilities(images: ImageSet) -> None:
    torch.manual_seed(0)
    model = LeftHalf()
    found = evaluation.predict(Accelerator(cpu=True), model, images, SCALING, mirrored=True)
    mean = mean_of_both(model, images)
    assert found.predicted.tolist() == mean.argmax(1).tolist()
    assert found.probability == pytest.approx(mean.amax(1).numpy(), rel=1e-5)
    right = mean[torch.arange(50), images.targets]
    assert found.loss == pytest.approx(-right.log().numpy(), rel=1e-5)
    plain = evaluation.predict(Accelerator(cpu=True), model, images, SCALING)
    assert plain.predicted.tolist() != found.predicted.tolist()


class InPlace(LeftHalf):
    """Changes its input, as layers with `inplace=True` do."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.sub_(3.0))


def test_a_model_may_change_its_input(images: ImageSet) -> None:
    torch.manual_seed(0)
    model = InPlace()
    found = evaluation.predict(Accelerator(cpu=True), model, images, SCALING, mirrored=True)
    mean = mean_of_both(model, images)
    assert found.probability == pytest.approx(mean.amax(1).numpy(), rel=1e-5)


class Counting(LeftHalf):
    """Counts its batches in a buffer, and puts another in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.in_place += 1
        self.replaced = self.replaced + 1
        return super().forward(images)


def test_buffers_are_left_alone(images: ImageSet) -> None:
    """How often a model sees a batch depends on the process count; its state must not."""
    model = Counting()
    evaluation.predict(Accelerator(cpu=True), model, images, SCALING)
    assert (model.in_place, model.replaced) == (0, 0)
    model.load_state_dict(model.state_dict())


def test_mirrored_predictions_are_those_of_mirrored_images(images: ImageSet) -> None:
    torch.manual_seed(0)
    model = LeftHalf()
    flipped = ImageSet(images.images[:].flip(3), images.targets)
    one, other = (
        evaluation.predict(Accelerator(cpu=True), model, some, SCALING, mirrored=True)
        for some in (images, flipped)
    )
    assert one.probability == pytest.approx(other.probability, rel=1e-6)
    assert one.predicted.tolist() == other.predicted.tolist()
