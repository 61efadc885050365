"""Exchange gradients while the backward pass of a rank's last micro-batch still computes others.

As in Li et al.: PyTorch Distributed: Experiences on Accelerating Data Parallel Training, 2020.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator, Sequence

import torch
from accelerate import Accelerator
from torch import nn

from trainer.ranks import processes
from trainer.training import exchange
from trainer.training.arriving_leaf import ArrivingLeaf
from trainer.training.step_sum import StepSum


def can_overlap(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> bool:
    """Tell whether an exchange beside the backward pass saves time.

    Not of a vector that is one bucket, whose beginning comes last; and not between the processes of
    one machine on the CPU, whose cores would copy the messages instead of computing.
    """
    size_bytes = sum(parameter.nbytes for parameter in parameters)
    on_gpu = accelerator.device.type == "cuda"
    by_network = accelerator.num_processes > processes.local_count()
    is_shared = accelerator.num_processes > 1 and (on_gpu or by_network)
    return is_shared and size_bytes > exchange.BUCKET_BYTES


def present_mask(count: int, missing: Collection[int], device: torch.device) -> torch.Tensor:
    """Return 1 for each parameter, and 0 for those without a gradient: float32 (count,).

    The host does not wait for the device.
    """
    if not missing:
        return torch.ones(count, device=device)
    values = torch.tensor([float(number not in missing) for number in range(count)])
    return values.to(device, non_blocking=True)


class EarlyExchange:
    """Hands the gradients of a rank's last micro-batch over as soon as its backward pass has them.

    Args:
        parameters: that are trained.
        orders: of each, how its dimensions are permuted in the vector.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], orders: Sequence[list[int]]) -> None:
        self._parameters = parameters
        self._orders = orders
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
        """Take the gradients of the next pass, for leaf `index`, the last one of this rank.

        Args:
            first: tensors like those that come before the mask and the gradients in the vector.
        """
        self._came.clear()  # an empty micro-batch has no pass
        like = [one.permute(self._orders[number]) for number, one in enumerate(self._parameters)]
        self._leaf = sums.begin_last(index, [*first, self._mask(()), *like])

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
                f"came in one; its first part was exchanged already"
            )
        self._came.add(number)
        assert parameter.grad is not None
        begin = len(self._leaf) - len(self._parameters)
        self._leaf.put(begin + number, parameter.grad.permute(self._orders[number]))
        parameter.grad = None
