"""Watch the operators that torch computes: which they are, and the bits of what they give."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.base.tensor_files import bytes_of

NOT_PORTABLE = frozenset({"sqrt", "_foreach_sqrt", "atan", "tan", "linalg_cholesky_ex"})
"""operators that processors round differently with portable kernels too: of MKL's vector and
linear algebra libraries, whose code for a processor goes by its maker"""


class WatchingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that does not import torch's compiler, which takes about a second."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: to leave this mode uncompiled, torch would import its compiler."""
        return False


class PortabilityCheck(WatchingMode):  # type: ignore[no-untyped-call]
    """A context that notes which of the operators in it are in NOT_PORTABLE."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = name_of(func)
        if name == "pow" and len(args) > 1 and args[1] == 0.5:  # which torch makes a square root
            name = "sqrt"
        if name in NOT_PORTABLE:
            self.found.add(name)
        return func(*args, **(kwargs or {}))

    def describe(self) -> str | None:
        """Return what was found, in words; None if nothing was."""
        if not self.found:
            return None
        return (
            f"computes {', '.join(sorted(self.found))}, which processors round differently with "
            f"train.kernels: portable too"
        )


class OperatorRecord(WatchingMode):  # type: ignore[no-untyped-call]
    """A context that notes the name of each operator and a digest of each tensor that it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # Fresh memory, and views of it, may have any bits.
        if not (_is_view(func) or name_of(func).startswith(("empty", "new_empty"))):
            written = [*_tensors(result), *_written(func, args, kwargs or {})]
            shapes = [[str(one.dtype).removeprefix("torch."), *one.shape] for one in written]
            digests = [digest(one) for one in written]
            self.calls.append({"name": str(func), "tensors": shapes, "digests": digests})
        return result


def name_of(func: torch._ops.OpOverload) -> str:
    """Return the name of an operator, without its overload, and in place as otherwise."""
    name = func._schema.name.partition("::")[2]
    return name.removesuffix("_")


def digest(tensor: torch.Tensor) -> str:
    """Return the first half of the SHA-256 of a tensor's bytes, in the order of its indices."""
    return hashlib.sha256(bytes_of(tensor)).hexdigest()[:32]


def _is_view(func: torch._ops.OpOverload) -> bool:
    infos = [returned.alias_info for returned in func._schema.returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    return (one for one in tree_leaves(value) if isinstance(one, torch.Tensor) and one.numel())


def _written(
    func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterable[torch.Tensor]:
    """Return the arguments that an operator without results writes, as those of optimisers do."""
    if func._schema.returns:
        return
    for place, argument in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(value)
