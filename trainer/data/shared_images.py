"""Keep the images of a run in memory once for each machine, not once for each of its processes.

One process of a machine puts them into a file in memory (memfd_create(2)), which the others map.
Such a file has no name, takes nothing of a container's /dev/shm, and is gone with the last process,
however that ends. The mappings are private: a write, which nobody does, would copy the page.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainer.base.tensor_files import bytes_of
from trainer.data.dataset import Dataset, ImageSet
from trainer.ranks import collectives, processes

if TYPE_CHECKING:
    from accelerate import Accelerator

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ALIGNMENT = 64


@dataclass(frozen=True)
class Block:
    """Where a tensor is in a file: a part's images or its targets."""

    offset_bytes: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Offer:
    """What a process needs to map the images of another one on its machine.

    Args:
        machine: the running system's own name.
        path: of the open file, in the other process.
        link: what is found there, which nothing else is called.
        blocks: images and targets of each part.
        rest: the data set without these.
    """

    machine: str
    path: Path
    link: Path
    size_bytes: int
    blocks: tuple[Block, ...]
    rest: Dataset


def load_once(
    accelerator: Accelerator, load: Callable[[], Dataset], *, at_once: bool = False
) -> Dataset:
    """Load a data set on all ranks, with its images in memory once for each machine; a collective.

    Where they cannot be shared, each process has its own: images that stay in their files, or a
    system that lets no process look at another one's files.

    Args:
        load: must not call a collective.
        at_once: whether all load it at the same time, and only then let go of what they share;
            otherwise the others wait, and load nothing.

    Raises:
        UserError: as `load`.
    """
    leads = accelerator.is_local_main_process
    loads = leads or at_once
    found = collectives.run_on_all_ranks(accelerator, load if loads else lambda: None)
    if accelerator.num_processes == 1:
        assert found is not None
        return found
    from accelerate.utils import gather_object

    with contextlib.ExitStack() as stack:
        offer = _offer(found, stack) if leads and found and processes.local_count() > 1 else None
        offers = [other for other in gather_object([offer]) if other]
        taken = _take(offers if offer is None else [offer], found)
        # Until the others have mapped it, the file must be open here.
        return collectives.run_on_all_ranks(accelerator, lambda: taken or found or load())


def _offer(dataset: Dataset, stack: contextlib.ExitStack) -> Offer | None:
    """Put images and targets into a file in memory, which the stack closes; None: impossible."""
    tensors = _tensors(dataset)
    if tensors is None or not hasattr(os, "memfd_create"):
        return None
    blocks, size_bytes = list[Block](), 0
    for tensor in tensors:
        blocks.append(Block(size_bytes, tuple(tensor.shape), tensor.dtype))
        size_bytes += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    name = f"lockstep-images-{secrets.token_hex(16)}"
    try:
        descriptor = os.memfd_create(name)
        stack.callback(os.close, descriptor)
        os.ftruncate(descriptor, size_bytes)
        for block, tensor in zip(blocks, tensors, strict=True):
            _write(descriptor, tensor, block.offset_bytes)
        path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        link, machine = path.readlink(), _BOOT_ID.read_text("utf-8")
    except OSError:  # memory is short, or a container forbids it: each process has its own
        return None
    nothing = ImageSet(torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    rest = replace(dataset, train=nothing, validation=nothing, test=nothing)
    return Offer(machine, path, link, size_bytes, tuple(blocks), rest)


def _tensors(dataset: Dataset) -> list[torch.Tensor] | None:
    """Return images and targets of each part; None where images stay in their files."""
    found = list[torch.Tensor]()
    for part in (dataset.train, dataset.validation, dataset.test):
        if not isinstance(part.images, torch.Tensor):
            return None
        found += [part.images, part.targets]
    return found


def _write(descriptor: int, tensor: torch.Tensor, offset_bytes: int) -> None:
    left = bytes_of(tensor)
    while left:
        count = os.pwrite(descriptor, left, offset_bytes)
        left, offset_bytes = left[count:], offset_bytes + count


def _take(offers: Sequence[Offer], own: Dataset | None) -> Dataset | None:
    """Map the images that a process of this machine offers; None: there are none to be had.

    Args:
        own: where this process has loaded the same data set.
    """
    for offer in offers:
        try:
            here = _BOOT_ID.read_text("utf-8")
            if offer.machine != here or offer.path.readlink() != offer.link:
                continue  # of another machine, or of another container on this one
            with offer.path.open("rb") as file:
                mapped = mmap.mmap(
                    file.fileno(), offer.size_bytes, mmap.MAP_PRIVATE,
                    mmap.PROT_READ | mmap.PROT_WRITE,
                )  # fmt: skip
        except OSError:  # of another user, or a process may not look into another one here
            continue
        tensors = [_tensor(mapped, block) for block in offer.blocks]
        train, validation, test = map(ImageSet, tensors[::2], tensors[1::2])
        return replace(own or offer.rest, train=train, validation=validation, test=test)
    return None


def _tensor(mapped: mmap.mmap, block: Block) -> torch.Tensor:
    count = torch.Size(block.shape).numel()
    if count == 0:
        return torch.empty(block.shape, dtype=block.dtype)
    flat = torch.frombuffer(mapped, dtype=block.dtype, count=count, offset=block.offset_bytes)
    return flat.view(block.shape)
