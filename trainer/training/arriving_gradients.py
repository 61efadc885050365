"""Sum or exchange gradients while the backward pass of a micro-batch still computes others.

As in Li et al.: PyTorch Distributed: Experiences on Accelerating Data Parallel Training, 2020.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch
from accelerate import Accelerator
from torch import nn

from trainer.ranks import processes
from trainer.training import exchange
from trainer.training.arriving_leaf import ArrivingLeaf
from trainer.training.step_sum import StepSum

CACHED_BYTES = 2**22
"""gradients that a core's cache still holds when the backward pass ends: one call packs them all"""

Arrival = Literal["exchanged", "summed"]
"""what is done with a gradient as it arrives"""


def choose_arrival(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> Arrival | None:
    """Choose what to do with each gradient as it arrives; None: nothing, before all are there.

    The last micro-batch's are exchanged if that saves time: not of a vector that is one bucket,
    whose beginning comes last; and not between the processes of one machine on the CPU, whose cores
    would copy the messages instead of computing. There each gradient is added to the rank's sum,
    which is faster than to read them all from the memory again.
    """
    size_bytes = sum(parameter.nbytes for parameter in parameters)
    kind = accelerator.device.type
    by_network = accelerator.num_processes > processes.local_count()
    is_shared = accelerator.num_processes > 1 and (kind == "cuda" or by_network)
    if is_shared and size_bytes > exchange.BUCKET_BYTES:
        return "exchanged"
    return "summed" if kind == "cpu" and size_bytes > CACHED_BYTES else None


def present_mask(count: int, missing: Collection[int], device: torch.device) -> torch.Tensor:
    """Return 1 for each parameter, and 0 for those without a gradient: float32 (count,).

    The host does not wait for the device.
    """
    if not missing:
        return torch.ones(count, device=device)
    values = torch.tensor([float(number not in missing) for number in range(count)])
    return values.to(device, non_blocking=True)


class ArrivingGradients:
    """Hands the gradients of a micro-batch over as soon as its backward pass has them.

    Args:
        parameters: that are trained.
        orders: of each, how its dimensions are permuted in the vector.
        arrival: what is then done with them.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], orders: Sequence[list[int]], arrival: Arrival
    ) -> None:
        self._parameters = parameters
        self._orders = orders
        self._exchanged = arrival == "exchanged"
        self._leaf: ArrivingLeaf | None = None
        self._passing = False
        self._came: set[int] = set()
        self._passes = 0
        self._came_twice = False
        self._handles = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                functools.partial(self._arrive, number)
            )
            for number, parameter in enumerate(parameters)
        ]

    def may_take(self, *, is_last: bool) -> bool:
        """Tell whether the gradients of the next pass may leave as they come.

        Args:
            is_last: whether it is this rank's last one of the step.
        """
        return (is_last or not self._exchanged) and self.is_safe

    @property
    def is_safe(self) -> bool:
        """Whether each gradient has come once at most in the passes so far, of which there was one.

        A parameter in two parts of a network that are computed again (reentrant checkpoints) gets
        its gradient in two parts, of which the first may not leave before the second is there.
        """
        return self._passes > 0 and not self._came_twice

    def remove(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()

    def begin(self, sums: StepSum, index: int, first: Sequence[torch.Tensor]) -> None:
        """Take the gradients of the next pass, for leaf `index`.

        Args:
            first: tensors like those that come before the mask and the gradients in the vector.
        """
        self._came.clear()  # an empty micro-batch has no pass
        like = [one.permute(self._orders[number]) for number, one in enumerate(self._parameters)]
        like = [*first, self._mask(()), *like]
        self._leaf = sums.begin(index, like, exchanged=self._exchanged)

    @contextlib.contextmanager
    def watch_pass(self) -> Iterator[None]:
        """Watch the backward pass inside."""
        self._passing = True
        self._came.clear()
        yield
        self._passing = False
        self._passes += 1

    def complete(self, first: Sequence[torch.Tensor]) -> set[int]:
        """Put in what comes before the gradients, a mask of those that came, zeros for the rest.

        Returns:
            The numbers of the parameters whose gradients are missing.
        """
        assert self._leaf is not None
        leaf, self._leaf = self._leaf, None
        missing = set(range(len(self._parameters))) - self._came
        begin = len(first) + 1
        for number in sorted(missing):
            nothing = torch.zeros_like(self._parameters[number])
            leaf.put(begin + number, nothing.permute(self._orders[number]))
        for number, tensor in enumerate([*first, self._mask(missing)]):
            leaf.put(number, tensor)
        if not self._exchanged:
            leaf.finish()
        return missing

    def _mask(self, missing: Collection[int]) -> torch.Tensor:
        return present_mask(len(self._parameters), missing, self._parameters[0].device)

    def _arrive(self, number: int, parameter: torch.Tensor) -> None:
        if not self._passing:
            return
        self._came_twice |= number in self._came
        if self._leaf is None:
            self._came.add(number)
            return
        if number in self._came:
            raise RuntimeError(
                f"the gradient of parameter {number} came in two parts, after passes in which it "
                f"came in one; its first part was summed already"
            )
        self._came.add(number)
        assert parameter.grad is not None
        begin = len(self._leaf) - len(self._parameters)
        self._leaf.put(begin + number, parameter.grad.permute(self._orders[number]))
        parameter.grad = None
