"""The buffers of a model, such as batch norm's running statistics, in a step and an evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from trainer.packing import layout, pack, unpack


class StepBuffers:
    """Gives every micro-batch the values from before the step, and the step what they made of them.

    A floating-point buffer moves by the mean of the micro-batches' changes, weighted by their
    samples; any other (batch norm's count of steps) becomes what the first micro-batch made of it.

    Args:
        module: its buffers are asked for anew each time, as a forward pass may put another tensor
            in a buffer's place.
    """

    @torch.no_grad()
    def __init__(self, module: nn.Module) -> None:
        slots = _slots(module)
        self.averaged = [slot for slot in slots if _is_averaged(getattr(*slot))]
        self.others = [slot for slot in slots if not _is_averaged(getattr(*slot))]
        self.before = pack(self._values())
        # No change could be counted from infinity, where a plug-in may start.
        self.start = [
            torch.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)
            for vector in pack(self._values()[: len(self.averaged)])
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the values from before the step back."""
        values = self._values()
        if values:
            torch._foreach_copy_(values, unpack(self.before, layout(values)))

    @torch.no_grad()
    def changes(self, weight: float, first: bool) -> list[torch.Tensor]:
        """A micro-batch's parts of the sums that `finish` takes: vectors.

        Args:
            weight: its share of the step's samples.
            first: whether it is the first micro-batch.
        """
        values = self._values()
        averaged = pack(values[: len(self.averaged)])
        others = pack([value.to(torch.int64) for value in values[len(self.averaged) :]])
        if weight == 0:  # a factor would not do: 0 * infinity is not a number
            changed = [torch.zeros_like(vector) for vector in averaged]
        else:
            changed = [(now - old) * weight for now, old in zip(averaged, self.start, strict=True)]
        return changed + (others if first else [torch.zeros_like(vector) for vector in others])

    @torch.no_grad()
    def finish(self, sums: list[torch.Tensor]) -> None:
        """Set the values after the step from the sums over all micro-batches."""
        values = self._values()
        averaged, others = values[: len(self.averaged)], values[len(self.averaged) :]
        moved = [old + change for old, change in zip(self.start, sums, strict=False)]
        if averaged:
            torch._foreach_copy_(averaged, unpack(moved, layout(averaged)))
        for vector in sums[len(moved) :]:
            pieces = torch.split(vector, [value.numel() for value in others])
            for value, piece in zip(others, pieces, strict=True):
                value.copy_(piece.view(value.shape))

    def _values(self) -> list[torch.Tensor]:
        return [getattr(*slot) for slot in self.averaged + self.others]


@contextlib.contextmanager
def left_alone(module: nn.Module) -> Iterator[None]:
    """Whatever is made of the mode and of the buffers inside, they are as before afterwards."""
    was_training = module.training
    before = [(slot, getattr(*slot), getattr(*slot).clone()) for slot in _slots(module)]
    try:
        yield
    finally:
        for slot, buffer, values in before:
            buffer.copy_(values)
            if getattr(*slot) is not buffer:
                setattr(*slot, buffer)
        module.train(was_training)


def _slots(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where the buffers are: a module, and the name of its attribute."""
    return [
        (owner, name)
        for owner in module.modules()
        for name, _ in owner.named_buffers(recurse=False)
    ]


def _is_averaged(buffer: torch.Tensor) -> bool:
    return buffer.is_floating_point() or buffer.is_complex()
