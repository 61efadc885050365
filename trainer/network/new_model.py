"""The model of a new run; mistakes in its configuration become `UserError`s."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

import models
from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.config.schema import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.sampling import microbatch_sizes
from trainer.network import creation, model_state, traits
from trainer.network.starting_weights import load_weights

log = logging.getLogger("lockstep")

_SMALL_SIDE = 32
"""in pixels: some networks need so many"""
_LARGE_SIDE = 224
"""in pixels: so many are enough for any of the usual networks"""


def build_model(config: RunConfig, dataset: Dataset) -> nn.Module:
    """The network with its first weights, after others of the same kind have been tried.

    Args:
        config: with `train.microbatches` filled in.
        dataset: for the shape of the images, and their number.

    Raises:
        UserError: names `model.name` or `model.weights`, and what is wrong with it; or
            `train.batch_size`, where the network fails on the single image of a micro-batch.
    """
    tried = create(config, dataset, says_prefix=True)
    at_first = names_of(tried)

    def check(samples: int = 2) -> torch.Tensor:
        return models.check_output(tried, **_data_of(dataset), samples=samples)

    try:
        logits = check()
    except ValueError as error:
        raise _refused(config, dataset, error) from error
    first_pass = names_of(tried) != at_first
    model = create(config, dataset, first_pass=first_pass)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"model.name: {config.model.name} has no parameter that could be trained")
    _warn_of_probabilities(config.model.name, logits)
    if smallest_microbatch(config, len(dataset.train)) == 1:
        try:
            check(samples=1)
        except ValueError as error:
            raise UserError(
                f"train.batch_size, train.microbatches: {config.train.batch_size} and "
                f"{config.train.microbatches} leave micro-batches of a single image of "
                f"{len(dataset.train)}, but {error}; choose another batch size"
            ) from error
    set_layout(model, choose_layout(tried, config.train.memory_format, lambda _: check()))
    with traits.memory_filled():
        again = create(config, dataset, first_pass=first_pass)
    _compare(config, model, again)
    pixels, targets = dataset.train.__getitems__(torch.arange(3) % len(dataset.train))
    found = traits.find(again, dataset.scaling.apply(pixels), targets, config.seed)
    model_state.learn(model, replace(found, first_pass=first_pass))
    return model


def create(
    config: RunConfig, dataset: Dataset, *, first_pass: bool = False, says_prefix: bool = False
) -> nn.Module:
    """The network with its first weights; the same whenever it is called.

    Args:
        first_pass: as for `construct`.
        says_prefix: as for `load_weights`.

    Raises:
        UserError: as `build_model`.
    """
    try:
        name, arguments, seed = config.model.name, config.model.args, config.seed
        model = construct(name, arguments, _data_of(dataset), seed, first_pass=first_pass)
    except ValueError as error:
        raise _refused(config, dataset, error) from error
    if config.model.weights is not None:
        load_weights(model, Path(config.model.weights), says_prefix=says_prefix)
    return model


def twin(config: RunConfig, dataset: Dataset, model: nn.Module) -> nn.Module:
    """Another network that is as the run's was when `build_model` returned it, on the CPU."""
    other = create(config, dataset, first_pass=model_state.traits_of(model).first_pass)
    if memory_format(model) == "channels_last":
        set_layout(other, torch.channels_last)
    model_state.learn(other, model_state.traits_of(model))
    return other


def construct(
    name: str,
    arguments: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
    *,
    first_pass: bool = False,
) -> nn.Module:
    """A network as its code makes it from a run's seed, before its first pass.

    Args:
        data: num_classes, in_channels and image_size.
        first_pass: let it have one, as it makes layers or buffers there; one with lazy layers has
            it anyway.

    Raises:
        ValueError: it cannot be built, or a lazy one fails.
    """
    with seeding.preserve_other_generators():
        seeding.seed_all(seed, "initialisation")
        model = creation.create(name, arguments, **data)
        if first_pass or any(map(is_lazy, _own_tensors(model).values())):
            models.check_output(model, **data)
    model_state.remember(model)
    return model


def names_of(model: nn.Module) -> set[str]:
    """Of its parameters and buffers, as far as it has made them."""
    return set(_own_tensors(model))


def _own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by their names, whatever the model's own methods say of them."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, part in model.named_modules(remove_duplicate=False)
        for name, tensor in (*part._parameters.items(), *part._buffers.items())
        if tensor is not None
    }


