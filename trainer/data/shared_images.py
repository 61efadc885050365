"""Keep the images of a run in memory once for each machine, not once for each of its processes.

One process of a machine puts them into a file in memory, which the others map. The mappings are
private: a write, which nobody does, would copy the page. Photographs that are kept in memory as
they are decoded are written into such a file by all of them.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from typing import TYPE_CHECKING

import torch

from trainer.base.tensor_files import bytes_of
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.stored.pictures import StoredPictures
from trainer.ranks import collectives, memory_files, processes
from trainer.ranks.memory_files import MemoryFile

if TYPE_CHECKING:
    from accelerate import Accelerator

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
        file: has them.
        blocks: images and targets of each part.
        rest: the data set without these.
    """

    file: MemoryFile
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
        dataset = collectives.run_on_all_ranks(accelerator, lambda: taken or found or load())
    _share_kept_pictures(accelerator, dataset)
    return dataset


def _share_kept_pictures(accelerator: Accelerator, dataset: Dataset) -> None:
    """Let the processes of each machine keep photographs in memory together; a collective."""
    images = dataset.train.images
    kept = images.store.in_memory if isinstance(images, StoredPictures) else None
    with memory_files.share(accelerator, kept.size_bytes if kept else None) as file:
        if kept and file:
            kept.share(file.path, processes.local_count())


def _offer(dataset: Dataset, stack: contextlib.ExitStack) -> Offer | None:
    """Put images and targets into a file in memory, which the stack closes; None: impossible."""
    tensors = _tensors(dataset)
    if tensors is None:
        return None
    blocks, size_bytes = list[Block](), 0
    for tensor in tensors:
        blocks.append(Block(size_bytes, tuple(tensor.shape), tensor.dtype))
        size_bytes += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    file = memory_files.create(size_bytes, stack)
    if file is None:
        return None
    try:
        with file.path.open("r+b", buffering=0) as opened:
            for block, tensor in zip(blocks, tensors, strict=True):
                opened.seek(block.offset_bytes)
                _write(opened, tensor)
    except OSError:  # memory is short: each process has its own
        return None
    nothing = ImageSet(torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    rest = replace(dataset, train=nothing, validation=nothing, test=nothing)
    return Offer(file, size_bytes, tuple(blocks), rest)


def _tensors(dataset: Dataset) -> list[torch.Tensor] | None:
    """Return images and targets of each part; None where images stay in their files."""
    found = list[torch.Tensor]()
    for part in (dataset.train, dataset.validation, dataset.test):
        if not isinstance(part.images, torch.Tensor):
            return None
        found += [part.images, part.targets]
    return found


def _write(file: FileIO, tensor: torch.Tensor) -> None:
    left = bytes_of(tensor)
    while left:
        left = left[file.write(left) :]


def _take(offers: Sequence[Offer], own: Dataset | None) -> Dataset | None:
    """Map the images that a process of this machine offers; None: there are none to be had.

    Args:
        own: where this process has loaded the same data set.
    """
    for offer in offers:
        if not offer.file.is_here():
            continue
        try:
            with offer.file.path.open("rb") as file:
                mapped = mmap.mmap(
                    file.fileno(), offer.size_bytes, mmap.MAP_PRIVATE,
                    mmap.PROT_READ | mmap.PROT_WRITE,
                )  # fmt: skip
        except OSError:  # memory is short
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
