"""What a report says of dead units, numbers out of proportion, and losses that jump."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.run.report import health

SCALING = Scaling(torch.tensor(128.0), torch.tensor(64.0))


class Net(nn.Module):
    """Its rectifiers are functions, and some of their outputs are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            self.first.weight[2].zero_()
            self.first.bias[2] = -1.0  # dead by the rectifier
            self.norm.weight[4] = 0.0  # alike for all images
            self.norm.weight[:4] = 1e6

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.second(self.first(images).relu())
        logits: torch.Tensor = self.head(input=self.norm(images).relu().mean((2, 3)))
        return logits


def test_dead_units_and_sizes_are_those_of_each_layer() -> None:
    torch.manual_seed(0)
    net, pixels = Net(), torch.randint(0, 256, (70, 1, 8, 8), dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(70, dtype=torch.int64))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = health.examine(net, images, SCALING, torch.device("cpu"))
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert found.images == 70
    second, head = found.layers
    assert (second.layer, second.units, second.dead) == ("second", 8, 1)
    assert (head.layer, head.units, head.dead) == ("head", 6, 1)
    assert not second.is_out_of_proportion
    assert head.is_out_of_proportion and head.size > 1e4
    assert found.troubled == [second, head]
    with torch.no_grad():
        net.eval()
        scaled = (pixels.float() - 128) / 64
        wanted = net.first(scaled).relu().square().mean().sqrt()
    torch.testing.assert_close(torch.tensor(second.size), wanted, rtol=1e-4, atol=1e-6)


def test_notes_name_the_steps_and_epochs() -> None:
    steps: list[dict[str, Any]] = [
        {"step": step, "loss": 1.0 + 0.1 * (step % 3)} for step in range(1, 201)
    ]
    epochs = [
        {"epoch": epoch, "train_loss": 2.0 - 0.1 * epoch, "validation_loss": 1.0 / epoch}
        for epoch in range(1, 6)
    ]
    assert health.training_notes(steps, epochs) == []
    for step in (20, 40, 41):
        steps[step - 1]["loss"] = None
    steps[119]["loss"], steps[120]["loss"] = 9.0, 3.0
    epochs[3]["validation_loss"] = epochs[2]["validation_loss"]
    assert health.training_notes(steps, epochs) == [
        "3 steps whose loss was not finite: 20, 40, 41.",
        "The loss jumped once to 3 times the median of the 50 steps before, or more: at 120.",
        "Epochs after which the validation loss was as before: 4.",
    ]
    alone: list[dict[str, Any]] = [{"step": 7, "loss": None}]
    assert health.training_notes(alone, []) == ["1 step whose loss was not finite: 7."]
    flat = [{"epoch": epoch, "train_loss": 2.3} for epoch in (1, 2)]
    assert health.training_notes([], flat) == ["No epoch had a lower training loss than the first."]
