"""The model of a new run; mistakes in its configuration become `UserError`s.

`build_seeded` builds a network from its code and a seed, `build_model` the one that a run trains,
after a second build has been tried in its place, and `rebuild` one more like it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.parameter import is_lazy

import models
from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.config.schema import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.sampling import smallest_microbatch
from trainer.network import creation, memory_layout, model_state, starting_weights
from trainer.network.pass_effects import find_effects
from trainer.network.pretrained import PretrainedWeights
from trainer.network.weights_fit import Fit

log = logging.getLogger("lockstep")

_SMALL_SIDE = 32
"""in pixels: some networks need this many"""
_LARGE_SIDE = 224
"""in pixels: this many are enough for any of the usual networks"""


@dataclass(frozen=True)
class _Origin:
    """What `rebuild` has to know of a model."""

    first_pass: bool
    """whether a first pass made layers or buffers"""
    fit: Fit | None
    """of what came from `model.weights`"""
    layout: torch.memory_format


_ORIGINS: WeakKeyDictionary[nn.Module, _Origin] = WeakKeyDictionary()


def build_model(
    config: RunConfig, dataset: Dataset, weights: PretrainedWeights | None = None
) -> nn.Module:
    """Build the network with its first weights, and try a second build of it.

    Args:
        config: with `train.microbatches` filled in.
        dataset: for the shape of the images, their number and the names of the classes.
        weights: what model.weights names; None also where a checkpoint takes their place.

    Raises:
        UserError: names `model.name` or `model.weights`, and what is wrong with it; or
            `train.batch_size`, where the network fails on the single image of a micro-batch.
    """
    name, data, train = config.model.name, _data_of(dataset), config.train
    assert train.microbatches is not None
    model, tried, fit = _build_two(config, dataset, weights, first_pass=False)
    at_first = names_of(tried)
    try:
        logits = models.check_output(tried, **data)
    except ValueError as error:
        raise _refused(config, dataset, error) from error
    if first_pass := names_of(tried) != at_first:
        model, tried, fit = _build_two(config, dataset, weights, first_pass=True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"model.name: {name} has no parameter that could be trained")
    _warn_of_probabilities(name, logits)
    if smallest_microbatch(len(dataset.train), train.batch_size, train.microbatches) == 1:
        try:
            models.check_output(tried, **data, samples=1)
        except ValueError as error:
            raise UserError(
                f"train.batch_size, train.microbatches: {train.batch_size} and "
                f"{train.microbatches} leave micro-batches of a single image of "
                f"{len(dataset.train)}, but {error}; choose another batch size"
            ) from error
    _check_sizes(config, tried, data)
    layout = memory_layout.choose_layout(
        tried, train.memory_format, lambda net: models.check_output(net, **data)
    )
    memory_layout.set_layout(model, layout)
    pixels, targets = dataset.train.fetch(torch.arange(3) % len(dataset.train))
    effects = find_effects(tried, dataset.scaling.apply(pixels), targets, config.seed)
    model_state.remember_effects(model, effects)
    _ORIGINS[model] = _Origin(first_pass, fit, layout)
    return model


def _check_sizes(config: RunConfig, tried: nn.Module, data: Mapping[str, Any]) -> None:
    """Try the sizes that the images of a run have in turn.

    Raises:
        UserError: the network cannot take one of them.
    """
    for _, *size in config.data.image_size_schedule or []:
        height, width = size[0], size[-1]
        if (height, width) == data["image_size"]:  # tried already
            continue
        try:
            models.check_output(tried, **{**data, "image_size": (height, width)})
        except ValueError as error:
            raise UserError(
                f"data.image_size_schedule: {config.model.name} is built for images of "
                f"{data['image_size'][0]} x {data['image_size'][1]} pixels and cannot take "
                f"{height} x {width}: {error}; choose another size, a network that takes any, such "
                "as one with global pooling, or no schedule"
            ) from error


def rebuild(config: RunConfig, dataset: Dataset, model: nn.Module) -> nn.Module:
    """Build another network like the one that `build_model` returned, on the CPU.

    Args:
        model: with its first weights still.
    """
    origin = _ORIGINS[model]
    other = _build(config, dataset, origin.first_pass)
    if origin.fit:
        # A file may also have a buffer that follows the batch, which is not part of the state.
        weights = {**_all_tensors(model), **model_state.tensors(model)}
        changed = {*origin.fit.taken, *filter(None, [origin.fit.new_head])}
        taken = {name: weights[name] for name in changed}
        model_state.load(other, {**model_state.tensors(other), **taken})
    memory_layout.set_layout(other, origin.layout)
    model_state.remember_effects(other, model_state.effects_of(model))
    return other


def fit_of(model: nn.Module) -> Fit | None:
    """Return how `model.weights` fitted a model of `build_model`; None where there were none."""
    origin = _ORIGINS.get(model)
    return origin.fit if origin else None


def build_seeded(
    name: str,
    arguments: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
    *,
    first_pass: bool = False,
) -> nn.Module:
    """Build a network as its code makes it from a run's seed, before its first pass.

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
        if first_pass or any(map(is_lazy, _all_tensors(model).values())):
            models.check_output(model, **data)
    model_state.remember_initial(model)
    return model


