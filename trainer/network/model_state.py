"""All that a model has to remember: what a checkpoint, an average and a comparison of bits see.

That is what torch's state_dict holds, and the buffers that it leaves out (`persistent=False`),
which a model may use as memory all the same. In a file such a buffer stands only where it is no
longer what the constructor makes of it, so that tables and masks take no room there. What a module
gives as its extra state is a tensor here too: JSON as bytes, where it was none.

A buffer that takes another shape with each size of a batch is a copy of something, and no memory:
it is left out everywhere.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.tensor_files import Specs, Tensors, tensor_specs

Slot = tuple[nn.Module, str]
"""a module and the name of an attribute of its own"""

AS_JSON = ":json"
"""after the name of what is no tensor in the state_dict"""


@dataclass(frozen=True)
class Traits:
    """What the passes of a model do to its tensors besides what its optimiser does."""

    set_in_training: frozenset[str] = frozenset()
    """parameters that a training pass sets"""
    set_elsewhere: frozenset[str] = frozenset()
    """parameters that change with the mode, or in an evaluation"""
    shapes: Mapping[str, tuple[torch.Size, torch.dtype]] = field(default_factory=dict)
    """of the buffers that a training pass gives a first or another shape, always the same one"""
    passing: frozenset[str] = frozenset()
    """buffers whose shape follows the batch"""
    first_pass: bool = False
    """whether its first pass makes layers or buffers that the constructor has not made"""


@dataclass(frozen=True)
class _Known:
    traits: Traits
    first: Tensors
    """copies of the buffers that state_dict leaves out, as the constructor made them"""


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def remember(module: nn.Module) -> None:
    """Take note of a model as it was built, before its first pass and before anything is loaded."""
    for owner, name in buffer_slots(module).values():
        buffer = owner._buffers[name]
        if buffer is not None and torch._debug_has_internal_overlap(buffer) == 1:
            setattr(owner, name, buffer.clone(memory_format=torch.contiguous_format))  # expanded
    first = {name: value.clone() for name, value in _unsaved(module).items()}
    _KNOWN[module] = _Known(Traits(), first)


def learn(module: nn.Module, traits: Traits) -> None:
    """Take note of what its passes do, of a model that is remembered."""
    _KNOWN[module] = replace(_KNOWN[module], traits=traits)


def traits_of(module: nn.Module) -> Traits:
    """What is known of a model's passes; nothing where it was not remembered."""
    known = _KNOWN.get(module)
    return known.traits if known else Traits()


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on a device, where modules that share a buffer still share it."""
    if device.type == "cpu":  # torch would copy to cpu:0 what is on the CPU
        return module
    with shared_kept(module):
        return module.to(device)


@contextlib.contextmanager
def shared_kept(module: nn.Module) -> Iterator[None]:
    """Modules that share a buffer still share it after whatever copies buffers inside."""
    slots = buffer_slots(module)
    groups = list(_shared(slots))
    yield
    for first, *others in groups:
        for name in others:
            setattr(*slots[name], getattr(*slots[first]))


def as_metadata(module: nn.Module) -> dict[str, list[str]]:
    """What a file says of the model's traits, for who loads it; nothing of an ordinary model."""
    traits = traits_of(module)
    found = {
        "set_parameters": traits.set_in_training | traits.set_elsewhere,
        "reshaped_buffers": traits.shapes.keys(),
        "passing_buffers": traits.passing,
    }
    return {key: sorted(names) for key, names in found.items() if names}


def from_metadata(found: Mapping[str, Any]) -> Traits:
    """The traits that matter for a model which is not trained."""
    return Traits(
        set_elsewhere=frozenset(found.get("set_parameters", ())),
        passing=frozenset(found.get("passing_buffers", ())),
    )


def tensors(module: nn.Module) -> Tensors:
    """The state: the live tensors by their names, detached.

    Raises:
        UserError: a module's extra state is neither a tensor nor JSON.
    """
    passing, found = traits_of(module).passing, {}
    for name, value in module.state_dict().items():
        if name in passing:
            continue
        if isinstance(value, torch.Tensor):
            found[name] = value
        else:
            found[name + AS_JSON] = _as_bytes(name, value)
    for name, value in _unsaved(module).items():
        if name not in passing:
            found[name] = value.detach()
    return found


def copied(module: nn.Module) -> Tensors:
    """The state in memory of its own."""
    return {name: tensor.detach().clone() for name, tensor in tensors(module).items()}


def to_write(module: nn.Module, state: Tensors | None = None) -> Tensors:
    """What of a state, by default the module's own, goes into a file and into a digest."""
    state = tensors(module) if state is None else state
    known = _KNOWN.get(module)
    unsaved = _unsaved(module).keys()
    if not unsaved:
        return state
    first = known.first if known else {}
    return {
        name: tensor
        for name, tensor in state.items()
        if name not in unsaved or name not in first or not same_bits(tensor, first[name])
    }


