"""Whether a run of a configuration finds its folder, its data and its model, and room for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from trainer.base.errors import UserError
from trainer.base.tensor_files import weights_sha256
from trainer.base.timeouts import run_with_timeout
from trainer.checkpoint.reading import open_checkpoint
from trainer.commands.doctor.finding import Finding, Findings
from trainer.config.schema import RunConfig, folder_of, own_augmentations_of, replace
from trainer.data import loading
from trainer.data.augment.user_augmentations import TRIED, OwnAugmentations
from trainer.data.dataset import Dataset
from trainer.data.sampling import microbatch_sizes
from trainer.data.sources import reading
from trainer.network import model_state
from trainer.network.buffers import left_alone
from trainer.network.new_model import build_model
from trainer.network.trial import trial
from trainer.ranks import processes
from trainer.run.run_folder import OpenedRun, RunFolder, nearest_folder
from trainer.run.tracking.trackers import Trackers
from trainer.training import evaluation_size, optimizers
from trainer.training.optimizer_state import state_after_a_step

HUB = ("timm:hf-hub:", "timm:hf_hub:")
"""before names of networks whose very layers are downloaded"""

FROM_HUB = (
    "a run gets it from the hub where the cache has not got it; where there is no network, get it "
    "here first"
)

UNSEEN = "neither the model nor what it takes was looked at"


@dataclass(frozen=True)
class Needs:
    """What a run takes, roughly."""

    weights_bytes: int
    checkpoint_bytes: int
    """of one checkpoint"""
    training_bytes: int
    """memory of a process in a step, besides the data and the model"""
    evaluation_bytes: int
    """the same in an evaluation"""

    @property
    def memory_bytes(self) -> int:
        """The larger of the two, as they come one after the other."""
        return max(self.training_bytes, self.evaluation_bytes)


@dataclass(frozen=True)
class Prepared:
    """What a rank would start with."""

    weights: str
    """digest"""
    images: str
    """fingerprint"""
    needs: Needs
    has_validation: bool
    trial: Callable[[], list[str]]
    """of the network, as a run does it before its first step; it may take long"""


def open_folder(config: RunConfig, count: int) -> OpenedRun:
    """What output_dir says about the run; nothing is changed in it.

    Args:
        count: how many processes there are.

    Raises:
        UserError: it cannot be written, is in use, or holds a run that is another; or the
            checkpoint to resume from is damaged.
    """
    folder = RunFolder(folder_of(config))
    folder.check_access()
    opened = folder.inspect(config, processes.default_pins(config, count))
    if config.resume not in ("auto", "none"):
        open_checkpoint(Path(config.resume))
    return opened


def prepare(config: RunConfig, findings: Findings) -> Prepared | None:
    """Read the data and build the model, as far as they are there.

    Args:
        config: with the pinned keys filled in.
    """
    dataset = findings.attempt("data", lambda: _load(config, findings))
    if dataset is None:
        return None
    if config.model.name.startswith(HUB):
        text = f"{config.model.name} is described by a hub, which was not asked"
        findings.append(Finding("model", "warning", text, f"{FROM_HUB}; {UNSEEN}"))
        return None
    arguments, advice = config.model.args, ""
    if arguments.get("pretrained"):
        # Nothing is downloaded here; sizes and memory are the same without.
        arguments, advice = arguments | {"pretrained": False}, FROM_HUB
    blank = replace(config, {"model.args": arguments})
    model = findings.attempt("model", lambda: build_model(blank, dataset))
    if model is None:
        return None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = f"{config.model.name}, {parameters:,} parameters"
    text += "; pretrained weights were not looked for" * bool(advice)
    findings.append(Finding("model", "ok", text, advice))
    weights = weights_sha256(model_state.to_write(model))
    wanted = findings.attempt("users' parts", lambda: _try_parts(config, dataset, model))
    if wanted is None:
        return None

    def try_network() -> list[str]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more than there are cores would make it slow
        try:
            return trial.of_run(blank, dataset, model, torch.device("cpu"))
        finally:
            torch.set_num_threads(threads)

    validates = len(dataset.validation) > 0
    return Prepared(weights, dataset.fingerprint, wanted, validates, try_network)


def try_network(prepared: Prepared, limit_s: float) -> Finding:
    """Whether the network gives the same bits on other processes, and resumed."""
    try:
        found = run_with_timeout(limit_s, prepared.trial)
    except UserError as error:
        return Finding("trial", "problem", str(error))
    except TimeoutError:
        text = f"not done within {limit_s:.0f} s; a run does it before its first step"
        return Finding("trial", "ok", text)
    return Finding("trial", "warning" if found else "ok", "; ".join(found) or trial.summary(found))


def _try_parts(config: RunConfig, dataset: Dataset, model: nn.Module) -> Needs:
    """What the run takes, after a trial of what of it is the user's own code."""
    Trackers().find(config)
    own = OwnAugmentations(own_augmentations_of(config.data.augment), config.seed)
    own.check(dataset.train.__getitems__(torch.arange(min(TRIED, len(dataset.train))))[0])
    return needs(config, dataset, model)


