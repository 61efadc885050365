"""Try a network before training."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parameter import is_lazy

from models.construct import describe, is_user_file, place_of

Result = TypeVar("Result")

TOLERANCE = 1e-3
"""of a sum of probabilities"""


def check_output(
    model: nn.Module,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    samples: int = 2,
    backward: bool = True,
) -> torch.Tensor:
    """Run black images through the network, forward and backward, and check the output.

    Training flags, buffers, gradients and torch's generators are afterwards as they were before.
    Only lazy layers change: they learn their shapes and draw their weights.

    Args:
        model: on any device.
        num_classes: the number of logits that the network should return for an image.
        image_size: height and width in pixels.
        backward: whether it has to have gradients, as for training.

    Returns:
        The logits of the images in evaluation, (samples, num_classes).

    Raises:
        ValueError: a pass fails, the network returns no floating-point (samples, num_classes), its
            parameters have no part in it, or are of a kind that cannot be trained here.
    """
    parameters = _parameters(model)
    device = parameters[0].device if parameters else torch.device("cpu")
    images = torch.zeros(samples, in_channels, *image_size, device=device)
    shape = tuple(images.shape)
    found = []
    for training in (False, True):
        mode = "in training, " if training else ""
        with _unchanged(model, device), torch.set_grad_enabled(training and backward):
            doing = f"fails {mode}on images of shape {shape}"
            call = functools.partial(_forward, model, training, images)
            logits = _attempt(model, doing, call)
            _check_logits(name_of(model), mode, logits, shape, (samples, num_classes))
            assert isinstance(logits, torch.Tensor)
            found.append(logits.detach())
            if torch.is_grad_enabled() and any(p.requires_grad for p in _parameters(model)):
                _check_backward(model, logits, images)
    _check_state(model)
    return found[0]


def kind_of_output(logits: torch.Tensor) -> str | None:
    """Return what the values show a network to return instead of logits, or None.

    Args:
        logits: (n, classes), of any images.
    """
    values = logits.double()
    if values.shape[1] < 2 or not bool(values.isfinite().all()):
        return None
    for kind, shares in {"probabilities": values, "log-probabilities": values.exp()}.items():
        sums = shares.sum(1)
        if bool((shares >= 0).all()) and bool(((sums - 1).abs() < TOLERANCE).all()):
            return kind
    return None


def name_of(model: nn.Module) -> str:
    """Return the name of the network's class, also of one that torch has compiled."""
    inner = getattr(model, "_orig_mod", model)
    name: str = getattr(inner, "original_name", type(inner).__name__)
    return name


def _forward(model: nn.Module, training: bool, images: torch.Tensor) -> object:
    model.train(training)  # whose own version may return nothing
    return model(images)


def _attempt(model: nn.Module, doing: str, call: Callable[[], Result]) -> Result:
    """Return what `call` returns; an error in the network's code becomes a ValueError."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        text = describe(error)
        raise ValueError(f"{name_of(model)} {doing}: {text}") from error


def _parameters(model: nn.Module) -> list[torch.Tensor]:
    found: list[torch.Tensor] = _attempt(
        model, "fails in parameters()", lambda: list(model.parameters())
    )
    for parameter in found:
        if not isinstance(parameter, torch.Tensor):
            raise ValueError(
                f"{name_of(model)}: its parameters() gives a {type(parameter).__name__}; it must "
                f"give the parameters themselves, as torch.nn.Module's own does."
            )
    return found


def _check_logits(
    name: str, mode: str, logits: object, shape: tuple[int, ...], wanted: tuple[int, int]
) -> None:
    if not isinstance(logits, torch.Tensor):
        found = f"a {type(logits).__name__}"
    elif tuple(logits.shape) != wanted or not logits.is_floating_point():
        found = f"a tensor of shape {tuple(logits.shape)} and type {logits.dtype}"
    else:
        return
    must = f"it must be a floating-point tensor of shape {wanted}, a logit for each class."
    raise ValueError(f"{name} returns {mode}{found} for images of shape {shape}; {must}")


def _check_backward(model: nn.Module, logits: torch.Tensor, images: torch.Tensor) -> None:
    """Compute gradients, as the training will, and check them."""
    name, shape = name_of(model), tuple(images.shape)
    if not logits.requires_grad:
        raise ValueError(
            f"{name} returns in training what has no gradient, so nothing could be learnt; leave "
            f"torch.no_grad(), torch.inference_mode() and detach() out of what leads to the logits."
        )
    parameters = list(model.named_parameters())
    before = [parameter.grad for _, parameter in parameters]
    targets = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    try:
        cross_entropy(logits.float(), targets).backward()  # type: ignore[no-untyped-call]
        sparse = [n for n, p in parameters if p.grad is not None and p.grad.layout != torch.strided]
    except (Exception, SystemExit) as error:
        text = describe(error)
        if place_of(error) is None and (place := _place_in_forward(model, images)):
            text += f" ({place})"
        raise ValueError(f"{name} fails in the backward pass of images of shape {shape}: {text}") \
            from error  # fmt: skip
    finally:
        for (_, parameter), gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
    if sparse:
        raise ValueError(
            f"{name}: the gradient of its parameter {sparse[0]} is sparse, and only dense ones can "
            f"be added up; leave sparse=True out."
        )


def _place_in_forward(model: nn.Module, images: torch.Tensor) -> str | None:
    """Return the user's line that a failing backward pass comes from: torch's errors omit it."""
    targets = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.autograd.detect_anomaly(check_nan=False):
                logits: torch.Tensor = model(images)
                cross_entropy(logits.float(), targets).backward()  # type: ignore[no-untyped-call]
        except Exception:
            pass  # the same again
    text = "\n".join(str(warning.message) for warning in caught)
    places = re.findall(r'File "(.+)", line (\d+)', text)
    own = [place for place in places if is_user_file(place[0])]
    return f"{Path(own[-1][0]).name}, line {own[-1][1]}" if own else None


def _check_state(model: nn.Module) -> None:
    """Refuse complex numbers: digests are of floating-point tensors, and sums of real numbers."""
    state = _attempt(model, "fails in state_dict()", lambda: dict(model.state_dict()))
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.is_complex():
            raise ValueError(
                f"{name_of(model)}: {name} holds complex numbers ({value.dtype}), which optimisers "
                f"and digests here do not know; keep torch.view_as_real of them, and make them "
                f"complex in forward() by torch.view_as_complex."
            )


@contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put training flags, buffers and the generators back at the end."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is None or not is_lazy(buffer)
    ]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, training in flags:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                _put_back(module, name, buffer, value)


def _put_back(
    module: nn.Module, name: str, buffer: torch.Tensor | None, value: torch.Tensor | None
) -> None:
    if buffer is not None and value is not None:
        if buffer.shape == value.shape:
            buffer.copy_(value)
        else:  # it was resized
            buffer = value
    if getattr(module, name) is not buffer:
        setattr(module, name, buffer)
