"""What happens to a model's buffers, such as batch norm's running statistics, in a pass.

A parameter that a pass sets by itself, such as a weight that is normalised in place or a teacher
that follows the weights, is treated as a buffer.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterable, Iterator

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.flat_tensors import copy_all, group_by_type, layout, pack, unpack
from trainer.network.model_state import Slot, buffer_slots, effects_of


class _Strides:
    """How tensors lie in memory: an assignment in a pass may change it, and no file has it.

    Kernels are chosen by it, so rounding depends on it.
    """

    def __init__(self, slots: Iterable[Slot]) -> None:
        tensors = [(slot, getattr(*slot)) for slot in slots]
        self.strides = [(s, t.shape, t.stride()) for s, t in tensors if t is not None]

    def restore(self) -> None:
        """Lay tensors of the same shape out as before, with the values that they have now."""
        for slot, shape, stride in self.strides:
            tensor = getattr(*slot)
            if tensor is not None and tensor.shape == shape and tensor.stride() != stride:
                _lay_out(tensor, stride)


@torch.no_grad()
def _lay_out(tensor: torch.Tensor, stride: tuple[int, ...]) -> None:
    value = tensor.detach()
    tensor.data = torch.empty_strided(
        value.shape, stride, dtype=value.dtype, device=value.device
    ).copy_(value)


class SavedValues:
    """Values of buffers and parameters, and which tensors they were, to be put back.

    Args:
        slots: some of them may have no value.
    """

    @torch.no_grad()
    def __init__(self, slots: Iterable[Slot]) -> None:
        self.objects = [(slot, getattr(*slot)) for slot in slots]
        self.tensors = [tensor for _, tensor in self.objects if tensor is not None]
        self.forms = [(tensor.shape, tensor.stride()) for tensor in self.tensors]
        self.layout = layout(self.tensors)
        self.values = pack(self.tensors)

    @functools.cached_property
    def _copies(self) -> list[tuple[list[torch.Tensor], ...]]:
        """The tensors and the values that they had, by their types."""
        return list(group_by_type(self.tensors, unpack(self.values, self.layout)))

    @torch.no_grad()
    def restore(self) -> None:
        """Put the same tensors back, with the shapes and values that they had."""
        for slot, tensor in self.objects:
            if getattr(*slot) is not tensor:
                setattr(*slot, tensor)
        for tensor, (shape, stride) in zip(self.tensors, self.forms, strict=True):
            if tensor.shape != shape:
                tensor.resize_(shape)
            if tensor.stride() != stride:
                _lay_out(tensor, stride)
        for tensors, values in self._copies:
            torch._foreach_copy_(tensors, values)


def save_values(module: nn.Module) -> SavedValues:
    """Save all that an evaluation may change: the buffers, and parameters that a pass sets."""
    effects = effects_of(module)
    return SavedValues(_slots(module, effects.set_in_training | effects.set_in_evaluation).values())


@contextlib.contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Put the modes and buffers back that a module had before."""
    modes = [(part, part.training) for part in module.modules()]
    before = save_values(module)
    try:
        yield
    finally:
        if module.training != modes[0][1]:
            module.train(modes[0][1])
        for part, training in modes:
            part.training = training
        before.restore()