def _load(config: RunConfig, findings: Findings) -> Dataset | None:
    if lacking := reading.describe_missing(config.data):
        first = "a run would download them; where there is no network, get them here first"
        findings.append(Finding("data", "warning", lacking, f"{first}; without them {UNSEEN}"))
        return None
    if undecoded := reading.describe_undecoded(config.data):
        first = "the first start does it, or python -m trainer inspect-data"
        findings.append(Finding("data", "ok", undecoded, f"{first}; without it {UNSEEN}"))
        return None
    dataset = loading.load(config.data, config.seed)
    sizes = (
        f"{len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test"
    )
    findings.append(Finding("data", "ok", f"{dataset.name}, {sizes}, from {dataset.source}"))
    return dataset


def needs(config: RunConfig, dataset: Dataset, model: nn.Module) -> Needs:
    """What a run of this model takes."""
    weights = _size(model_state.tensors(model))
    optimizer, _ = state_after_a_step(optimizers.build(config.optimizer, model))
    averaged = config.train.ema_decay is not None or config.train.average_epochs is not None
    copies = 1 + (len(dataset.validation) > 0) + averaged  # the best weights, and the average
    checkpoint = copies * weights + _size(optimizer)
    assert config.train.microbatches is not None
    largest = microbatch_sizes(config.train.batch_size, config.train.microbatches)[0]
    with left_alone(model), torch.random.fork_rng(devices=[]):
        activations = largest * _activation_bytes_per_image(model, dataset)
    # The gradients and their sum; what is kept of the run, and a copy of it while it is saved.
    throughout = 2 * weights + 2 * checkpoint
    evaluation = _evaluation_bytes(config, dataset, model)
    return Needs(weights, checkpoint, throughout + activations, throughout + evaluation)


def _evaluation_bytes(config: RunConfig, dataset: Dataset, model: nn.Module) -> int:
    """What the largest block of an evaluation brings about."""
    at_once = evaluation_size.block_samples(config.train, model, dataset.train)
    classified = max(len(dataset.validation), len(dataset.test))
    if config.train.average_epochs is not None:
        classified = max(classified, len(dataset.train))  # for the statistics of batch norm
    return evaluation_size.needed_bytes(min(at_once, classified), model, dataset.train)


def _activation_bytes_per_image(model: nn.Module, dataset: Dataset) -> int:
    """What a forward pass keeps for the backward pass; of weights, which it keeps too, nothing."""
    model.train()  # whose own version may return nothing
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
        del loss  # until here the graph holds the storages, so that no two have one address
    return max(0, kept[1] - kept[0]) // 2


def disk(config: RunConfig, prepared: Prepared) -> Finding:
    """Free space for the checkpoints, against what they take when there are most of them.

    These are `checkpoint.keep`, one that is being written, and the best epoch's where it is older.
    """
    path = folder_of(config)
    free = shutil.disk_usage(nearest_folder(path)).free
    needed = prepared.needs
    most = config.checkpoint.keep + 1 + prepared.has_validation
    there = sum(file.stat().st_size for file in path.glob("checkpoints/step-*/*"))
    total = max(0, most * needed.checkpoint_bytes - there) + needed.weights_bytes
    text = (
        f"{path}: {gigabytes(free)} free; {most} checkpoints of "
        f"{gigabytes(needed.checkpoint_bytes)} and the weights take {gigabytes(total)}"
    )
    if free >= total:
        return Finding("disk", "ok", text)
    fails = config.checkpoint.on_error == "stop" or free < needed.weights_bytes
    advice = "make room, choose another output_dir, or keep fewer: checkpoint.keep"
    return Finding("disk", "problem" if fails else "warning", text, advice)


def gigabytes(size_bytes: float) -> str:
    """A size for people."""
    if size_bytes < 1e8:
        return f"{size_bytes / 1e6:,.1f} MB"
    return f"{size_bytes / 1e9:,.1f} GB"


def _size(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
