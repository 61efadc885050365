"""The buffers of a model, such as batch norm's running statistics, in a step and an evaluation.

A parameter that a pass sets by itself, as with a weight that is normalised in place or a teacher
that follows the weights, is treated as a buffer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.flat_tensors import layout, pack, unpack
from trainer.network.model_state import Slot, buffer_slots, parameter_slots, traits_of


class Layouts:
    """How tensors lie in memory: what an assignment in a pass makes of it would be lost in a file.

    Kernels are chosen by it, so rounding depends on it.

    Args:
        slots: some of them may have no value.
    """

    def __init__(self, slots: Iterable[Slot]) -> None:
        tensors = [(slot, getattr(*slot)) for slot in slots]
        self.strides = [
            (slot, tensor.shape, tensor.stride()) for slot, tensor in tensors if tensor is not None
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Let those of the same shape lie as they did, with the values that they have now."""
        for slot, shape, stride in self.strides:
            tensor = getattr(*slot)
            if tensor is not None and tensor.shape == shape and tensor.stride() != stride:
                value = tensor.detach()
                tensor.data = torch.empty_strided(
                    shape, stride, dtype=value.dtype, device=value.device
                ).copy_(value)


class Copies:
    """Values of buffers and parameters, and which tensors they were, to be put back.

    Args:
        slots: some of them may have no value.
    """

    @torch.no_grad()
    def __init__(self, slots: Iterable[Slot]) -> None:
        self.objects = [(slot, getattr(*slot)) for slot in slots]
        self.tensors = [tensor for _, tensor in self.objects if tensor is not None]
        self.layout = layout(self.tensors)
        self.values = pack(self.tensors)
        self.places = Layouts(slot for slot, _ in self.objects)

    @torch.no_grad()
    def put_back(self) -> None:
        """The same tensors, with the shapes and values that they had."""
        for slot, tensor in self.objects:
            if getattr(*slot) is not tensor:
                setattr(*slot, tensor)
        for tensor, (_, shape) in zip(self.tensors, self.layout, strict=True):
            if tensor.shape != shape:
                tensor.resize_(shape)
        self.places.restore()
        if self.tensors:
            torch._foreach_copy_(self.tensors, unpack(self.values, self.layout))


class StepBuffers:
    """Gives every micro-batch the values from before the step, and the step what they made of them.

    A floating-point buffer moves by the mean of the micro-batches' changes, weighted by their
    samples; any other (batch norm's count of steps) becomes what the first micro-batch made of it,
    as does one that gets its first value or its final shape. What follows the batch in its shape
    is after the step as before.

    Args:
        module: its buffers are asked for anew each time, as a forward pass may put another tensor
            in a buffer's place.
        slots: as `step_slots` gives them; looked for where there are none.
    """

    def __init__(self, module: nn.Module, slots: Mapping[str, Slot] | None = None) -> None:
        traits = traits_of(module)
        slots = dict(slots or step_slots(module))
        self.passing = Copies([slots.pop(name) for name in traits.passing if name in slots])
        self.shaped = [
            (name, slots.pop(name), shape, dtype)
            for name, (shape, dtype) in sorted(traits.shapes.items())
            if name in slots and _shape(slots[name]) != shape
        ]
        slots = {name: slot for name, slot in slots.items() if getattr(*slot) is not None}
        self.copies = Copies([*slots.values(), *(slot for _, slot, _, _ in self.shaped)])
        self.shapes = {name: _shape(slot) for name, slot in slots.items()}
        self.averaged, self.others = (
            {name: slot for name, slot in slots.items() if _is_averaged(getattr(*slot)) is averaged}
            for averaged in (True, False)
        )
        with torch.no_grad():
            # No change could be counted from infinity, where a plug-in may start.
            self.start = [
                torch.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)
                for vector in pack(self._values(self.averaged))
            ]

    def restore(self) -> None:
        """Put the values from before the step back."""
        self.copies.put_back()
        self.passing.put_back()

    def current(self) -> dict[str, torch.Tensor]:
        """The values as they stand, by their names."""
        shaped = {name: slot for name, slot, _, _ in self.shaped}
        values = {
            k: getattr(*slot) for k, slot in {**self.averaged, **self.others, **shaped}.items()
        }
        return {name: value for name, value in values.items() if value is not None}

    @torch.no_grad()
    def changes(self, weight: float, first: bool) -> list[torch.Tensor]:
        """A micro-batch's parts of the sums that `finish` takes: vectors.

        Args:
            weight: its share of the step's samples.
            first: whether it is the first micro-batch.

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
        self.passing.put_back()
        averaged, others = self._values(self.averaged), self._values(self.others)
        moved = [old + change for old, change in zip(self.start, sums, strict=False)]
        if averaged:
            torch._foreach_copy_(averaged, unpack(moved, layout(averaged)))
        rest = sums[len(moved) :]
        if others:
            pieces = torch.split(rest.pop(0), [value.numel() for value in others])
            for value, piece in zip(others, pieces, strict=True):
                value.copy_(piece.view(value.shape))
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
        """What a micro-batch has made of a buffer that had not this shape before: a vector."""
        if not made:
            device = self.start[0].device if self.start else None
            return torch.zeros(shape.numel(), dtype=dtype, device=device)
        if _shape(slot) != shape or getattr(*slot).dtype != dtype:
            raise _reshaped(name)
        return getattr(*slot).detach().clone().reshape(-1)  # type: ignore[no-any-return]


def step_slots(module: nn.Module) -> dict[str, Slot]:
    """Where all that is which a step treats as a buffer, by its names."""
    return _slots(module, traits_of(module).set_in_training)


@contextlib.contextmanager
def left_alone(module: nn.Module) -> Iterator[None]:
    """Whatever is made of the mode and of the buffers inside, they are as before afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    before = copies_of(module)
    try:
        yield
    finally:
        if module.training != modes[0][1]:
            module.train(modes[0][1])
        for part, training in modes:
            part.training = training
        before.put_back()


def copies_of(module: nn.Module) -> Copies:
    """Of all that an evaluation may change: the buffers, and parameters that a pass sets."""
    traits = traits_of(module)
    return Copies(_slots(module, traits.set_in_training | traits.set_elsewhere).values())


def _slots(module: nn.Module, parameters: frozenset[str]) -> dict[str, Slot]:
    """Where buffers and such parameters are; a module that has two names stands once."""
    slots = buffer_slots(module) | parameter_slots(module, parameters)
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
