"""fastai's own course: chapter 13 of the fastbook, github.com/fastai/fastbook, 13_convolutions.

Its `simple_cnn` of strided convolutions with batch normalisation, trained by `fit_one_cycle` with
fastai's Adam: there in batches of 512 at a rate of up to 0.06, on all of MNIST. Colour pictures
have a residual net, as in its chapter 14.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from race import Task, parts

WIDTHS = (8, 16, 32, 64)
SETTINGS = {"fashion_mnist": (64, 0.01), "mnist": (512, 0.06), "cifar10": (128, 0.01)}
"""batch size and the highest rate"""


def train(task: Task, curve: parts.Curve) -> None:
    """Train without the validation after each epoch, whose time would not count."""
    from fastai.vision import all as vision

    batch_size, rate = SETTINGS[task.race]
    made = parts.make(task, batch_size, augment=True, channels_last=True)
    dataset = made.dataset()
    loaders = vision.DataLoaders.from_dsets(
        dataset, dataset, bs=batch_size, num_workers=0, device=torch.device("cpu")
    )
    net = made.model
    if made.images.shape[1] == 1:
        net = simple_cnn(vision, classes=int(made.targets.max()) + 1)
    learner = vision.Learner(
        loaders, net, loss_func=F.cross_entropy, cbs=[_callback(vision, curve, made)]
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(task.length(), rate)


def simple_cnn(vision: Any, classes: int) -> nn.Module:
    """Return the net: each convolution halves the side; the first sees 5 x 5 pixels."""
    widths = [1, *WIDTHS]
    layers = [
        vision.ConvLayer(before, width, ks=3 if index else 5, stride=2, bn_1st=False)
        for index, (before, width) in enumerate(zip(widths, WIDTHS, strict=False))
    ]
    last = vision.ConvLayer(WIDTHS[-1], classes, ks=3, stride=2, act_cls=None)
    return nn.Sequential(*layers, last, nn.Flatten())


def _callback(vision: Any, curve: parts.Curve, made: Any) -> Any:
    class CurveCallback(vision.Callback):  # type: ignore[misc]
        def before_train(self) -> None:
            curve.begin()

        def after_train(self) -> None:
            curve.end(lambda: parts.accuracy(self.learn.model, made))

        def before_validate(self) -> None:
            raise vision.CancelValidException

    return CurveCallback()
