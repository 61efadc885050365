"""The operations that a network does for one image, in their order, whoever wrote the network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from trainer.commands.models import arithmetic, fields
from trainer.commands.models.arithmetic import Window
from trainer.commands.models.fields import Field

NAMES = {
    "_native_batch_norm_legit_no_training": "batch norm",
    "_unsafe_view": "flatten",
    "_adaptive_avg_pool2d": "average pooling",
    "addmm": "linear",
    "amax": "maximum",
    "avg_pool2d": "average pooling",
    "cudnn_batch_norm": "batch norm",
    "max_pool2d_with_indices": "max pooling",
    "mm": "linear",
    "native_batch_norm": "batch norm",
    "native_group_norm": "group norm",
    "native_layer_norm": "layer norm",
    "view": "flatten",
}
"""of torch's operations, for people, where torch's own does not say it"""

HIDDEN = {"clone", "copy_", "_to_copy", "contiguous"}
"""move values and compute nothing"""

VALUE_BY_VALUE = HIDDEN | {
    "_native_batch_norm_legit_no_training",
    "_unsafe_view",
    "cat",
    "constant_pad_nd",
    "cudnn_batch_norm",
    "native_batch_norm",
}
"""see no neighbours, as do those that torch itself calls pointwise"""

PRODUCTS = {"addmm", "mm"}


@dataclass(frozen=True)
class Layer:
    """One operation, and what it makes of one image; sizes are without the batch."""

    name: str
    """of the innermost module in which it happens; empty in the network's own forward"""
    operation: str
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    window: Window | None
    parameters: int
    """those that no operation before has used"""
    multiply_adds: int
    field: Field
    arithmetic: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """What a network is made of."""

    layers: list[Layer]
    parameters: int
    other_parameters: int
    """of which no operation takes directly, such as those that only training uses"""
    multiply_adds: int


