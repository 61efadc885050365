"""The ways to train that time_to_accuracy.py compares, each in a process of its own.

`python -m race NAME TASK` trains one and prints a JSON object; time_to_accuracy.py starts them. A
way is what its library's documentation shows for small pictures: its own rates, schedule, batches
and augmentations, and the net that it shows, or else that of the race. All have the same images in
memory, the others as floats that are scaled, and the same cores. Lengths, and rates for the lab's
net, are set here where the documentation leaves them open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.config.data_names import DataName


@dataclass(frozen=True)
class Task:
    """A training of one of the ways, as JSON."""

    race: str
    """the key of RACES"""
    data: DataName
    root: str | None
    """data.root"""
    images: int
    """the first of the training images"""
    epochs: int | None
    """None: those of our recipe"""
    seed: int
    threads: int
    folder: str
    """for files that a library cannot do without"""

    def length(self) -> int:
        """Return the epochs of a way that has no recipe of ours."""
        assert self.epochs is not None
        return self.epochs


@dataclass(frozen=True)
class Way:
    """A way to train as the page names it."""

    title: str
    short: str
    """name in the pictures"""
    distribution: str
    """whose version counts"""
    module: str
    """what is imported"""
    folders: tuple[str, ...] = ()
    """where its packages are, below that of all packages"""


@dataclass(frozen=True)
class Race:
    """A task, the accuracy to be reached, and how long each way trains."""

    title: str
    goal: str
    data: DataName
    images: int
    bar: float
    """accuracy on all test images, each classified once as it is"""
    recipe: str
    """ours, in configs/"""
    mirror: bool
    """whether a way that augments mirrors half of the images, as our recipe does"""
    lowest: float
    """how far below the bar its picture goes"""
    epochs: Mapping[str, int]
    """of each way; where ours is not among them, it has those of its recipe"""
    crop: int = 0
    """pixels around an image in which a way that augments moves it"""
    net: str = "lab_cnn"
    """of the ways whose documentation shows none that is small"""
    net_args: Mapping[str, Any] = field(default_factory=dict)
    every_steps: int | None = None
    """between points of our curve in the picture, if the ends of epochs are too few"""


OURS = "lockstep"
WAYS = {
    OURS: Way("**Lockstep**", "Lockstep", "torch", "trainer"),
    "lab": Way("the lab's loop, Adam", "the lab's loop", "torch", "torch"),
    "fastai_learner": Way(
        "fastai, `Learner.fit_one_cycle`", "fastai", "fastai", "fastai", ("fastai", "timm")
    ),
    "lightning_trainer": Way(
        "PyTorch Lightning, SGD with `OneCycleLR`", "Lightning",
        "pytorch-lightning", "pytorch_lightning", ("lightning",),
    ),
    "timm_script": Way(
        "timm, `train.py` with AdamW and a cosine", "timm", "timm", "timm", ("timm",)
    ),
    "hf_trainer": Way(
        "HF Trainer, AdamW and a falling rate", "HF Trainer",
        "transformers", "transformers", ("transformers",),
    ),
    "keras_fit": Way(
        "Keras on torch, `simple_mnist_convnet`", "Keras (torch)", "keras", "keras", ("keras",)
    ),
}  # fmt: skip
"""the most important first"""

RACES = {
    "fashion_mnist": Race(
        "90 % of Fashion-MNIST, from its first 10,000 images", "90 % of Fashion-MNIST",
        "fashion_mnist", 10_000, 0.90,
        "fashion_mnist_fast", True, 0.055,
        {"lab": 15, "fastai_learner": 15, "lightning_trainer": 25, "timm_script": 25,
         "hf_trainer": 25, "keras_fit": 12},
    ),
    "mnist": Race(
        "99 % of MNIST", "99 % of MNIST", "mnist", 60_000, 0.99, "mnist", False, 0.03,
        {"lab": 4, "fastai_learner": 5, "lightning_trainer": 4, "timm_script": 4,
         "hf_trainer": 4, "keras_fit": 4},
        every_steps=60,
    ),
    "cifar10": Race(
        "85 % of CIFAR-10", "85 % of CIFAR-10", "folder", 50_000, 0.85, "cifar10", True, 0.35,
        {OURS: 6, "lab": 10, "fastai_learner": 5, "lightning_trainer": 5, "timm_script": 5,
         "hf_trainer": 5, "keras_fit": 12},
        crop=4, net="preact_resnet", net_args={"depth": 20},
    ),
}  # fmt: skip
