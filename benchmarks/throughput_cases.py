"""What throughput.py measures: its cases, and the figures of one."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any, Literal

import paired
from contenders import BOUNDS, ONE_PROCESS, OURS, PEERS
from quicknet_case import QUICKNET


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the page: a task."""

    title: str
    model: str
    batch_size: int
    images: int
    """of an epoch, which should take about a second"""
    model_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    augment: Literal["none", "flip_shift"] = "none"
    image_size: int | None = None
    """of photographs that are read from their files; None: images are in memory"""
    weights: Literal["pretrained"] | None = None


LAB = Case("The lab's net", "lab_cnn", batch_size=100, images=6_000)
DEFAULT = Case(
    "QuickNet",
    QUICKNET["model"],
    batch_size=QUICKNET["batch_size"],
    images=1_600,
    model_args=QUICKNET["model_args"],
)
CASES = {
    "lab_cnn": LAB,
    "lenet5": Case("LeNet-5", "lenet5", batch_size=100, images=12_000),
    "quicknet": DEFAULT,
    "wide_resnet": Case(
        "WideResNet-16-4",
        "wide_resnet",
        batch_size=50,
        images=150,
        model_args={"depth": 16, "widen_factor": 4},
    ),
    "resnet18_photos": Case(
        "ResNet-18, photographs of 128 pixels",
        "resnet_d",
        batch_size=32,
        images=192,
        model_args={"widths": [64, 128, 256, 512]},
        image_size=128,
    ),
    "finetune_photos": Case(
        "EfficientNet-Lite0 fine-tuned, photographs of 160 pixels",
        "efficientnet_lite0",
        batch_size=32,
        images=128,
        image_size=160,
        weights="pretrained",
    ),
    "lab_cnn_augmented": dataclasses.replace(
        LAB, title="The lab's net, with augmentation", augment="flip_shift"
    ),
    "quicknet_augmented": dataclasses.replace(
        DEFAULT, title="QuickNet, with augmentation", augment="flip_shift"
    ),
}


@dataclasses.dataclass(frozen=True)
class Figures:
    """An entry of throughput.json."""

    case: str
    images: int
    batch_size: int
    threads: int
    seconds: dict[str, list[float]]
    """of each contender's epochs, a round an entry"""
    versions: dict[str, str]
    left_out: list[str]
    command: str
    minutes: float
    machine: str
    groups: int = 1
    """of processes, each a new one of every contender, that the rounds are divided into"""

    def images_per_second(self, name: str) -> list[float]:
        """Return the images per second of each round."""
        return [self.images / seconds for seconds in self.seconds[name]]

    def ratios(self, name: str, ours: str) -> list[float]:
        """Return the throughput of one of our forms over that of another in each round."""
        return paired.ratios(self.seconds[name], self.seconds[ours])

    def forms(self) -> list[str]:
        """Return our forms that were measured, the default one first."""
        return [name for name in (OURS, ONE_PROCESS) if name in self.seconds]

    def best_peer(self) -> str:
        """Return the contender that comes nearest to us."""
        ours = self.forms()[0]
        peers = [name for name in PEERS if name in self.seconds]
        return min(peers, key=lambda name: statistics.median(self.ratios(name, ours)))

    def bound_of(self, form: str) -> str | None:
        """Return the compute bound of one of our forms, if it was measured."""
        bound = BOUNDS[form]
        return bound if bound in self.seconds else None
