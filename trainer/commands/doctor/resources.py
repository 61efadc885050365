"""Estimate the memory and disk space that a run needs, and compare them with what is free."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from trainer.commands.doctor.finding import Finding
from trainer.config.schema import RunConfig, folder_of
from trainer.data.dataset import Dataset
from trainer.data.sampling import microbatch_sizes
from trainer.network import model_state
from trainer.network.buffers_in_passes import preserve_state
from trainer.network.freezing import Freezing
from trainer.run.run_folder import nearest_folder
from trainer.training import evaluation_size, optimizers
from trainer.training.optimizer_state import states_after_a_step

if TYPE_CHECKING:
    from trainer.commands.doctor.rank_checks import RankReport

LESS_MEMORY = (
    "more train.microbatches make what is in work smaller, at the same train.batch_size, and a "
    "smaller train.evaluation_batch_size what is evaluated at once"
)


@dataclass(frozen=True)
class ResourceNeeds:
    """Roughly what a run takes, in bytes."""

    weights: int
    checkpoint: int
    """on the disk, each"""
    training: int
    """memory of a process in a step, besides the data and the model"""
    evaluation: int
    """the same in an evaluation"""

    @property
    def memory(self) -> int:
        """The larger of training and evaluation, as one comes after the other."""
        return max(self.training, self.evaluation)


def estimate(config: RunConfig, dataset: Dataset, model: nn.Module) -> ResourceNeeds:
    """Estimate what a run of this model takes."""
    weights = _size(model_state.tensors(model))
    num_classes = len(dataset.class_names)
    Freezing(model, config.train, num_classes).set_epoch(config.train.epochs)
    built = optimizers.build(config.optimizer, model, num_classes)
    optimizer, _ = next(states_after_a_step(built))
    averaged = config.train.ema_decay is not None or config.train.average_epochs is not None
    copies = 1 + (len(dataset.validation) > 0) + averaged  # the best weights, and the average
    checkpoint = copies * weights + _size(optimizer)
    assert config.train.microbatches is not None
    largest = microbatch_sizes(config.train.batch_size, config.train.microbatches)[0]
    with preserve_state(model), torch.random.fork_rng(devices=[]):
        activations = largest * _activation_bytes_per_image(model, dataset)
    # The gradients and their sum; the state of the run, and a copy of it while it is saved.
    throughout = 2 * weights + 2 * checkpoint
    evaluation = _evaluation_bytes(config, dataset, model)
    return ResourceNeeds(weights, checkpoint, throughout + activations, throughout + evaluation)


def _evaluation_bytes(config: RunConfig, dataset: Dataset, model: nn.Module) -> int:
    at_once = evaluation_size.block_samples(config.train, model, dataset.train)
    classified = max(len(dataset.validation), len(dataset.test))
    if config.train.average_epochs is not None:
        classified = max(classified, len(dataset.train))  # for the statistics of batch norm
    return evaluation_size.needed_bytes(min(at_once, classified), model, dataset.train)


def _activation_bytes_per_image(model: nn.Module, dataset: Dataset) -> int:
    """Measure what a forward pass keeps for the backward pass, without the weights."""
    model.train()  # not chained: a model's own version may return nothing
    kept = []
    for count in (2, 4):
        images = torch.zeros(count, *dataset.train.images.shape[1:])
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = functional.cross_entropy(model(images), torch.zeros(count, dtype=torch.int64))
        kept.append(sum(storages.values()))
        del loss  # until here the graph keeps the storages, so that no two share an address
    return max(0, kept[1] - kept[0]) // 2


def _size(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def check_disk(config: RunConfig, needs: ResourceNeeds, *, has_validation: bool) -> Finding:
    """Compare the free space with what the checkpoints take when there are most of them.

    These are `checkpoint.keep`, one that is being written, and the best epoch's if it is older.
    """
    path = folder_of(config)
    free = shutil.disk_usage(nearest_folder(path)).free
    most = config.checkpoint.keep + 1 + has_validation
    there = sum(file.stat().st_size for file in path.glob("checkpoints/step-*/*"))
    total = max(0, most * needs.checkpoint - there) + needs.weights
    text = (
        f"{path}: {format_bytes(free)} free; {most} checkpoints of "
        f"{format_bytes(needs.checkpoint)} and the weights take {format_bytes(total)}"
    )
    if free >= total:
        return Finding("disk", "ok", text)
    fails = config.checkpoint.on_error == "stop" or free < needs.weights
    advice = "make room, choose another output_dir, or keep fewer: checkpoint.keep"
    return Finding("disk", "problem" if fails else "warning", text, advice)


def check_memory(ranks: Sequence[RankReport]) -> list[Finding]:
    """Return a finding for the machine of rank 0, and for each other one with too little memory."""
    hosts = dict.fromkeys(rank.host for rank in ranks)
    found = [_check_host([rank for rank in ranks if rank.host == host]) for host in hosts]
    return [found[0], *(finding for finding in found[1:] if finding.state != "ok")]


def _check_host(ranks: Sequence[RankReport]) -> Finding:
    """Compare what its processes need besides their data and model, which they have by now."""
    free = min(rank.available_bytes for rank in ranks)
    taken = sum(rank.resident_bytes for rank in ranks)
    needed = sum(rank.needed_bytes for rank in ranks)
    text = f"{ranks[0].host}: {format_bytes(free)} free"
    if ranks[0].start is None:
        return Finding("memory", "ok", text)
    text += (
        f" besides the {format_bytes(taken)} that {len(ranks)} x program, data and model take; "
        f"training takes about {format_bytes(needed)} more, its evaluations included"
    )
    if needed <= free:
        return Finding("memory", "ok", text)
    advice = f"{LESS_MEMORY}; of a batch system, ask for more memory"
    return Finding("memory", "problem", text, advice)


def check_gpu_memory(needs: ResourceNeeds, device: torch.device) -> Finding:
    """Check that the training fits into a GPU; images that do not fit stay outside anyway."""
    free, _ = torch.cuda.mem_get_info(device)
    needed = needs.weights + needs.memory
    text = (
        f"{format_bytes(free)} free; model, training and evaluations take about "
        f"{format_bytes(needed)}"
    )
    if needed <= free:
        return Finding("GPU memory", "ok", text)
    return Finding("GPU memory", "problem", text, LESS_MEMORY)


def format_bytes(size_bytes: float) -> str:
    """Write a size in MB or GB."""
    if size_bytes < 1e8:
        return f"{size_bytes / 1e6:,.1f} MB"
    return f"{size_bytes / 1e9:,.1f} GB"
