"""A second device that is really the CPU: it computes, and refuses what a GPU refuses.

Its tensors say that they are on torch's `meta` device, whose backward pass torch runs like that of
the CPU, and keep their values in a CPU tensor. An operation of tensors of both devices fails as on
a GPU, where only numbers may come from the CPU. What would make the host wait for a GPU (its values
read, as by `item`, `tolist`, `nonzero` or a mask as an index, or copies that wait) is noted, or
fails.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from trainer.config.schema import RunConfig
from trainer.ranks import process_group

DEVICE = torch.device("meta")

READS_VALUES = (
    "_local_scalar_dense equal is_nonzero nonzero masked_select unique _unique2 unique_dim "
    "unique_consecutive repeat_interleave bincount _linalg_check_errors"
).split()
"""operators whose result or its shape the host has to know"""


class SecondDeviceTensor(torch.Tensor):
    """A tensor of the second device; `held` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls: type[SecondDeviceTensor], held: torch.Tensor) -> SecondDeviceTensor:
        """Wrap a tensor of the CPU."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"SecondDeviceTensor({self.held!r})"

    def tolist(self) -> Any:
        """Return the values, as torch refuses for tensors of other classes."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the second device is used outside of it")


class SecondDevice(TorchDispatchMode):
    """The device, while it is entered.

    Attributes:
        waits: what the host had to wait for, each an operator.
        may_wait: otherwise such an operator fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.may_wait = True

    @contextlib.contextmanager
    def without_waiting(self, *, forbidden: bool = True) -> Iterator[None]:
        """Let an operator for which the host would wait fail inside, or not, if not forbidden."""
        before, self.may_wait = self.may_wait, not forbidden
        try:
            yield
        finally:
            self.may_wait = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        own = _tensors((args, kwargs))
        ours = [one for one in own if isinstance(one, SecondDeviceTensor)]
        others = [one for one in own if not isinstance(one, SecondDeviceTensor)]
        asked = kwargs.get("device")
        if name in ("_to_copy", "copy_"):
            return self._copy(func, name, args, kwargs)
        if not ours and (asked is None or torch.device(asked) != DEVICE):
            return func(*args, **kwargs)
        if any(one.ndim for one in others):
            shapes = [tuple(one.shape) for one in others]
            raise RuntimeError(f"{name}: expected all tensors on one device; {shapes} on the CPU")
        if name in READS_VALUES or (name.startswith(("index", "_index")) and _has_mask(args)):
            self._wait(name)
        if asked is not None:
            kwargs["device"] = "cpu"
        found = func(*_to_held(args), **_to_held(kwargs))
        if "out" in kwargs:
            return kwargs["out"]
        if func._schema.is_mutable and isinstance(args[0], SecondDeviceTensor):
            if args[0].shape != args[0].held.shape:
                raise NotImplementedError(f"{name} of another shape")
            return args[0]
        return tree_map(_wrap, found)

    def _copy(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """Copy within a device, or from one to the other."""
        if name == "copy_":
            target, source, *more = args
            crosses = isinstance(target, SecondDeviceTensor) != isinstance(
                source, SecondDeviceTensor
            )
            waits = not (more and more[0]) and not kwargs.get("non_blocking")
            to_host = crosses and isinstance(source, SecondDeviceTensor)
            if crosses and (waits or to_host):
                self._wait("copy_ between the devices")
            func(*_to_held(args), **kwargs)
            return target
        (source,) = args
        is_ours = isinstance(source, SecondDeviceTensor)
        goes = torch.device(kwargs.get("device") or source.device) == DEVICE
        if is_ours and not goes:
            self._wait("a copy to the host")
        elif goes and not is_ours and not kwargs.get("non_blocking"):
            self._wait("a copy to the device that is waited for")
        if goes:
            kwargs["device"] = "cpu"
        found = func(*_to_held(args), **kwargs)
        return SecondDeviceTensor(found) if goes else found

    def _wait(self, name: str) -> None:
        if not self.may_wait:
            raise AssertionError(f"the host waits for the device: {name}")
        self.waits.append(name)


class _Constructors(TorchFunctionMode):
    """Makes tensors of numbers, which do not come to the dispatcher: `torch.tensor`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        is_made = func in (torch.tensor, torch.as_tensor, torch.asarray)
        device = kwargs.pop("device", None) if is_made else None
        if device is None:
            return func(*args, **kwargs)
        return func(*args, **kwargs).to(device)


@contextlib.contextmanager
def second_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecondDevice]:
    """Compute on the second device inside what asks for the device `meta`."""
    module = importlib.import_module("torch.optim.optimizer")
    kinds = [*module._get_fused_kernels_supported_devices(), DEVICE.type]
    monkeypatch.setattr(module, "_get_fused_kernels_supported_devices", lambda: list(kinds))
    try:
        with SecondDevice() as device, _Constructors():
            yield device
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def accelerator_of(config: RunConfig, *, second: bool) -> Accelerator:
    """Return the accelerator of a run on the CPU or on the second device."""
    accelerator = process_group.create_accelerator(config)
    if second:
        PartialState().device = accelerator.state.device = DEVICE
    return accelerator


def _tensors(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    tree_map(lambda one: found.append(one) if isinstance(one, torch.Tensor) else None, values)
    return found


def _to_held(values: Any) -> Any:
    return tree_map(lambda one: one.held if isinstance(one, SecondDeviceTensor) else one, values)


def _wrap(value: Any) -> Any:
    is_plain = isinstance(value, torch.Tensor) and not isinstance(value, SecondDeviceTensor)
    return SecondDeviceTensor(value) if is_plain else value


def _has_mask(args: Any) -> bool:
    return any(one.dtype in (torch.bool, torch.uint8) for one in _tensors(args[1:2]))
