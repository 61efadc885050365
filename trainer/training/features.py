"""Compute the features of images: what a network's head makes logits of, one vector for each."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import nn

from models import heads
from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.network.buffers_in_passes import preserve_state
from trainer.ranks import memory_files
from trainer.training import evaluation


class HeadInputs:
    """Keeps what a network's head is given in a pass; a context manager.

    Args:
        model: its passes are watched, not changed.
        head: the dotted name of the head in it.
    """

    def __init__(self, model: nn.Module, head: str) -> None:
        self.model = model
        self.head = head
        self._kept: list[torch.Tensor] = []
        self._hook: Any = None

    def __enter__(self) -> Self:
        module = self.model.get_submodule(self.head)
        self._hook = module.register_forward_pre_hook(
            lambda _, inputs: self._kept.append(inputs[0].detach())
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hook.remove()

    def of(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the features of images in a pass of theirs: float32, (n, features).

        Args:
            inputs: scaled images, (n, channels, height, width).

        Raises:
            UserError: the pass has not used the head, or more than once.
        """
        self._kept.clear()
        self.model(inputs)
        if len(self._kept) != 1:
            raise UserError(
                f"its head, {self.head}, is used {len(self._kept)} times in a pass; features are "
                "what goes into a head that is used once"
            )
        return self._kept.pop().flatten(1).float()


def find_head(model: nn.Module, classes: int) -> str:
    """Return the dotted name of a network's head.

    Raises:
        UserError: it has none that is known.
    """
    try:
        return heads.find_head(model, classes)
    except ValueError as error:
        raise UserError(str(error)) from error


@torch.no_grad()
def compute(
    accelerator: Accelerator,
    model: nn.Module,
    head: str,
    images: ImageSet,
    scaling: Scaling,
    between_blocks: Callable[[], object] = lambda: None,
    *,
    block_samples: int = evaluation.BLOCK_SAMPLES,
    seed: int = 0,
    prefetch: int = 0,
) -> torch.Tensor:
    """Return the features of all images, float32 (n, features), on the CPU; a collective.

    They are in memory once for each machine.

    All ranks return the same bits, whatever their number: they take blocks of images in turn, and
    a block's arithmetic does not depend on the others.

    Args:
        model: prepared for autocast, without DDP's wrapper; its mode is restored.
        head: the dotted name of its head.
        images, between_blocks, block_samples, seed, prefetch: as for `evaluation.predict`.

    Raises:
        UserError: the head is not used once in a pass.
        RankError: the images do not fit into the memory.
    """
    count, device = len(images), accelerator.device
    blocks = torch.split(torch.arange(count, device=device), block_samples)
    turns = evaluation.turns_per_rank(accelerator, len(blocks))
    largest = min(block_samples, count)
    with (
        preserve_state(model),
        seeding.preserve_generators(),
        evaluation.explain_memory(largest, device),
        HeadInputs(model, head) as head_inputs,
    ):
        model.eval()
        width = _count_features(head_inputs, images, scaling, device)
        found = memory_files.empty(accelerator, count, width)

        def share(turn: int, own: torch.Tensor) -> None:
            block = torch.zeros(largest, width, device=device)
            block[: len(own)] = own
            gathered = accelerator.gather(block)
            begin = turn * accelerator.num_processes * block_samples
            some = found[begin : begin + len(gathered)]
            some.copy_(gathered[: len(some)])

        done = 0
        for turn, _, inputs in evaluation.iter_rank_blocks(
            accelerator, images, scaling, blocks, between_blocks, model, seed, prefetch
        ):
            share(turn, head_inputs.of(inputs))
            done = turn + 1
        if done < turns:  # the last turn has blocks for other ranks only
            share(done, torch.zeros(0, width, device=device))
    return found


def _count_features(
    head_inputs: HeadInputs, images: ImageSet, scaling: Scaling, device: torch.device
) -> int:
    """Return how many features an image has, on a rank without a block too."""
    first = torch.zeros(1, dtype=torch.int64, device=images.images.device)
    pixels, _ = images.fetch(first)
    with preserve_state(head_inputs.model):
        return head_inputs.of(scaling.apply(pixels.to(device))).shape[1]
