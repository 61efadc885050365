"""The model of a new run; mistakes in its configuration become `UserError`s."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import models
from trainer import seeding, stored_scaling
from trainer.config import DataConfig, RunConfig
from trainer.data.sets import Dataset
from trainer.errors import UserError
from trainer.foreign_weights import how_to_convert, prefix_hint, surplus_prefix, without
from trainer.microbatch import cut
from trainer.ranks import processes
from trainer.tensor_files import Specs, mismatch, read_specs, read_tensors, specs_of

log = logging.getLogger("lockstep")

_SMALL_SIDE = 32
"""in pixels: some networks need so many"""


def build_model(config: RunConfig, dataset: Dataset) -> nn.Module:
    """The network with its first weights, tried on two images of the data set's shape.

    Args:
        config: with `train.microbatches` filled in.
        dataset: for the shape of the images, and their number.

    Raises:
        UserError: names `model.name` or `model.weights`, and what is wrong with it; or
            `train.batch_size`, where the network fails on the single image of a micro-batch.
    """
    name, arguments = config.model.name, config.model.args
    channels, height, width = dataset.train.images.shape[1:]
    num_classes, image_size = len(dataset.class_names), (height, width)

    def check(model: nn.Module, samples: int = 2) -> torch.Tensor:
        return models.check_output(
            model,
            num_classes=num_classes,
            in_channels=channels,
            image_size=image_size,
            samples=samples,
        )

    seeding.seed_torch(config.seed, "initialisation")
    try:
        model = models.create(
            name, arguments, num_classes=num_classes, in_channels=channels, image_size=image_size
        )
        logits = check(model)
    except ValueError as error:
        hint = " (--model.args '{}' clears those of the recipe)" if arguments else ""
        raise UserError(
            f"model.name, model.args: {error}{hint}{_size_hint(config.data, image_size)}"
        ) from error
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"model.name: {name} has no parameter that could be trained")
    _warn_of_probabilities(name, logits)
    if _smallest_microbatch(config, len(dataset.train)) == 1:
        try:
            check(model, samples=1)
        except ValueError as error:
            raise UserError(
                f"train.batch_size, train.microbatches: {config.train.batch_size} and "
                f"{config.train.microbatches} leave micro-batches of a single image of "
                f"{len(dataset.train)}, but {error}; choose another batch size"
            ) from error
    if config.model.weights is not None:
        load_weights(model, Path(config.model.weights))
    choose_layout(model, config.train.memory_format, check)
    return model


def _size_hint(data: DataConfig, image_size: tuple[int, int]) -> str:
    """Where pictures have become small, the key that makes them larger."""
    if data.name != "folder" or min(image_size) >= _SMALL_SIDE:
        return ""
    height, width = image_size
    chosen = "what it says" if data.image_size else "the training pictures' medians, shrunk"
    return (
        f" (data.image_size: the pictures are made {height} high and {width} wide, {chosen}; set "
        "it to a larger size)"
    )


def _warn_of_probabilities(name: str, logits: torch.Tensor) -> None:
    kind = models.kind_of_output(logits)
    if kind == "probabilities":
        log.warning(
            "model.name: %s seems to return probabilities, as after softmax; the loss takes logits "
            "and applies softmax itself, so it would learn slowly and badly: leave it out of the "
            "network",
            name,
        )
    elif kind is not None:
        log.warning(
            "model.name: %s seems to return log-probabilities, as after log_softmax; the loss "
            "applies it itself, so the network need not, and nothing is lost where it does",
            name,
        )


def memory_format(model: nn.Module) -> str:
    """How the filters lie in memory, for people."""
    filters = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    last = [weight.is_contiguous(memory_format=torch.channels_last) for weight in filters]
    # Filters of one channel or one pixel lie both ways.
    plain = [weight.is_contiguous() for weight in filters]
    return "channels_last" if all(last) and not all(plain) else "contiguous"


def choose_layout(model: nn.Module, wanted: str, check: Callable[[nn.Module], object]) -> None:
    """Convolutions are faster in channels_last: benchmarks/results/kernels.md.

    But a model that calls view() on their output, or on its gradient, cannot use it.
    """
    if wanted == "contiguous":
        return
    _set_layout(model, torch.channels_last)
    try:
        check(model)
    except ValueError as error:
        if wanted == "channels_last":
            raise UserError(
                f"train.memory_format: the model cannot use channels_last ({error}); use auto or "
                f"contiguous, or reshape() instead of view()"
            ) from error
        _set_layout(model, torch.contiguous_format)


def _smallest_microbatch(config: RunConfig, samples: int) -> int:
    """The size of the smallest micro-batch of an epoch that is not empty."""
    batch_size, microbatches = config.train.batch_size, config.train.microbatches
    assert microbatches is not None
    steps = {min(batch_size, samples), samples % batch_size}
    return min(size for step in steps for size in cut(step, microbatches) if size)


def _set_layout(model: nn.Module, layout: torch.memory_format) -> None:
    """As `model.to(memory_format=layout)`, which fails where a filter has five dimensions."""

    def lay(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(memory_format=layout) if tensor.ndim == 4 else tensor

    model._apply(lay)  # type: ignore[no-untyped-call]


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from a .safetensors file that names its parameters and buffers.

    A prefix that all names have, where they fit without it, is taken off, which is said.

    Raises:
        UserError: the file is missing or no safetensors file, or it does not fit the model.
    """
    try:
        file = path.resolve()  # a link that the user names is followed
        specs = stored_scaling.network_alone(_read_specs(file))
        expected = specs_of(model.state_dict())
        prefix = surplus_prefix(specs, expected)
        # Before the values, so that a file of another size costs no memory; types are converted.
        difference = mismatch(without(prefix, specs), expected, any_dtype=True)
        if difference:
            hint = prefix_hint(specs, expected)
            raise UserError(f"does not fit the model: it {difference}{hint}")
        tensors = read_tensors(file, specs)
        model.load_state_dict({name.removeprefix(prefix): one for name, one in tensors.items()})
    except (UserError, RuntimeError) as error:
        raise UserError(f"model.weights: {path}: {error}") from error
    if prefix and processes.launched_rank() == 0:
        log.warning("model.weights: %s: its names are taken without their prefix %r", path, prefix)


def _read_specs(file: Path) -> Specs:
    try:
        return read_specs(file)
    except UserError as error:
        advice = how_to_convert(file) if file.is_file() else None
        if advice is None:
            raise
        raise UserError(advice) from error
