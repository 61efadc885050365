"""Loops of others on the same images and nets, by options["loop"].

plain: what somebody writes who keeps the images on the device: autocast, fused Adam, whole batches
    flipped and moved.
lightning: a LightningModule and a DataLoader with workers, as in lightning.ai/docs/pytorch.
timm: the parts of timm's train.py, github.com/huggingface/pytorch-image-models; of photographs with
    timm's loader and its prefetcher.
airbench: `airbench_loop`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader, Dataset

import models
from gpu_cases import Save, Task, airbench_loop, ours

MOST_SHIFT = 2


class Parts:
    """Images, a net and what all loops share.

    Attributes:
        pixels: of training, uint8 (n, 3, height, width), on the CPU.
        labels: int64 (n,).
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.device = torch.device(task.device)
        folder = Path(task.work_dir) / task.options["data"]
        self.pixels, self.labels = read_part(folder, "train")
        self.test_pixels, self.test_labels = read_part(folder, "test")
        torch.manual_seed(0)
        height, width = self.pixels.shape[2:]
        net = models.create(
            task.options["model"], task.options.get("model_args", {}), num_classes=10,
            in_channels=3, image_size=(height, width),
        )  # fmt: skip
        self.net: nn.Module = net.to(memory_format=torch.channels_last).to(self.device)  # type: ignore[call-overload]
        self.batch_size = task.options.get("batch_size", task.batch_size)

    def adam(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.net.parameters(), lr=1e-3, fused=True)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.task.device, torch.bfloat16)


class Clock:
    """Times epochs, waiting for the device at their ends, and saves what it finds."""

    def __init__(self, task: Task, save: Save) -> None:
        self.task = task
        self.save = save
        self.seconds: list[float] = []
        self.rates: list[float] = []
        self.start_s = 0.0

    def begin(self) -> None:
        wait(self.task)
        self.start_s = time.perf_counter()

    def end(self, samples: int) -> None:
        wait(self.task)
        self.seconds.append(time.perf_counter() - self.start_s)
        self.rates.append(samples / self.seconds[-1])
        self.save(
            {
                "images_per_second": self.rates,
                "epoch_s": self.seconds,
                "train_s": sum(self.seconds),
                **ours.memory(self.task),
            }
        )


def run(task: Task, save: Save) -> None:
    """Train by the loop that is asked for."""
    LOOPS[task.options["loop"]](task, save)


def read_part(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels and labels of a set's training or test images."""
    pixels = torch.from_numpy(np.load(folder / f"set_{part}_features.npy"))
    labels = torch.from_numpy(np.load(folder / f"set_{part}_targets.npy"))
    return pixels.permute(0, 3, 1, 2).contiguous(), labels


def wait(task: Task) -> None:
    """Wait until the device has computed everything."""
    if task.device == "cuda":
        torch.cuda.synchronize()


def plain(task: Task, save: Save) -> None:
    """Keep the images on the device; flip and move whole batches."""
    parts, clock = Parts(task), Clock(task, save)
    optimizer, device = parts.adam(), parts.device
    pixels, labels = parts.pixels.to(device), parts.labels.to(device)
    parts.net.train()
    for _ in range(task.epochs):
        clock.begin()
        count = 0
        for images, targets in shuffled_batches(pixels, labels, parts.batch_size):
            images = augment(images.float().div(255).sub(0.5).div(0.25))
            images = images.contiguous(memory_format=torch.channels_last)
            with parts.autocast():
                loss = F.cross_entropy(parts.net(images), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            count += len(images)
        clock.end(count)


def shuffled_batches(
    pixels: torch.Tensor, labels: torch.Tensor, size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the whole batches of an epoch in a random order."""
    order = torch.randperm(len(pixels), device=pixels.device)
    for begin in range(0, len(order) - size + 1, size):
        chosen = order[begin : begin + size]
        yield pixels[chosen], labels[chosen]


def augment(images: torch.Tensor) -> torch.Tensor:
    """Mirror half of a batch, and move all of it by the same few pixels."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    down, right = (int(step) for step in torch.randint(-MOST_SHIFT, MOST_SHIFT + 1, (2,)))
    return images.roll((down, right), (2, 3))


class Augmented(Dataset[Any]):
    """Images one by one, as torchvision's transforms augment them: for workers."""

    def __init__(self, parts: Parts) -> None:
        from torchvision.transforms import v2

        self.pixels = parts.pixels
        self.labels = parts.labels.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomCrop(parts.pixels.shape[2], padding=MOST_SHIFT),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pixels[index]), self.labels[index]


def loader(parts: Parts) -> DataLoader[Any]:
    """Return batches from workers that stay, in pinned memory for a GPU."""
    return DataLoader(
        Augmented(parts), batch_size=parts.batch_size, shuffle=True, drop_last=True,
        num_workers=parts.task.workers, persistent_workers=True,
        pin_memory=parts.device.type == "cuda",
    )  # fmt: skip


def lightning(task: Task, save: Save) -> None:
    """Fit a LightningModule in bf16-mixed, without files, bars and logs."""
    import pytorch_lightning as pl

    parts, clock = Parts(task), Clock(task, save)
    batches = loader(parts)

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = parts.net

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            images, targets = batch
            images = images.contiguous(memory_format=torch.channels_last)
            return F.cross_entropy(self.net(images), targets)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return parts.adam()

    class Timed(pl.Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, *_: object) -> None:
            clock.begin()

        def on_train_epoch_end(self, *_: object) -> None:
            clock.end(len(batches) * parts.batch_size)

    trainer = pl.Trainer(
        accelerator="gpu" if task.device == "cuda" else "cpu", devices=1, precision="bf16-mixed",
        max_epochs=task.epochs, callbacks=[Timed()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=task.work_dir,
    )  # fmt: skip
    trainer.fit(Module(), batches)


def timm(task: Task, save: Save) -> None:
    """Train with timm's optimiser and task, on the loader above or, of photographs, on timm's."""
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask

    parts, clock = Parts(task), Clock(task, save)
    batches = timm_loader(parts) if task.options.get("files") else loader(parts)
    optimizer = create_optimizer_v2(parts.net, opt="adam", lr=1e-3)
    training = ClassificationTask(parts.net, nn.CrossEntropyLoss(), device=parts.device)
    training.train()
    for _ in range(task.epochs):
        clock.begin()
        count = 0
        for images, targets in batches:
            images = images.to(parts.device, memory_format=torch.channels_last, non_blocking=True)
            targets = targets.to(parts.device, non_blocking=True)
            with parts.autocast():
                loss = training(images, targets)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += len(images)
        clock.end(count)


def timm_loader(parts: Parts) -> Any:
    """Return timm's loader of the photographs, with its prefetcher."""
    from timm.data import create_dataset, create_loader

    files = create_dataset("", str(parts.task.photos), split="train")
    side = parts.pixels.shape[2]
    return create_loader(
        files, (3, side, side), parts.batch_size, is_training=True,
        num_workers=parts.task.workers, device=parts.device, persistent_workers=True,
        use_prefetcher=parts.device.type == "cuda",
    )  # fmt: skip


def airbench(task: Task, save: Save) -> None:
    """Train in airbench's manner, all of its epochs, and test."""
    parts, clock = Parts(task), Clock(task, save)
    airbench_loop.train(parts, clock)
    save({"accuracy": airbench_loop.test(parts)})


LOOPS: dict[str, Callable[[Task, Save], None]] = {
    "plain": plain,
    "lightning": lightning,
    "timm": timm,
    "airbench": airbench,
}
