"""A trial before a run's first step: whether the network gives equal bits wherever it is computed.

Three imaginary processes compute the same two steps of two micro-batches, and the same evaluations:
one all of it, one only the second micro-batch, and one that resumes after the first step. Each has
a network that is built like the run's, as a copy would share or hide what it looks for. What
differs between them depends on something that lockstep does not carry from process to process,
such as an attribute of a module or its own generator. The run's network is not used.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from trainer.base import out_of_memory, seeding
from trainer.base.errors import UserError
from trainer.base.operators import PortabilityCheck
from trainer.config.schema import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.sampling import microbatch_sizes, smallest_microbatch
from trainer.network import model_state, new_model
from trainer.network.freezing import Freezing
from trainer.network.trial.comparison import find_differences
from trainer.network.trial.simulated_process import Piece, Task

ADVICE = (
    "What a network remembers has to be in buffers (register_buffer), what it learns in "
    "parameters, and it has to draw by torch's functions without a generator of its own"
)

_LEVELS = 2**18
"""of colour in a piece: what is looked for shows in a few large images as in many"""

NOT_DONE = (
    "whether the network gives equal bits on other processes and after a resume has not been "
    "tried, as there is too little memory for it"
)


def try_network(
    config: RunConfig,
    dataset: Dataset,
    model: nn.Module,
    device: torch.device,
    autocast: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    inexact_kernels: Collection[str] = (),
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
) -> list[str]:
    """Examine the network of a run; what differs is refused where bits are promised.

    Args:
        config: with `train.microbatches` filled in.
        dataset: its first images are what is computed with, without augmentation.
        model: as `build_model` returned it.
        autocast: as the run's forward passes have it.
        inexact_kernels: grows by the operations that have no deterministic form here.
        loss: the run's mean loss of logits and targets.

    Returns:
        What differs, where no bits are promised: with `train.reduction: fast`, or such operations;
        or only `NOT_DONE`.

    Raises:
        UserError: names the module, the tensor or the attribute.
    """
    task = Task(
        build=lambda: model_state.move(new_model.rebuild(config, dataset, model), device),
        freeze=lambda network: _freeze(network, config, dataset),
        pieces=_pieces(config, dataset, device),
        seed=config.seed,
        loss=loss,
        autocast=autocast,
        evaluated=config.train.evaluation_batch_size,
    )
    check = PortabilityCheck()
    is_portable = config.train.kernels == "portable"
    try:
        with check if is_portable else contextlib.nullcontext():
            found = list(dict.fromkeys(find_differences(task)))
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is one of them
        if not out_of_memory.is_out_of_memory(error):
            raise
        return [NOT_DONE]
    if doubt := check.describe():
        raise UserError(
            f"model.name: {config.model.name} {doubt}; choose another network or train.kernels: "
            f"native"
        )
    if found and config.train.reduction == "exact" and not inexact_kernels:
        raise UserError(
            f"model.name: {config.model.name}: equal bits cannot be promised (tried before the "
            f"first step): {found[0]}. {ADVICE}; train.reduction: fast promises none, and only "
            f"warns"
        )
    return found


def _freeze(network: nn.Module, config: RunConfig, dataset: Dataset) -> Freezing:
    """Freeze what is still frozen in the last epoch, when most is trained."""
    freezing = Freezing(network, config.train, len(dataset.class_names))
    freezing.set_epoch(config.train.epochs)
    return freezing


def _pieces(config: RunConfig, dataset: Dataset, device: torch.device) -> list[Piece]:
    """Return the first images of the first epoch, as a largest and a smallest micro-batch.

    Of large images there are fewer than in these.
    """
    count, train = len(dataset.train), config.train
    assert train.microbatches is not None
    sizes = microbatch_sizes(min(train.batch_size, count), train.microbatches)[:1]
    if train.microbatches > 1:
        sizes.append(smallest_microbatch(count, train.batch_size, train.microbatches))
    most = max(4, _LEVELS // math.prod(dataset.train.images.shape[1:]))
    sizes = [min(size, most) for size in sizes]
    order = torch.from_numpy(seeding.permutation(config.seed, 1, count))
    samples = order[torch.arange(sum(sizes)) % count].to(dataset.train.images.device)
    pixels, targets = dataset.train.fetch(samples)
    images = dataset.scaling.apply(pixels.to(device))
    # Copies, as the rounding of vector instructions may depend on where they begin.
    pieces = zip(torch.split(images, sizes), torch.split(targets.to(device), sizes), strict=True)
    return [(piece.clone(), own.clone()) for piece, own in pieces]


def summary(found: list[str]) -> str:
    """Return the result in a line."""
    if found == [NOT_DONE]:
        return "not done, too little memory"
    return "other bits, see the warning" if found else "equal bits on two processes, and resumed"
