"""Maps of what an answer comes from, of nets of which that is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.lab import LabCNN
from trainer.base.errors import UserError
from trainer.training import attribution
from trainer.training.attribution import METHODS, Method

SIDE = 16


class Corner(nn.Module):
    """Class 1 is what is bright in the upper left quarter, class 0 what is dark there."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        with torch.no_grad():
            self.blur.weight.copy_(torch.tensor([-1 / 9, 1 / 9]).view(2, 1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.blur(images))
        return maps[:, :, : SIDE // 2, : SIDE // 2].mean((2, 3))


class Linear(nn.Module):
    """Has no maps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIDE * SIDE, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.flatten(1))


@pytest.fixture
def images() -> torch.Tensor:
    """More than a block of them, bright in the upper left quarter and the lower right one."""
    torch.manual_seed(0)
    found = 0.1 * torch.rand(attribution.BLOCK + 2, 1, SIDE, SIDE)
    found[:, :, : SIDE // 2, : SIDE // 2] += 1
    found[:, :, SIDE // 2 :, SIDE // 2 :] += 1
    return found


@pytest.mark.parametrize("method", METHODS)
def test_what_counts_is_found(method: Method, images: torch.Tensor) -> None:
    heat = attribution.explain(method, Corner(), images, torch.ones(len(images)).long())
    assert heat.shape == (len(images), SIDE, SIDE)
    assert heat.dtype == torch.float32
    # The mean gradient of Grad-CAM is that of the whole map, so it sees both bright quarters.
    seen = heat[:, : SIDE // 2, : SIDE // 2].sum((1, 2)) / heat.abs().sum((1, 2))
    assert (seen > (0.4 if method == "gradcam" else 0.8)).all()


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_what_speaks_against_a_class_is_negative(method: Method) -> None:
    dark = torch.full((1, 1, SIDE, SIDE), -1.0)
    model = Corner()
    for_it, against = (
        attribution.explain(method, model, dark * sign, torch.tensor([0])).sum() for sign in (1, -1)
    )
    assert for_it > 0
    assert against <= 0
    with torch.no_grad():
        model.blur.weight[1].neg_()  # now class 1 is dark, too
        model.blur.weight[0].neg_()
    assert attribution.explain(method, model, dark, torch.tensor([0])).sum() <= 0


def test_integrated_gradients_add_up_to_the_difference_of_the_logits() -> None:
    torch.manual_seed(1)
    model = LabCNN(num_classes=3, in_channels=1, image_size=(28, 28)).eval()
    images, labels = torch.randn(4, 1, 28, 28), torch.tensor([0, 1, 2, 0])
    found = attribution.explain("integrated_gradients", model, images, labels).sum((1, 2))
    with torch.no_grad():
        differences = model(images) - model(torch.zeros_like(images))
    wanted = differences.gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.005)


def test_without_maps_the_other_methods_are_named() -> None:
    images, labels = torch.randn(1, 1, SIDE, SIDE), torch.tensor([0])
    with pytest.raises(UserError, match="occlusion and integrated_gradients"):
        attribution.explain("gradcam", Linear(), images, labels)
    heat = attribution.explain("occlusion", Linear(), images, labels)
    assert heat.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_the_network_stays_as_it_was(method: Method) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(2)
    )
    images = torch.randn(2, 1, SIDE, SIDE)
    model(images)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # as in a run with a frozen backbone
    attribution.explain(method, model, images, torch.tensor([0, 1]))
    assert model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