def load(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put a state back, one of `tensors` or of `to_write`.

    Raises:
        RuntimeError: it is no state of this model.
    """
    known = _KNOWN.get(module)
    slots = buffer_slots(module)
    complete = {**(known.first if known else {}), **state}
    _make_room(slots, complete, traits_of(module))
    own = module.state_dict()
    found = OrderedDict(
        (name, value) for name, value in state.items() if not name.endswith(AS_JSON)
    )
    for name, value in own.items():
        if name + AS_JSON in state:
            found[name] = json.loads(bytes(state[name + AS_JSON].cpu().tolist()))
        elif name in traits_of(module).passing:
            found[name] = value
    unsaved = _unsaved(module)
    # Some modules ask here which version of themselves has written it: it is this one.
    found._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    rest = [name for name in unsaved if name in found and name not in own]
    values = {name: found.pop(name) for name in rest}
    module.load_state_dict(found)
    with torch.no_grad():
        for name, buffer in unsaved.items():
            value = values.get(name, complete.get(name))
            if value is not None:
                buffer.copy_(value)


def expected(module: nn.Module, found: Specs, reshaped: frozenset[str] = frozenset()) -> Specs:
    """What a file of this model's state holds, where it is free to differ as `found` does.

    Args:
        found: of the file.
        reshaped: buffers whose shape the file decides, besides those that are known here.
    """
    specs = tensor_specs(tensors(module))
    slots, unsaved = buffer_slots(module), _unsaved(module).keys()
    for name in reshaped | traits_of(module).shapes.keys():
        if name in found and name in slots:
            specs[name] = found[name]
        else:
            specs.pop(name, None)
    for name in list(specs):
        if name.endswith(AS_JSON) and name in found:
            specs[name] = found[name]
    return {name: spec for name, spec in specs.items() if name in found or name not in unsaved}


def buffer_slots(module: nn.Module) -> dict[str, Slot]:
    """Where the buffers are, by their names; also those that have no value yet."""
    slots: dict[str, Slot] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for name, _ in owner._buffers.items():
            slots[f"{prefix}.{name}" if prefix else name] = (owner, name)
    return slots


def parameter_slots(module: nn.Module, names: frozenset[str]) -> dict[str, Slot]:
    """Where parameters of these names are."""
    if not names:
        return {}
    there = names & {name for name, _ in module.named_parameters()}
    places = {name: name.rpartition(".") for name in sorted(there)}
    return {name: (module.get_submodule(at), own) for name, (at, _, own) in places.items()}


def check_parameters(
    module: nn.Module, parameters: dict[str, nn.Parameter], trained: set[str]
) -> None:
    """After a pass: whether the optimiser still has the parameters that are to be trained.

    Args:
        parameters: before the pass, by their names.
        trained: names of those that required a gradient then.

    Raises:
        UserError: names the parameter.
    """
    now = dict(module.named_parameters())
    for name in dict.fromkeys([*parameters, *now]):
        if now.get(name) is not parameters.get(name):
            raise UserError(
                f"model.name: a forward pass puts another parameter in the place of {name}, which "
                f"the optimiser knows nothing of, so it would never be trained; change the values "
                f"of the one that is there, with torch.no_grad() and copy_()"
            )
        if now[name].requires_grad and name not in trained:
            raise UserError(
                f"model.name: a forward pass sets requires_grad of {name}, which was frozen when "
                f"the optimiser was built, so it would never be trained; thaw it in the constructor"
            )


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    both = [tensor.detach().to_dense().to(one.device).contiguous() for tensor in (one, other)]
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in both))


def _unsaved(module: nn.Module) -> Tensors:
    """The buffers that state_dict leaves out and that have a value."""
    found: Tensors = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for name in sorted(getattr(owner, "_non_persistent_buffers_set", ())):
            buffer = owner._buffers[name] if name in owner._buffers else None  # noqa: SIM401
            if buffer is not None:
                found[f"{prefix}.{name}" if prefix else name] = buffer
    return found


@torch.no_grad()
def _make_room(
    slots: Mapping[str, Slot], state: Mapping[str, torch.Tensor], traits: Traits
) -> None:
    """Give the buffers the shapes of a state, and memory of their own where it sets two apart."""
    for name in traits.shapes.keys() - state.keys():
        if name in slots:
            setattr(*slots[name], None)  # the state is from before its first pass
    for name, (owner, attribute) in slots.items():
        buffer, value = owner._buffers[attribute], state.get(name)
        if value is not None and (buffer is None or buffer.shape != value.shape):
            device = value.device if buffer is None else buffer.device
            setattr(owner, attribute, torch.empty_like(value, device=_device(slots, device)))
    for names in _shared(slots):
        values = [state[name] for name in names if name in state]
        if any(not same_bits(values[0], value) for value in values[1:]):
            for owner, attribute in (slots[name] for name in names):
                setattr(owner, attribute, getattr(owner, attribute).clone())


def _device(slots: Mapping[str, Slot], otherwise: torch.device) -> torch.device:
    for owner, _ in slots.values():
        for tensor in (*owner._parameters.values(), *owner._buffers.values()):
            if tensor is not None:
                return tensor.device
    return otherwise


def _shared(slots: Mapping[str, Slot]) -> Iterator[list[str]]:
    """The names of each tensor that is the buffer of several modules."""
    names: dict[int, list[str]] = {}
    seen: dict[int, set[int]] = {}
    for name, (owner, attribute) in slots.items():
        buffer = owner._buffers[attribute]
        # A module that has two names is one place all the same.
        if buffer is not None and id(owner) not in seen.setdefault(id(buffer), set()):
            seen[id(buffer)].add(id(owner))
            names.setdefault(id(buffer), []).append(name)
    return (group for group in names.values() if len(group) > 1)


def _as_bytes(name: str, value: Any) -> torch.Tensor:
    try:
        text = json.dumps(value)
        kept = json.loads(text) == value
    except (TypeError, ValueError):
        kept = False
    if not kept:
        raise UserError(
            f"model.name: {name}: the module's get_extra_state() gives a {type(value).__name__} "
            f"that no file can hold safely; it must be a tensor, or of texts, numbers, lists and "
            f"dictionaries alone"
        )
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
