"""Record the operations that a network does for one image, in their order.

Hooks on modules would miss what a network calls as functions, such as `relu` and `max_pool2d`, and
the flattening and adding in its own `forward`. So torch's dispatcher is asked, below all of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from trainer.commands.models import sizes
from trainer.commands.models.sizes import ReceptiveField, Region, Window

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
"""torch's operations, by the names that people know them by"""

HIDDEN = {"clone", "copy_", "_to_copy", "contiguous"}
"""operations that move values and compute nothing"""

ELEMENTWISE = HIDDEN | {
    "_native_batch_norm_legit_no_training",
    "_unsafe_view",
    "cat",
    "constant_pad_nd",
    "cudnn_batch_norm",
    "native_batch_norm",
}
"""operations on single values, besides those that torch itself tags as pointwise"""

MATRIX_PRODUCTS = {"addmm", "mm"}


@dataclass(frozen=True)
class Layer:
    """One operation, and what it makes of one image; sizes are without the batch."""

    name: str
    """of the innermost module that does it; empty in the network's own `forward`"""
    operation: str
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    kernel: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | None
    dilation: tuple[int, ...] | None
    parameters: int
    """without those that an operation before has used"""
    multiply_adds: int
    receptive_field: tuple[int, ...] | Literal["all"] | None
    """height and width in pixels; None if it is not well defined"""
    arithmetic: list[str]


@dataclass(frozen=True)
class Network:
    """The layers of a network, and what they come to."""

    parameters: int
    multiply_adds: int
    other_parameters: int
    """that no operation takes directly, such as those that only training uses"""
    layers: list[Layer]


def record_layers(model: nn.Module, channels: int, image_size: tuple[int, int]) -> Network:
    """Follow one black image through a network in evaluation.

    Args:
        model: on the CPU; is left in evaluation. A compiled model is followed uncompiled.
        image_size: height and width in pixels.
    """
    model = getattr(model, "_orig_mod", model)
    image = torch.zeros(1, channels, *image_size)
    model.eval()
    counter = FlopCounterMode(display=False)
    with (
        _module_names(model) as names,
        torch.no_grad(),
        counter,
        _Recorder(model, image, names, counter) as recorder,
    ):
        model(image)
    total = sum(parameter.numel() for parameter in model.parameters())
    used = sum(layer.parameters for layer in recorder.layers)
    return Network(total, counter.get_total_flops() // 2, total - used, recorder.layers)


@contextlib.contextmanager
def _module_names(model: nn.Module) -> Iterator[list[str]]:
    """Keep a stack of the names of the modules that are running, the innermost last."""
    names = [""]
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
            continue
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: names.append(name)))
        handles.append(
            module.register_forward_hook(lambda *_: names.pop() and None, always_call=True)
        )
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation below modules, functions and operators."""

    def __init__(
        self,
        model: nn.Module,
        image: torch.Tensor,
        module_names: Sequence[str],
        counter: FlopCounterMode,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []
        self._module_names = module_names
        self._counter = counter
        self._unused = {_storage(parameter): parameter for parameter in model.parameters()}
        self._fields: dict[int, ReceptiveField] = {id(image): sizes.PIXEL}
        # Python gives the id of a tensor that is freed to the next one.
        self._alive = [image]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do an operation, and record it where its inputs depend on the image."""
        flops_before = self._counter.get_total_flops()
        result = func(*args, **(kwargs or {}))
        arguments = _named_arguments(func, args, kwargs or {})
        given = [tensor for value in arguments.values() for tensor in _tensors(value)]
        inputs = [tensor for tensor in given if id(tensor) in self._fields]
        outputs = _tensors(result)
        if not (inputs and outputs):
            return result
        first, output = inputs[0], outputs[0]
        window = _window(func, arguments)
        field = _receptive_field(
            func, window, [self._fields[id(tensor)] for tensor in inputs], first, output
        )
        for tensor in outputs:
            self._fields[id(tensor)] = field
            self._alive.append(tensor)
        if _is_shown(func, first, output):
            used = [self._unused.pop(_storage(t)) for t in given if _storage(t) in self._unused]
            parameters = sum(parameter.numel() for parameter in used)
            self.layers.append(
                Layer(
                    name=self._module_names[-1],
                    operation=_operation(func, arguments),
                    input_size=tuple(first.shape[1:]),
                    output_size=tuple(output.shape[1:]),
                    kernel=window.kernel if window else None,
                    stride=window.stride if window else None,
                    padding=window.padding if window else None,
                    dilation=window.dilation if window else None,
                    parameters=parameters,
                    multiply_adds=(self._counter.get_total_flops() - flops_before) // 2,
                    receptive_field=field.size if isinstance(field, Region) else field,
                    arithmetic=list(
                        _arithmetic(func, arguments, window, first, output, parameters)
                    ),
                )
            )
        return result


