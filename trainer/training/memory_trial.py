"""Try before the first step what it takes: divide batches that do not fit, place the images.

Weights, buffers, the optimiser, random generators and the order of the samples stay as they are.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.base import out_of_memory, seeding
from trainer.base.device_memory import DeviceMemory, Need, room_bytes
from trainer.base.errors import UserError
from trainer.config.schema import RunConfig, replace
from trainer.data.sampling import microbatch_sizes
from trainer.network.buffers_in_passes import preserve_state
from trainer.ranks import collectives, memory, processes
from trainer.ranks.caller_settings import trim_freed_memory, use_huge_pages
from trainer.training.alive_bytes import bytes_per_image, count_alive
from trainer.training.optimizer_state import SMALL_BYTES, states_after_a_step

if TYPE_CHECKING:
    from trainer.data.batches import Batch
    from trainer.training.engine import Engine

KEY = "train.microbatches"
SPARE_BYTES = 3 * 2**27
"""left free beside a divided step on a CPU: half of it, where the address space is limited, for
libraries that compute the figures of the end"""

log = logging.getLogger("lockstep")


def divide_to_fit(
    accelerator: Accelerator, config: RunConfig, build: Callable[[RunConfig], Engine]
) -> Engine:
    """Return an engine whose steps fit into the memory, with more micro-batches if need be.

    Their number is doubled until a step fits on every rank; a collective. The engine's
    configuration has it.

    Args:
        config: with a number of micro-batches to begin with.
        build: makes an engine at the start of a run; a collective.

    Raises:
        UserError: not even micro-batches of a single image fit.
    """
    engine = build(config)
    first = count = engine.train_step.microbatches
    while not _step_fits(engine, divided=count > first):
        if microbatch_sizes(min(config.train.batch_size, len(engine.data.train)), count)[0] == 1:
            raise UserError(
                f"{KEY}: null, but micro-batches of a single image leave too little memory as "
                f"well; choose a smaller data.image_size, train.batch_size or network"
            )
        count *= 2
        config = replace(config, {KEY: count})
        del engine
        accelerator.free_memory()
        engine = build(config)
    if count > first and accelerator.is_main_process:
        log.warning(
            "%s: null is %d in this run, as a step with %d does not fit into the memory",
            KEY, count, count // 2,
        )  # fmt: skip
    return engine


def place_images(engine: Engine, own: DeviceMemory | None) -> None:
    """Move images into the device's memory, as many as a step and an evaluation leave room for.

    Both are tried; a collective. With `data.device_memory_gb` the engine has done it already.

    Args:
        engine: at the start of its run.
        own: memory of the device; None: it has none of its own.
    """
    if own is None or engine.config.data.device_memory_gb is not None:
        return
    own.begin()
    fits = _step_fits_here(engine, divided=False) and _evaluation_fits(engine)
    needed_bytes = own.end() if fits else math.inf
    needs = gather_object([Need(own.name, own.total_bytes, needed_bytes)])
    free_bytes = gather_object([own.free_bytes()])
    engine.place_images(room_bytes(needs, free_bytes, engine.accelerator.process_index))


def _step_fits(engine: Engine, *, divided: bool) -> bool:
    """Return whether all ranks have the memory for a step of the run; a collective."""
    lacking = 0.0 if _step_fits_here(engine, divided=divided) else 1.0
    return collectives.max_over_ranks(engine.accelerator, [lacking]) == [0.0]


def _step_fits_here(engine: Engine, *, divided: bool) -> bool:
    """Return whether this rank has the memory for its part of a step; a collective.

    It computes its own micro-batches, one or two of them, beside what later steps keep. The step
    is one at the largest size of the images, with all that is trained in the end. Weights, buffers,
    the optimiser, random generators and the order of the samples stay as they are.

    Args:
        engine: at the start of its run.
        divided: whether it has more micro-batches than at first, which shall leave some memory for
            the rest of the run.
    """
    if engine.cached and engine.freezing.is_frozen(engine.config.train.epochs):
        return True  # the head alone is trained, on features that are there only then
    batch = _largest_batch(engine)
    sizes = batch.microbatch_sizes
    if divided:
        sizes = _with_larger_first(sizes, engine.train_step.own)
    on_host = engine.accelerator.device.type == "cpu"
    host_bytes = _measure_host(engine) if on_host else math.inf
    fits = out_of_memory.fits(
        functools.partial(_try_step, engine, batch, sizes, host_bytes, divided=divided)
    )
    del batch
    if divided or not fits:
        gc.collect()
        if on_host:
            _return_freed_memory()
    if engine.accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    return fits


def _try_step(
    engine: Engine, batch: Batch, sizes: Sequence[int], host_bytes: float, *, divided: bool
) -> bool:
    """Compute this rank's part of a step; return false where the host's memory cannot suffice."""
    step = engine.train_step
    with _as_in_epoch(engine, engine.config.train.epochs), seeding.preserve_generators():
        samples = max(sizes[index] for index in step.own)
        if not _is_possible(engine, batch, samples, host_bytes):
            return False
        kept = _reserve(engine, divided=divided)
        step.compute_alone(batch.images, batch.targets, sizes, batch.weights)
        del kept
    return True


def _measure_host(engine: Engine) -> float:
    """Return how many bytes of the host's memory are free for this process; a collective."""
    _return_freed_memory()  # which would not count as free
    collectives.barrier(engine.accelerator)
    free_bytes = memory.free_bytes() / processes.local_count()
    # None may have begun to try while another one of its machine measures what is free.
    collectives.barrier(engine.accelerator)
    return free_bytes


