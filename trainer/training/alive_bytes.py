"""Count the memory of all tensors that are alive, operator by operator."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from trainer.base.operators import WatchingMode


class AliveBytes(WatchingMode):
    """Adds up the memory of all tensors that are alive, functions and compiled code included.

    Attributes:
        bytes: at the start, and after each operator.
    """

    def __init__(self, inputs: torch.Tensor) -> None:
        super().__init__()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes: list[int] = []
        self._note([inputs])

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves(result)
        self._note(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        return result

    def _note(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            if tensor.layout is torch.strided:  # the others have no storage
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._alive[reference.cdata] = (reference, storage.nbytes())
        for key, (reference, _) in list(self._alive.items()):
            if reference.expired():  # type: ignore[no-untyped-call]
                del self._alive[key]
        self.bytes.append(sum(size for _, size in self._alive.values()))


def bytes_per_image(of_two: Sequence[int], of_three: Sequence[int]) -> int:
    """Return the most that one image more takes, by the counts of the same pass over two and three.

    The part that does not grow with the images, such as that of the weights, is left out.
    """
    return max(more - fewer for fewer, more in zip(of_two, of_three, strict=False))


@contextlib.contextmanager
def count_alive(inputs: torch.Tensor) -> Iterator[AliveBytes]:
    """Count the bytes of `inputs` and of all tensors that are made inside."""
    # What is compiled is counted operator by operator; torch would compile the counting too.
    compiles = "torch._dynamo" in sys.modules
    eager = torch.compiler.set_stance("force_eager") if compiles else contextlib.nullcontext()
    with eager, AliveBytes(inputs) as alive:
        yield alive