def _base_name(func: Any) -> str:
    """Return the name that the overloads of an operation share."""
    return str(func.overloadpacket.__name__)


def _operation(func: Any, arguments: Mapping[str, Any]) -> str:
    name = _base_name(func)
    if name == "convolution" and arguments["transposed"]:
        return "transposed convolution"
    return NAMES.get(name, name.strip("_").replace("_", " "))


def _named_arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operation by name, defaults included."""
    schema = func._schema.arguments
    given = {argument.name: value for argument, value in zip(schema, args, strict=False)}
    return {a.name: a.default_value for a in schema} | given | dict(kwargs)


def _tensors(value: Any) -> list[torch.Tensor]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [item for item in values if isinstance(item, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _window(func: Any, arguments: Mapping[str, Any]) -> Window | None:
    name = _base_name(func)
    if name == "convolution" and not arguments["transposed"]:
        kernel = tuple(arguments["weight"].shape[2:])
        stride, ceil = arguments["stride"], False
    elif name in ("max_pool2d_with_indices", "avg_pool2d"):
        kernel = _sides(arguments["kernel_size"], 2)
        stride, ceil = arguments["stride"] or kernel, bool(arguments["ceil_mode"])
    else:
        return None
    stride, padding, dilation = (
        _sides(value, len(kernel))
        for value in (stride, arguments["padding"], arguments.get("dilation", 1))
    )
    return Window(kernel, stride, padding, dilation, ceil)


def _sides(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    numbers = [value] if isinstance(value, int) else list(value)
    return tuple(numbers * count if len(numbers) == 1 else numbers)


def _receptive_field(
    func: Any,
    window: Window | None,
    inputs: Sequence[ReceptiveField],
    first: torch.Tensor,
    output: torch.Tensor,
) -> ReceptiveField:
    if window:
        return sizes.through_window(window, inputs[0])
    if all(field == "all" for field in inputs):
        return "all"
    name = _base_name(func)
    moved = func.is_view and output.numel() == first.numel()
    if moved or name in ELEMENTWISE or torch.Tag.pointwise in func.tags:
        return sizes.union(inputs)
    if name in MATRIX_PRODUCTS and output.shape[0] == 1:
        return "all"
    # One value of each channel, as in global pooling.
    return "all" if first.ndim == 4 and output.numel() == first.shape[1] else None


def _is_shown(func: Any, first: torch.Tensor, output: torch.Tensor) -> bool:
    name = _base_name(func)
    if func.is_view or name == "_unsafe_view":
        return first.ndim == 4 and output.ndim == 2 and tuple(first.shape[2:]) != (1, 1)
    return name not in HIDDEN


def _arithmetic(
    func: Any,
    arguments: Mapping[str, Any],
    window: Window | None,
    first: torch.Tensor,
    output: torch.Tensor,
    parameters: int,
) -> Iterator[str]:
    if window:
        yield from sizes.window_arithmetic(window, first.shape[2:], output.shape[2:])
    elif first.ndim == 4 and output.ndim == 2 and output.numel() == first.numel():
        yield sizes.flatten_arithmetic(first.shape[1:])
    if not parameters:
        return
    name = _base_name(func)
    if name == "convolution" and window:
        weight = arguments["weight"]
        factors = [*weight.shape[2:], weight.shape[1]]
        has_bias = arguments["bias"] is not None
        yield sizes.parameter_arithmetic(factors, weight.shape[0], has_bias)
    elif name in MATRIX_PRODUCTS:
        features = arguments["mat1" if name == "addmm" else "self"].shape[1]
        yield sizes.parameter_arithmetic([features], output.shape[1], name == "addmm")