def _return_freed_memory() -> None:
    trim_freed_memory()
    use_huge_pages()  # again, for the rest of the heap, which has been returned too


@torch.no_grad()
def _evaluation_fits(engine: Engine) -> bool:
    """Return whether this rank has the memory to classify a block of images after a step."""
    data, device = engine.data, engine.accelerator.device
    images = data.validation if len(data.validation) else data.test
    first = torch.arange(min(engine.selection.block_samples, len(images)))

    def attempt() -> bool:
        with preserve_state(engine.module), seeding.preserve_generators():
            engine.module.eval()
            kept = _reserve(engine, divided=False)
            pixels, _ = images.fetch(first.to(images.images.device))
            engine.module(data.scaling.apply(pixels.to(device)))
            del kept
        return True

    return out_of_memory.fits(attempt)


def _is_possible(engine: Engine, batch: Batch, samples: int, free_bytes: float) -> bool:
    """Return false where a micro-batch of so many samples takes more than the host has.

    Linux gives memory that it does not have, and kills a process that uses it. So what the tensors
    of two and of three images take is measured, and compared with what is free for this process.

    Args:
        free_bytes: infinite where the memory is not the host's.
    """
    if math.isinf(free_bytes) or samples < 3:
        return True
    each = bytes_per_image(*(_alive_bytes(engine, batch, count) for count in (2, 3)))
    # The images themselves are there already.
    return (each - batch.images[0].nbytes) * samples <= free_bytes


def _alive_bytes(engine: Engine, batch: Batch, count: int) -> list[int]:
    """Return the bytes of all tensors after each operator of a micro-batch of a few samples."""
    step = engine.train_step
    sizes = [0] * len(batch.microbatch_sizes)
    sizes[step.own[0]] = count
    weights = None if batch.weights is None else batch.weights[:count]
    images = batch.images[:count].clone()
    with count_alive(images) as alive:
        step.compute_alone(images, batch.targets[:count], sizes, weights)
    return alive.bytes


def _with_larger_first(sizes: Sequence[int], own: range) -> list[int]:
    """Return sizes of the micro-batches, of which the first of a rank's own is larger."""
    found = list(sizes)
    more = min(sizes[own[0]] // 4, sizes[own[-1]])
    found[own[0]] += more
    found[own[-1]] -= more
    return found


def _reserve(engine: Engine, *, divided: bool) -> list[torch.Tensor]:
    """Take the memory of what is there beside a later step, and is not beside the trial's.

    That is the optimiser's state, the best weights, SAM's copy of the weights and further partial
    sums of gradients; and what a divided step leaves free.
    """
    device, step = engine.accelerator.device, engine.train_step
    trained_bytes = sum(parameter.nbytes for parameter in step.parameters)
    sizes_bytes: list[int] = []
    if trained_bytes > SMALL_BYTES:
        state, _ = next(states_after_a_step(engine.optimizer.optimizer))
        sizes_bytes += [tensor.nbytes for tensor in state.values()]
        if len(engine.data.validation):
            sizes_bytes.append(sum(tensor.nbytes for tensor in engine.module.state_dict().values()))
        sums = max(0, len(step.own).bit_length() - 2)  # beside the one that the trial has
        sizes_bytes += [trained_bytes] * (sums + (engine.config.train.sam_rho is not None))
    if divided:
        sizes_bytes.append(_spare_bytes(device))
    return [torch.empty(size, dtype=torch.uint8, device=device) for size in sizes_bytes]


def _spare_bytes(device: torch.device) -> int:
    """Return what a divided step leaves free: of a GPU a twentieth of what the process may have."""
    if device.type != "cuda":
        return SPARE_BYTES
    share = torch.cuda.get_per_process_memory_fraction(device)
    return int(share * torch.cuda.mem_get_info(device)[1]) // 20


def _largest_batch(engine: Engine) -> Batch:
    """Return the first batch of the first epoch that has the largest images."""

    def pixels(epoch: int) -> int:
        height, width = engine.batches.image_size(epoch)
        return height * width

    largest = max(range(1, engine.config.train.epochs + 1), key=pixels)
    with contextlib.closing(engine.batches.iter_epoch(largest, 0)) as made:
        return next(made)


@contextlib.contextmanager
def _as_in_epoch(engine: Engine, epoch: int) -> Iterator[None]:
    """Train inside what is trained in an epoch, and put everything back as before the first."""
    step, freezing = engine.train_step, engine.freezing
    with preserve_state(engine.module):
        freezing.set_epoch(epoch)
        step.choose_parameters(engine.module, freezing.frozen_norms())
        freezing.set_training_mode()
        try:
            yield
        finally:
            freezing.set_epoch(1)
            step.choose_parameters(engine.module, freezing.frozen_norms())