def names_of(model: nn.Module) -> set[str]:
    """Return the names of the parameters and buffers that it has made so far."""
    return set(_all_tensors(model))


@contextlib.contextmanager
def fill_new_memory() -> Iterator[None]:
    """Fill memory that nothing initialises with NaN inside, or with the largest whole number."""
    mode, filled = torch.get_deterministic_debug_mode(), torch.utils.deterministic
    before = filled.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("warn")
    filled.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        filled.fill_uninitialized_memory = before  # type: ignore[attr-defined]
        torch.set_deterministic_debug_mode(mode)


def _build_two(
    config: RunConfig, dataset: Dataset, weights: PretrainedWeights | None, *, first_pass: bool
) -> tuple[nn.Module, nn.Module, Fit | None]:
    """Build the network twice, the second time in memory filled with NaN.

    Returns:
        Both, and how the weights fit them.

    Raises:
        UserError: it cannot be built, or the two differ.
    """
    model = _build(config, dataset, first_pass)
    with fill_new_memory():
        again = _build(config, dataset, first_pass)
    fit = None
    if weights is not None:
        start = starting_weights.read(model, weights, dataset.class_names)
        for each in (model, again):
            start.load_into(each)
        fit = start.fit
    _compare(config, model, again)
    return model, again, fit


def _build(config: RunConfig, dataset: Dataset, first_pass: bool) -> nn.Module:
    name, arguments, data = config.model.name, config.model.args, _data_of(dataset)
    try:
        return build_seeded(name, arguments, data, config.seed, first_pass=first_pass)
    except ValueError as error:
        raise _refused(config, dataset, error) from error


def _all_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by their names, whatever the model's own methods say."""
    return {
        f"{prefix}.{name}".removeprefix("."): tensor
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


def _compare(config: RunConfig, model: nn.Module, again: nn.Module) -> None:
    """Check that a second build has the same weights.

    Raises:
        UserError: another start of the run, or another process, would begin with other ones.
    """
    ours, theirs = _all_tensors(model), _all_tensors(again)
    # A buffer may begin as NaN; a parameter that does is what the memory was filled with.
    without_numbers = {
        name
        for name, tensor in ours.items()
        if isinstance(tensor, nn.Parameter) and bool(tensor.isnan().any())
    }
    differing = [
        name
        for name in ours.keys() - model_state.unsaved_buffers(model).keys()
        if name in without_numbers
        or name not in theirs
        or not model_state.same_bits(ours[name], theirs[name])
    ]
    if not differing:
        return
    name = min(differing, key=list(ours).index)
    more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
    if name in without_numbers:
        raise UserError(
            f"model.name: {name}{more} holds NaN when {config.model.name} is built, so nothing "
            f"could be learnt; give it numbers, with torch.nn.init for example"
        )
    text = (
        f"model.name: {name}{more} has other values each time that {config.model.name} is built "
        f"from one seed: it is never initialised, as with torch.empty, or drawn from a generator "
        f"of its own, from the time or from the system; initialise it, with torch.nn.init for "
        f"example, which draws from torch's generator"
    )
    if config.train.reduction == "exact":
        raise UserError(text)
    log.warning("%s", text)


def _refused(config: RunConfig, dataset: Dataset, error: ValueError) -> UserError:
    return creation.refused(config.model, error, _size_hint(config, dataset))


def _size_hint(config: RunConfig, dataset: Dataset) -> str:
    """Return the key that makes pictures larger, where they are too small for the network."""
    data = _data_of(dataset)
    height, width = data["image_size"]
    if not config.data.has_pictures or min(height, width) >= _SMALL_SIDE:
        return ""
    larger = data | {"image_size": (_LARGE_SIDE, _LARGE_SIDE)}
    try:
        network = build_seeded(config.model.name, config.model.args, larger, config.seed)
        models.check_output(network, **larger)
    except ValueError:  # it is not the size
        return ""
    chosen = "what it says" if config.data.image_size else "the training pictures' medians, shrunk"
    return (
        f" (data.image_size: the pictures are made {height} high and {width} wide, {chosen}; set "
        "it to a larger size)"
    )


def _warn_of_probabilities(name: str, logits: torch.Tensor) -> None:
    kind = models.kind_of_output(logits)
    advice = {
        "probabilities": "probabilities, as after softmax; the loss takes logits and applies "
        "softmax itself, so it would learn slowly and badly: leave it out of the network",
        "log-probabilities": "log-probabilities, as after log_softmax; the loss applies it itself, "
        "so the network does not need it, and nothing is lost where it has it",
    }
    if kind:
        log.warning("model.name: %s seems to return %s", name, advice[kind])