class StepBuffers:
    """Gives every micro-batch the values from before the step, and the step what they made of them.

    A floating-point buffer moves by the mean of the micro-batches' changes, weighted by their
    samples. Any other (batch norm's count of steps) becomes what the first micro-batch made of it,
    as does one that gets its first value or its final shape. A buffer whose shape follows the batch
    is the same after the step as before.

    Args:
        module: its buffers are looked up each time, as a forward pass may put another tensor in a
            buffer's place.
        frozen: modules whose own buffers no pass changes.
    """

    def __init__(self, module: nn.Module, frozen: Collection[nn.Module] = ()) -> None:
        self.effects = effects_of(module)
        still = set(map(id, frozen))
        slots = _slots(module, self.effects.set_in_training)
        self.slots = {name: slot for name, slot in slots.items() if id(slot[0]) not in still}
        self.strides = _Strides(self.slots.values())

    def start_step(self) -> None:
        """Note the values from before a step."""
        slots, effects = dict(self.slots), self.effects
        self.follow_batch = SavedValues(
            [slots.pop(name) for name in effects.follow_batch if name in slots]
        )
        self.shaped = [
            (name, slots.pop(name), shape, dtype)
            for name, (shape, dtype) in sorted(effects.final_shapes.items())
            if name in slots and _shape(slots[name]) != shape
        ]
        values = {name: getattr(*slot) for name, slot in slots.items()}
        slots = {name: slot for name, slot in slots.items() if values[name] is not None}
        self.saved = SavedValues([*slots.values(), *(slot for _, slot, _, _ in self.shaped)])
        self.shapes = {name: values[name].shape for name in slots}
        self.averaged, self.others = (
            {name: slot for name, slot in slots.items() if _is_averaged(values[name]) is averaged}
            for averaged in (True, False)
        )
        with torch.no_grad():
            # No change could be counted from infinity, where a plug-in may start.
            self.start = [
                torch.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)
                for vector in pack([values[name] for name in self.averaged])
            ]

    def restore(self) -> None:
        """Put the values from before the step back."""
        self.saved.restore()
        self.follow_batch.restore()

    def restore_strides(self) -> None:
        """Lay the tensors out in memory as at the start of the run."""
        self.strides.restore()

    def current(self) -> dict[str, torch.Tensor]:
        """Return the values as they are now, by their names."""
        slots = {**self.averaged, **self.others, **{name: slot for name, slot, *_ in self.shaped}}
        values = {name: getattr(*slot) for name, slot in slots.items()}
        return {name: value for name, value in values.items() if value is not None}

    @torch.no_grad()
    def changes(self, weight: float, first: bool) -> list[torch.Tensor]:
        """Return a micro-batch's parts of the sums that `finish` takes: vectors.

        Args:
            weight: its share of the step's samples.

        Raises:
            UserError: a buffer has another shape than before.
        """
        averaged = pack(self._values(self.averaged))
        taken = pack([value.to(torch.int64) for value in self._values(self.others)])
        taken += [self._shaped(*shaped, made=weight > 0) for shaped in self.shaped]
        if weight == 0:  # a factor would not do: 0 * infinity is not a number
            changed = [torch.zeros_like(vector) for vector in averaged]
        else:
            changed = [(now - old) * weight for now, old in zip(averaged, self.start, strict=True)]
        return changed + (taken if first else [torch.zeros_like(vector) for vector in taken])

    @torch.no_grad()
    def finish(self, sums: list[torch.Tensor]) -> None:
        """Set the values after the step from the sums over all micro-batches."""
        self.follow_batch.restore()
        averaged, others = self._values(self.averaged), self._values(self.others)
        moved = [old + change for old, change in zip(self.start, sums, strict=False)]
        copy_all(averaged, unpack(moved, layout(averaged)))
        rest = sums[len(moved) :]
        if others:
            counted = [(torch.int64, value.shape) for value in others]
            copy_all(others, unpack([rest.pop(0)], counted))
        for (_, slot, shape, _), vector in zip(self.shaped, rest, strict=True):
            if _shape(slot) == shape:
                getattr(*slot).copy_(vector.view(shape))
            else:  # no micro-batch of this process had samples
                setattr(*slot, vector.view(shape).clone())

    def _values(self, slots: dict[str, Slot]) -> list[torch.Tensor]:
        values = [getattr(*slot) for slot in slots.values()]
        for name, value in zip(slots, values, strict=True):
            if value is None or value.shape != self.shapes[name]:
                raise _reshaped(name)
        return values

    def _shaped(
        self, name: str, slot: Slot, shape: torch.Size, dtype: torch.dtype, *, made: bool
    ) -> torch.Tensor:
        """Return what a micro-batch made of a buffer that did not have this shape: a vector."""
        if not made:
            device = self.start[0].device if self.start else None
            return torch.zeros(shape.numel(), dtype=dtype, device=device)
        if _shape(slot) != shape or getattr(*slot).dtype != dtype:
            raise _reshaped(name)
        return getattr(*slot).detach().clone().reshape(-1)  # type: ignore[no-any-return]


def _slots(module: nn.Module, parameters: frozenset[str]) -> dict[str, Slot]:
    """Return where buffers and such parameters are; a module that has two names comes once."""
    slots = buffer_slots(module, parameters)
    names = {(id(owner), attribute): name for name, (owner, attribute) in slots.items()}
    return {name: slots[name] for name in names.values()}


def _shape(slot: Slot) -> torch.Size | None:
    value = getattr(*slot)
    return None if value is None else value.shape


def _is_averaged(buffer: torch.Tensor) -> bool:
    return buffer.is_floating_point() or buffer.is_complex()


def _reshaped(name: str) -> UserError:
    return UserError(
        f"model.name: the buffer {name} takes another shape in the course of the training, so no "
        f"process knows what the others make of it; give it its final shape in the constructor"
    )
