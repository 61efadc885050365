"""Images that are classified together, each with the bits that it has among any others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.stored import write_model
from trainer.finished import separate_answers, trained_model
from trainer.finished.trained_model import TrainedModel


class Answers(nn.Module):
    """Three logits of each image: its mean, and what a function makes of those of all."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean((1, 2, 3))
        return torch.stack([means, self.function(means), means * 0], 1)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return trained_model.load(write_model(tmp_path_factory.mktemp("model") / "x.safetensors"))


@pytest.mark.parametrize(
    ("function", "together"),
    [
        (lambda means: means.exp(), 16),
        (lambda means: means - means.mean(), 1),
        (lambda means: means + torch.arange(len(means)), 1),
        (lambda means: means + torch.rand(len(means)), 1),
    ],
)
def test_what_depends_on_the_others_or_on_its_place_goes_alone(
    stored: TrainedModel, function: Callable[[torch.Tensor], torch.Tensor], together: int
) -> None:
    answers = replace(stored, module=Answers(function).eval())
    assert separate_answers.make_classifier(answers).block_images == together


def test_large_images_go_alone(tmp_path: Path) -> None:
    large = write_model(tmp_path / "x.safetensors", image_size=(128, 128))
    loaded = trained_model.load(large)
    assert separate_answers.make_classifier(loaded).block_images == 1


def test_a_block_that_is_not_full(stored: TrainedModel) -> None:
    classifier = separate_answers.make_classifier(stored)
    pixels = (torch.arange(5 * 144) * 7 % 251).to(torch.uint8).reshape(5, 1, 12, 12)
    found = classifier.probabilities(pixels)
    assert found.shape == (5, 3)
    assert torch.equal(classifier.probabilities(pixels[3:]), found[3:])
    torch.testing.assert_close(found, stored.probabilities(pixels))
