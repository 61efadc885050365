"""Train: python -m same_weights_trainers NAME TRAININGS, which is a JSON list.

Each training has processes of its own. They are forked when the trainer's packages are imported,
which takes longer than a training, and before anything is computed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import torch
from contenders.task import Parts
from safetensors.torch import save_file
from torchvision_operators import define_missing_operators

from same_weights_trainers.entries import ENTRIES, Entry
from same_weights_trainers.training import Seen, Training


@torch.no_grad()
def write_end(training: Training, parts: Parts) -> None:
    """Write the last weights, and the classes that they give the test images."""
    model = parts.model.eval()
    images = parts.scaling.apply(parts.test.images[:])
    predicted = torch.cat([model(batch).argmax(1) for batch in images.chunk(20)])
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {"predicted": predicted}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, Path(training.output) / "end.safetensors")


def be_rank(entry: Entry, training: Training, rank: int, port: int) -> None:
    """Train as one of the training's processes; write the images seen and the last weights."""
    if training.processes > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
            "WORLD_SIZE": str(training.processes), "LOCAL_WORLD_SIZE": str(training.processes),
            "MASTER_PORT": str(port),
        }  # fmt: skip
    torch.set_num_threads(training.threads)
    parts = Parts(training)
    seen = Seen(training, parts)
    hook = parts.model.register_forward_pre_hook(seen)
    module, _, function = entry.function.partition(":")
    getattr(importlib.import_module(module), function)(training, parts)
    hook.remove()
    if function != "lockstep":  # which trains another model
        seen.write()
    if rank == 0:
        write_end(training, parts)


def train(entry: Entry, training: Training) -> None:
    """Do a training.

    Raises:
        SystemExit: a process ended otherwise than it should.
    """
    context = multiprocessing.get_context("fork")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    processes = [
        context.Process(target=be_rank, args=(entry, training, rank, port))
        for rank in range(training.processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode != (-signal.SIGKILL if training.killed else 0):
            sys.exit(f"{training}: a process ended with {process.exitcode}")


def main() -> None:
    """Import, and do the trainings."""
    name, text = sys.argv[1:]
    entry = ENTRIES[name]
    library = define_missing_operators() if name == "timm" else None
    for module in (entry.function.partition(":")[0], *entry.imports):
        importlib.import_module(module)
    for each in json.loads(text):
        train(entry, Training(**each))
    del library  # it would have taken the operators with it


if __name__ == "__main__":
    main()
