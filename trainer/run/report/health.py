"""What stood still or ran away in a training: dead units, numbers out of all proportion, jumps.

Nothing is measured while a run trains: steps and epochs are those of metrics.jsonl, and the units
are looked at afterwards, with the chosen weights.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from trainer.base import seeding
from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.network.buffers_in_passes import preserve_state
from trainer.training.observer import Record

MOST_IMAGES = 256
BLOCK_SAMPLES = 32
LIMIT_S = 1.0
"""how long test images are looked at; a block of them is always"""
LARGE, SMALL = 1e3, 1e-3
"""a layer's numbers beyond these are out of proportion: they are scaled to about 1 in most nets"""
JUMP = 3.0
"""times the median of the steps before, from which on a loss has jumped"""
WINDOW_STEPS = 50
MOST_NAMED = 5
_BLOCK_ROWS = 2**15
"""that are in double precision at a time: photographs have a million"""
_MIXING = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass
class LayerInput:
    """What goes into a layer, which is what the layers and activations before it make.

    Args:
        layer: the name of the module.
        lowest, highest: of each unit, float32 (units,).
        squares: the sum of all numbers' squares.
        count: of all numbers.
    """

    layer: str
    lowest: torch.Tensor
    highest: torch.Tensor
    squares: float = 0.0
    count: int = 0

    @property
    def units(self) -> int:
        """How many there are: channels, or numbers of a vector."""
        return len(self.lowest)

    @property
    def dead(self) -> int:
        """How many units are the same for every image, and everywhere in it."""
        return int((self.lowest == self.highest).sum())

    @property
    def size(self) -> float:
        """The root of the mean square of its numbers."""
        return math.sqrt(self.squares / max(self.count, 1))

    @property
    def is_out_of_proportion(self) -> bool:
        """Whether its numbers are far larger or smaller than usual, or not finite."""
        return not SMALL <= self.size <= LARGE

    def add(self, numbers: torch.Tensor) -> None:
        """Add numbers, float32 (n, units)."""
        self.lowest = torch.minimum(self.lowest, numbers.amin(0))
        self.highest = torch.maximum(self.highest, numbers.amax(0))
        for rows in torch.split(numbers, _BLOCK_ROWS):
            self.squares += float(rows.double().square().sum())
        self.count += numbers.numel()


@dataclass
class Health:
    """The layers of a network after the first one, and how many test images were looked at."""

    images: int = 0
    layers: list[LayerInput] = field(default_factory=list)

    @property
    def units(self) -> int:
        """How many there are in all layers."""
        return sum(layer.units for layer in self.layers)

    @property
    def troubled(self) -> list[LayerInput]:
        """Those with dead units, or with numbers out of proportion."""
        return [layer for layer in self.layers if layer.dead or layer.is_out_of_proportion]


@torch.no_grad()
def examine(model: nn.Module, test: ImageSet, scaling: Scaling, device: torch.device) -> Health:
    """Look at what goes into each convolution and linear layer, in about LIMIT_S seconds.

    Args:
        model: on `device`; its mode, its buffers and the generators are restored.
        test: some of these images, evenly spread, are looked at.
    """
    found: dict[str, LayerInput] = {}
    with (
        preserve_state(model),
        seeding.preserve_generators(),
        contextlib.ExitStack() as cleanup,
    ):
        for name, module in model.named_modules():
            if isinstance(module, _MIXING):
                hook = module.register_forward_pre_hook(
                    lambda module, inputs, named, name=name: _look(
                        found, name, module, (*inputs, *named.values())[0]
                    ),
                    with_kwargs=True,
                )
                cleanup.callback(hook.remove)
        model.eval()
        index = np.linspace(0, len(test) - 1, min(len(test), MOST_IMAGES)).astype(np.int64)
        images, end_s = 0, time.monotonic() + LIMIT_S
        for block in torch.split(torch.from_numpy(index), BLOCK_SAMPLES):
            pixels, _ = test.fetch(block.to(test.images.device))
            model(scaling.apply(pixels.to(device)))
            images += len(block)
            if time.monotonic() > end_s:
                break
    # The first one gets the image.
    return Health(images, list(found.values())[1:])


def _look(
    found: dict[str, LayerInput], name: str, module: nn.Module, numbers: torch.Tensor
) -> None:
    """Note what goes into a layer, (n, channels, ...) or of a linear one (n, ..., channels)."""
    channels_last = numbers if isinstance(module, nn.Linear) else numbers.movedim(1, -1)
    rows = channels_last.reshape(-1, channels_last.shape[-1]).float()
    if name not in found:
        unknown = torch.full_like(rows[0], torch.inf)
        found[name] = LayerInput(name, unknown, -unknown)
    found[name].add(rows)


def training_notes(steps: Sequence[Record], epochs: Sequence[Record]) -> list[str]:
    """Say what stood still or ran away, by the records of a run; nothing if all went well.

    Args:
        steps, epochs: as of `curves.draw_curves`.
    """
    skipped = [record["step"] for record in steps if record["loss"] is None]
    notes = []
    if skipped:
        many = f"{len(skipped):,} steps" if len(skipped) > 1 else "1 step"
        notes.append(f"{many} whose loss was not finite: {_name_some(skipped)}.")
    if jumps := list(_jumps(steps)):
        many = f"{len(jumps):,} times" if len(jumps) > 1 else "once"
        notes.append(
            f"The loss jumped {many} to {JUMP:g} times the median of the {WINDOW_STEPS} steps "
            f"before, or more: at {_name_some(jumps)}."
        )
    still = [
        later["epoch"]
        for earlier, later in itertools.pairwise(epochs)
        if later.get("validation_loss") is not None
        and later["validation_loss"] == earlier.get("validation_loss")
    ]
    if still:
        notes.append(f"Epochs after which the validation loss was as before: {_name_some(still)}.")
    losses = [record["train_loss"] for record in epochs if record.get("train_loss") is not None]
    if len(losses) > 1 and min(losses[1:]) >= losses[0]:
        notes.append("No epoch had a lower training loss than the first.")
    return notes


def _jumps(steps: Sequence[Record]) -> Iterator[int]:
    """Give the steps whose loss jumped."""
    known = [(record["step"], record["loss"]) for record in steps if record["loss"] is not None]
    losses = np.array([loss for _, loss in known], np.float64)
    if len(losses) <= WINDOW_STEPS:
        return
    windows = np.lib.stride_tricks.sliding_window_view(losses, WINDOW_STEPS)[:-1]
    for (step, loss), before in zip(known[WINDOW_STEPS:], np.median(windows, axis=1), strict=True):
        if loss > JUMP * before > 0:
            yield step


def _name_some(numbers: Sequence[int]) -> str:
    shown = ", ".join(f"{number:,}" for number in numbers[:MOST_NAMED])
    more = len(numbers) - MOST_NAMED
    return f"{shown} and {more:,} more" if more > 0 else shown