def inspect(model: nn.Module, channels: int, image_size: tuple[int, int]) -> Network:
    """Follow one black image through a network in evaluation.

    Args:
        model: on the CPU; is left in evaluation. What torch has compiled is followed uncompiled.
        channels: of the image.
        image_size: height and width in pixels.
    """
    model = getattr(model, "_orig_mod", model)
    image = torch.zeros(1, channels, *image_size)
    model.eval()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(_places(model))
        stack.enter_context(torch.no_grad())
        counter = stack.enter_context(FlopCounterMode(display=False))
        recorder = stack.enter_context(_Recorder(model, image, place, counter))
        model(image)
    total = sum(parameter.numel() for parameter in model.parameters())
    used = sum(layer.parameters for layer in recorder.layers)
    return Network(recorder.layers, total, total - used, counter.get_total_flops() // 2)


@contextlib.contextmanager
def _places(model: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are at work, the innermost last, as far as Python runs them."""
    place = [""]
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
            continue
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: place.append(name)))
        handles.append(
            module.register_forward_hook(lambda *_: place.pop() and None, always_call=True)
        )
    try:
        yield place
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation below modules, functions and operators."""

    def __init__(
        self,
        model: nn.Module,
        image: torch.Tensor,
        place: Sequence[str],
        counter: FlopCounterMode,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []
        self._place = place
        self._counter = counter
        self._unused = {_storage(parameter): parameter for parameter in model.parameters()}
        self._fields: dict[int, Field] = {id(image): fields.PIXEL}
        # Python gives the id of a tensor that has gone to the next one.
        self._alive = [image]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do an operation and note it, where it takes what has come of the image."""
        flops_before = self._counter.get_total_flops()
        result = func(*args, **(kwargs or {}))
        values = _by_name(func, args, kwargs or {})
        given = [tensor for value in values.values() for tensor in _tensors(value)]
        inputs = [tensor for tensor in given if id(tensor) in self._fields]
        outputs = _tensors(result)
        if inputs and outputs:
            multiply_adds = (self._counter.get_total_flops() - flops_before) // 2
            self._note(func, values, given, inputs, outputs, multiply_adds)
        return result

    def _note(
        self,
        func: Any,
        values: Mapping[str, Any],
        given: Sequence[torch.Tensor],
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        multiply_adds: int,
    ) -> None:
        packet = func.overloadpacket.__name__
        first, output = inputs[0], outputs[0]
        window = _window(packet, values)
        field = _field(func, window, [self._fields[id(tensor)] for tensor in inputs], first, output)
        for tensor in outputs:
            self._fields[id(tensor)] = field
            self._alive.append(tensor)
        if not _is_shown(func, first, output):
            return
        used = [self._unused.pop(_storage(t)) for t in given if _storage(t) in self._unused]
        parameters = sum(parameter.numel() for parameter in used)
        self.layers.append(
            Layer(
                self._place[-1],
                _name(packet, values),
                tuple(first.shape[1:]),
                tuple(output.shape[1:]),
                window,
                parameters,
                multiply_adds,
                field,
                tuple(_arithmetic(packet, values, window, first, output, parameters)),
            )
        )


def _name(packet: str, values: Mapping[str, Any]) -> str:
    if packet == "convolution" and values["transposed"]:
        return "transposed convolution"
    return NAMES.get(packet, packet.strip("_").replace("_", " "))


def _by_name(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The operation's arguments, with those that have their default."""
    schema = func._schema.arguments
    given = {argument.name: value for argument, value in zip(schema, args, strict=False)} | dict(
        kwargs
    )
    return {a.name: given.get(a.name, a.default_value) for a in schema}


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [item for item in value if isinstance(item, torch.Tensor)]
    return []


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _window(packet: str, values: Mapping[str, Any]) -> Window | None:
    if packet == "convolution" and not values["transposed"]:
        kernel = tuple(values["weight"].shape[2:])
        stride, padding, dilation = (
            _sides(values[key], len(kernel)) for key in ("stride", "padding", "dilation")
        )
        return Window(kernel, stride, padding, dilation)
    if packet in ("max_pool2d_with_indices", "avg_pool2d"):
        kernel = _sides(values["kernel_size"], 2)
        stride = _sides(values["stride"], 2) if values["stride"] else kernel
        dilation = _sides(values.get("dilation", 1), 2)
        return Window(
            kernel, stride, _sides(values["padding"], 2), dilation, bool(values["ceil_mode"])
        )
    return None


def _sides(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    numbers = [value] if isinstance(value, int) else list(value)
    return tuple(numbers * count if len(numbers) == 1 else numbers)


def _field(
    func: Any,
    window: Window | None,
    inputs: Sequence[Field],
    first: torch.Tensor,
    output: torch.Tensor,
) -> Field:
    packet = func.overloadpacket.__name__
    if window:
        return fields.slide(window, inputs[0])
    if all(field == "all" for field in inputs):
        return "all"
    moved = func.is_view and output.numel() == first.numel()
    if moved or packet in VALUE_BY_VALUE or torch.Tag.pointwise in func.tags:
        return fields.join(inputs)
    if packet in PRODUCTS and output.shape[0] == 1:
        return "all"
    # One value of each channel, as in global pooling.
    return "all" if first.ndim == 4 and output.numel() == first.shape[1] else None


def _is_shown(func: Any, first: torch.Tensor, output: torch.Tensor) -> bool:
    packet = func.overloadpacket.__name__
    if func.is_view or packet == "_unsafe_view":
        return first.ndim == 4 and output.ndim == 2 and tuple(first.shape[2:]) != (1, 1)
    return packet not in HIDDEN


def _arithmetic(
    packet: str,
    values: Mapping[str, Any],
    window: Window | None,
    first: torch.Tensor,
    output: torch.Tensor,
    parameters: int,
) -> Iterator[str]:
    if window:
        yield from arithmetic.sizes(window, first.shape[2:], output.shape[2:])
    elif first.ndim == 4 and output.ndim == 2 and output.numel() == first.numel():
        yield arithmetic.flattened(first.shape[1:])
    if not parameters:
        return
    if packet == "convolution":
        weight, has_bias = values["weight"], values["bias"] is not None
        if not values["transposed"]:
            factors = [*weight.shape[2:], weight.shape[1]]
            yield arithmetic.weights(factors, weight.shape[0], has_bias)
    elif packet in PRODUCTS:
        factor = values["mat1" if packet == "addmm" else "self"]
        yield arithmetic.weights([factor.shape[1]], output.shape[1], packet == "addmm")
