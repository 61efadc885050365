"""A model's state: all that a checkpoint, an average and a comparison of bits see of it.

It is what torch's state_dict holds, and the buffers that state_dict leaves out
(`persistent=False`), which a model may use as memory all the same. A file has such a buffer only
once it differs from what the constructor made, so that tables and masks take no room there. Extra
state of a module is a tensor here too: where it was not one, JSON as bytes. A buffer whose shape
follows the batch is a copy of something and not memory: it is left out everywhere.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.tensor_files import Specs, Tensors, tensor_specs, weights_sha256

Slot = tuple[nn.Module, str]
"""a module and the name of a tensor of it: getattr(*slot), setattr(*slot, tensor)"""

AS_JSON = ":json"
"""follows the name of extra state that is not a tensor"""


@dataclass(frozen=True)
class PassEffects:
    """What the passes of a model do to its tensors, apart from the optimiser."""

    set_in_training: frozenset[str] = frozenset()
    """parameters that a training pass sets"""
    set_in_evaluation: frozenset[str] = frozenset()
    """parameters that an evaluation or a change of the mode sets"""
    final_shapes: Mapping[str, tuple[torch.Size, torch.dtype]] = field(default_factory=dict)
    """of the buffers that get their only or another shape in a training pass, always the same"""
    follow_batch: frozenset[str] = frozenset()
    """buffers whose shape follows the batch"""


@dataclass
class _Known:
    initial: Tensors = field(default_factory=dict)
    """copies of the buffers that state_dict leaves out, as the constructor made them"""
    effects: PassEffects = PassEffects()


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def remember_initial(module: nn.Module) -> None:
    """Note the state of a model as it was built, before its first pass and before a load."""
    for owner, name in buffer_slots(module).values():
        buffer = owner._buffers[name]
        if buffer is not None and torch._debug_has_internal_overlap(buffer) == 1:
            setattr(owner, name, buffer.clone(memory_format=torch.contiguous_format))  # expanded
    _KNOWN[module] = _Known(
        {name: value.clone() for name, value in unsaved_buffers(module).items()}
    )


def remember_effects(module: nn.Module, effects: PassEffects) -> None:
    """Note what the passes of a model do."""
    _KNOWN[module].effects = effects


def effects_of(module: nn.Module) -> PassEffects:
    """Return what is known of a model's passes; empty if nothing was noted."""
    return _known(module).effects


def _known(module: nn.Module) -> _Known:
    return _KNOWN.get(module) or _Known()


def effects_to_metadata(module: nn.Module) -> dict[str, list[str]]:
    """Return what a file records of the model's passes: nothing for an ordinary model."""
    effects = effects_of(module)
    found = {
        "set_parameters": effects.set_in_training | effects.set_in_evaluation,
        "reshaped_buffers": effects.final_shapes.keys(),
        "passing_buffers": effects.follow_batch,
    }
    return {key: sorted(names) for key, names in found.items() if names}


def effects_from_metadata(found: Mapping[str, Any]) -> PassEffects:
    """Return the effects that matter for a model which is not trained."""
    return PassEffects(
        set_in_evaluation=frozenset(found.get("set_parameters", ())),
        follow_batch=frozenset(found.get("passing_buffers", ())),
    )


def tensors(module: nn.Module) -> Tensors:
    """Return the state: the live tensors by their names, detached.

    Raises:
        UserError: a module's extra state is neither a tensor nor JSON.
    """
    found: Tensors = {}
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            found[name] = value
        else:
            found[name + AS_JSON] = _json_to_bytes(name, value)
    found |= {name: buffer.detach() for name, buffer in unsaved_buffers(module).items()}
    return {name: found[name] for name in found if name not in effects_of(module).follow_batch}


def copy_tensors(module: nn.Module) -> Tensors:
    """Return a copy of the state."""
    return {name: tensor.detach().clone() for name, tensor in tensors(module).items()}


def tensors_to_write(module: nn.Module, state: Tensors | None = None) -> Tensors:
    """Return what of a state, by default the module's own, goes into a file and a digest."""
    state = tensors(module) if state is None else state
    initial, unsaved = _known(module).initial, unsaved_buffers(module)
    return {
        name: tensor
        for name, tensor in state.items()
        if name not in unsaved or name not in initial or not same_bits(tensor, initial[name])
    }


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of what goes into a file."""
    return weights_sha256(tensors_to_write(module))


def load(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put a state back that `tensors` or `tensors_to_write` gave.

    Raises:
        RuntimeError: it is not a state of this model.
    """
    known = _known(module)
    complete = {**known.initial, **state}
    _make_room(module, complete, known.effects)
    own, unsaved = module.state_dict(), unsaved_buffers(module)
    found = OrderedDict((k, own[k]) for k in own if k in known.effects.follow_batch)
    for name, value in state.items():
        if name.endswith(AS_JSON):
            found[name.removesuffix(AS_JSON)] = json.loads(bytes(value.cpu().tolist()))
        elif name in own or name not in unsaved:
            found[name] = value
    # Some modules ask here which version of themselves has written it: it is this one.
    found._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    module.load_state_dict(found)
    with torch.no_grad():
        for name, buffer in unsaved.items():
            if name in complete:
                buffer.copy_(complete[name])


