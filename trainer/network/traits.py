"""What the passes of a model do to its tensors, found out on a build of it that is thrown away."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from trainer.base import seeding
from trainer.base.tensor_files import Tensors
from trainer.network.buffers import copies_of
from trainer.network.model_state import Traits, buffer_slots, check_parameters

SCALES = (1.0, 4.0)
"""of the parameters in the passes: a weight may be limited to a norm that it has not at first"""


def find(module: nn.Module, images: torch.Tensor, targets: torch.Tensor, seed: int) -> Traits:
    """Try two training passes, with one image less in the second, and an evaluation.

    Args:
        module: as built; it is of no use afterwards.
        images: scaled, (3, channels, height, width), on the module's device.
        targets: their classes.

    Raises:
        UserError: a pass puts other parameters in the place of those that are to be trained, or
            begins to train one that was frozen.
    """
    slots = buffer_slots(module)
    parameters = dict(module.named_parameters())
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    at_first = _shapes(module)
    before, in_training, shapes = copies_of(module), set[str](), []
    with seeding.preserve_generators():
        for number, scale in enumerate(SCALES):
            _disturb(parameters, scale)
            values = _values(parameters)
            size = len(images) - number
            before.put_back()
            module.train()
            seeding.seed_all(seed, "forward", 1, number)
            _pass(module, images[:size], targets[:size])
            check_parameters(module, parameters, trained)
            shapes.append(_shapes(module))
            in_training |= _changed(parameters, values)
            _put(parameters, values)
        before.put_back()
        elsewhere = _of_evaluation(module, parameters, images, seed)
    reshaped = {name for name in slots if any(found[name] != at_first[name] for found in shapes)}
    steady = {name for name in reshaped if len({found[name] for found in shapes}) == 1}
    return Traits(
        set_in_training=frozenset(in_training),
        set_elsewhere=frozenset(elsewhere),
        shapes={name: shape for name in steady if (shape := shapes[0][name]) is not None},
        passing=frozenset(reshaped - steady),
    )


@contextlib.contextmanager
def memory_filled() -> Iterator[None]:
    """Memory that nobody has initialised holds NaN inside, or the largest whole number."""
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


def _pass(module: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> None:
    logits = module(images.clone())
    F.cross_entropy(logits.float(), targets).backward()  # type: ignore[no-untyped-call]
    for parameter in module.parameters():
        parameter.grad = None


def _of_evaluation(
    module: nn.Module, parameters: dict[str, nn.Parameter], images: torch.Tensor, seed: int
) -> set[str]:
    """Parameters that change with the mode, as where an adapter is merged, or in an evaluation."""
    values, found = _values(parameters), set[str]()
    module.eval()
    found |= _changed(parameters, values)
    seeding.seed_all(seed, "evaluation", 0)
    with torch.no_grad():
        module(images.clone())
    found |= _changed(parameters, values)
    module.train()
    return found | _changed(parameters, values)


@torch.no_grad()
def _disturb(parameters: dict[str, nn.Parameter], scale: float) -> None:
    """Away from values such as 0, with which a change would not be seen."""
    for number, parameter in enumerate(parameters.values(), start=1):
        if parameter.is_floating_point() or parameter.is_complex():
            count = parameter.numel()
            steps = torch.arange(-3, 4, device=parameter.device).repeat(count // 7 + 1)[:count]
            # Each by an amount of its own: of two equal ones, one may follow the other.
            amount = 0.003 * (1 + number / len(parameters))
            parameter.mul_(scale).add_(steps.view(parameter.shape), alpha=amount)


def _values(parameters: dict[str, nn.Parameter]) -> Tensors:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@torch.no_grad()
def _put(parameters: dict[str, nn.Parameter], values: Tensors) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _changed(parameters: dict[str, nn.Parameter], values: Tensors) -> set[str]:
    return {
        name
        for name, parameter in parameters.items()
        if not torch.equal(parameter, values[name])  # which holds for most, and takes no memory
        and not torch.equal(torch.nan_to_num(parameter.detach()), torch.nan_to_num(values[name]))
    }


def _shapes(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype] | None]:
    buffers = {name: getattr(*slot) for name, slot in buffer_slots(module).items()}
    return {
        name: None if buffer is None else (buffer.shape, buffer.dtype)
        for name, buffer in buffers.items()
    }