def _data_of(dataset: Dataset) -> dict[str, Any]:
    channels, height, width = dataset.train.images.shape[1:]
    return {
        "num_classes": len(dataset.class_names),
        "in_channels": channels,
        "image_size": (height, width),
    }


def _refused(config: RunConfig, dataset: Dataset, error: ValueError) -> UserError:
    hint = " (--model.args '{}' clears those of the recipe)" if config.model.args else ""
    return UserError(f"model.name, model.args: {error}{hint}{_size_hint(config, dataset)}")


def _compare(config: RunConfig, model: nn.Module, again: nn.Module) -> None:
    """Whether a second build has the same weights.

    Raises:
        UserError: another start of the run, or another process, would begin with other ones.
    """
    ours, theirs = model.state_dict(), again.state_dict()
    parameters = dict(model.named_parameters()).keys()
    differing = [
        name
        for name, value in ours.items()
        if isinstance(value, torch.Tensor)
        and (name not in theirs or not torch.equal(value, theirs[name]))
        # A buffer may begin as no number; a parameter that does is what the memory was filled with.
        and not (
            name not in parameters and name in theirs and _both_not_numbers(value, theirs[name])
        )
    ]
    if not differing:
        return
    name = differing[0]
    more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
    if name in parameters and bool(ours[name].isnan().any()):
        raise UserError(
            f"model.name: {name}{more} holds NaN when {config.model.name} is built, so nothing "
            f"could be learnt; give it numbers, by torch.nn.init for one"
        )
    text = (
        f"model.name: {name}{more} has other values each time that {config.model.name} is built "
        f"from one seed: it is never initialised, as with torch.empty, or drawn from a generator "
        f"of the network's own, from the time or from the system; initialise it, by torch.nn.init "
        f"for one, which draws from torch's generator"
    )
    if config.train.reduction == "exact":
        raise UserError(text)
    log.warning("%s", text)


def _both_not_numbers(one: torch.Tensor, other: torch.Tensor) -> bool:
    if not one.is_floating_point() or one.shape != other.shape:
        return False
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(
        one.nan_to_num(), other.nan_to_num()
    )


def _size_hint(config: RunConfig, dataset: Dataset) -> str:
    """Where pictures have become too small for the network, the key that makes them larger."""
    data = _data_of(dataset)
    height, width = data["image_size"]
    if config.data.name != "folder" or min(height, width) >= _SMALL_SIDE:
        return ""
    larger = data | {"image_size": (_LARGE_SIDE, _LARGE_SIDE)}
    try:
        models.check_output(
            construct(config.model.name, config.model.args, larger, config.seed), **larger
        )
    except ValueError:  # it is not the size
        return ""
    chosen = "what it says" if config.data.image_size else "the training pictures' medians, shrunk"
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


def choose_layout(
    model: nn.Module, wanted: str, check: Callable[[nn.Module], object]
) -> torch.memory_format:
    """Convolutions are faster in channels_last: benchmarks/results/kernels.md.

    But a model that calls view() on their output, or on its gradient, cannot use it.

    Returns:
        What the model has now.
    """
    if wanted == "contiguous":
        return torch.preserve_format
    set_layout(model, torch.channels_last)
    try:
        check(model)
    except ValueError as error:
        if wanted == "channels_last":
            raise UserError(
                f"train.memory_format: the model cannot use channels_last ({error}); use auto or "
                f"contiguous, or reshape() instead of view()"
            ) from error
        set_layout(model, torch.contiguous_format)
        return torch.contiguous_format
    return torch.channels_last


def smallest_microbatch(config: RunConfig, samples: int) -> int:
    """The size of the smallest micro-batch of an epoch that is not empty."""
    batch_size, microbatches = config.train.batch_size, config.train.microbatches
    assert microbatches is not None
    steps = {min(batch_size, samples), samples % batch_size}
    return min(size for step in steps for size in microbatch_sizes(step, microbatches) if size)


def set_layout(model: nn.Module, layout: torch.memory_format) -> None:
    """Let filters and images of filters lie so in memory."""
    # As `model.to(memory_format=layout)`, which fails where a filter has five dimensions.

    def lay(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(memory_format=layout) if tensor.ndim == 4 else tensor

    with model_state.shared_kept(model):
        model._apply(lay)  # type: ignore[no-untyped-call]