def expected_specs(module: nn.Module, found: Specs, reshaped: Collection[str] = ()) -> Specs:
    """Return the specs of a file of this model's state, as `found` where a file may differ.

    Args:
        found: of the file.
        reshaped: buffers whose shape the file decides, besides those that are known here.
    """
    specs = tensor_specs(tensors(module))
    slots, unsaved = buffer_slots(module), unsaved_buffers(module)
    for name in (*effects_of(module).final_shapes, *reshaped):
        specs.pop(name, None)
        if name in found and name in slots:
            specs[name] = found[name]
    specs |= {name: found[name] for name in specs if name.endswith(AS_JSON) and name in found}
    return {name: spec for name, spec in specs.items() if name in found or name not in unsaved}


def move(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module on a device, where modules that share a buffer still share it."""
    if device.type == "cpu":  # torch would copy to cpu:0 what is on the CPU
        return module
    with keep_shared_buffers(module):
        return module.to(device)


@contextlib.contextmanager
def keep_shared_buffers(module: nn.Module) -> Iterator[None]:
    """Let modules that share a buffer still share it after what copies buffers inside."""
    slots = buffer_slots(module)
    groups = _shared(slots)
    yield
    for first, *others in groups:
        for name in others:
            setattr(*slots[name], getattr(*slots[first]))


def buffer_slots(module: nn.Module, parameters: Collection[str] = ()) -> dict[str, Slot]:
    """Return where the buffers are, also those without a value, and where these parameters are."""
    slots: dict[str, Slot] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        start = f"{prefix}." if prefix else ""
        slots |= {start + name: (owner, name) for name, _ in owner._buffers.items()}
        if parameters:
            own = {start + name: (owner, name) for name, _ in owner._parameters.items()}
            slots |= {name: slot for name, slot in own.items() if name in parameters}
    return slots


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have the same type, shape and bits."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    both = [tensor.detach().to_dense().to(one.device).contiguous() for tensor in (one, other)]
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in both))


def unsaved_buffers(module: nn.Module) -> Tensors:
    """Return the buffers that state_dict leaves out and that have a value."""
    return {
        name: buffer
        for name, (owner, attribute) in buffer_slots(module).items()
        if attribute in getattr(owner, "_non_persistent_buffers_set", ())
        and (buffer := owner._buffers[attribute]) is not None
    }


@torch.no_grad()
def _make_room(module: nn.Module, state: Mapping[str, torch.Tensor], effects: PassEffects) -> None:
    """Give the buffers the shapes of a state, and separate memory where it has two values."""
    slots = buffer_slots(module)
    for name in effects.final_shapes.keys() - state.keys():
        if name in slots:
            setattr(*slots[name], None)  # the state is from before its first pass
    some = next(itertools.chain(module.parameters(), module.buffers()), None)
    for name, (owner, attribute) in slots.items():
        buffer, value = owner._buffers[attribute], state.get(name)
        if value is not None and (buffer is None or buffer.shape != value.shape):
            like = value if some is None else some
            setattr(owner, attribute, torch.empty_like(value, device=like.device))
    for names in _shared(slots):
        values = [state[name] for name in names if name in state]
        if any(not same_bits(values[0], value) for value in values[1:]):
            for owner, attribute in (slots[name] for name in names):
                setattr(owner, attribute, getattr(owner, attribute).clone())


def _shared(slots: Mapping[str, Slot]) -> list[list[str]]:
    """Return the names of each tensor that is the buffer of several modules."""
    names: dict[int, dict[int, str]] = {}
    for name, (owner, attribute) in slots.items():
        buffer = owner._buffers[attribute]
        if buffer is not None:  # a module that has two names is one place all the same
            names.setdefault(id(buffer), {}).setdefault(id(owner), name)
    return [list(group.values()) for group in names.values() if len(group) > 1]


def _json_to_bytes(name: str, value: Any) -> torch.Tensor:
    try:
        text = json.dumps(value)
        if json.loads(text) == value:
            return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    except (TypeError, ValueError):
        pass  # the same message
    raise UserError(
        f"model.name: {name}: get_extra_state() of the module returns a {type(value).__name__} "
        f"that no file can hold safely; it must be a tensor, or consist of texts, numbers, lists "
        f"and dictionaries only"
    )
