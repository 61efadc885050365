"""Send a checkpoint from rank 0, which is the only one that reads it, to all ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from accelerate import Accelerator

from trainer.base.tensor_files import Specs, Tensors
from trainer.checkpoint.reading import Checkpoint
from trainer.ranks import collectives

NAMES = ("model", "optimizer", "best", "average")
"""of the files of tensors, some of which may be absent"""


def share_specs(accelerator: Accelerator, saved: Checkpoint) -> dict[str, Specs]:
    """Return types and shapes of the tensors of each file; a collective.

    Raises:
        UserError: a file is damaged.
    """
    return collectives.run_on_main_rank(
        accelerator, lambda: {name: saved.specs(name) for name in NAMES}
    )


def share_tensors(accelerator: Accelerator, saved: Checkpoint) -> dict[str, Tensors]:
    """Return the tensors of each file, on the CPU; a collective.

    Raises:
        UserError: a file is damaged.
    """
    files: dict[str, Tensors] = {}

    def read() -> dict[str, Tensors]:
        files.update({name: saved.tensors(name) for name in NAMES})
        # Without values they take no room in the message to all ranks.
        return {
            name: {key: tensor.to("meta") for key, tensor in tensors.items()}
            for name, tensors in files.items()
        }

    outlines = collectives.run_on_main_rank(accelerator, read)
    if accelerator.num_processes == 1:
        return files
    return {
        name: {
            key: _send(accelerator, files[name][key] if files else outline)
            for key, outline in outlines[name].items()
        }
        for name in NAMES
    }


def _send(accelerator: Accelerator, tensor: torch.Tensor) -> torch.Tensor:
    """Return rank 0's tensor; on other ranks one without values gives type and shape."""
    device = accelerator.device
    on_device = (
        torch.empty_like(tensor, device=device)
        if tensor.is_meta
        else tensor.contiguous().to(device)
    )
    if tensor.numel():
        # As bytes, because not every type of number can be sent.
        dist.broadcast(on_device.reshape(-1).view(torch.uint8), src=0)
    return on_device.cpu()
