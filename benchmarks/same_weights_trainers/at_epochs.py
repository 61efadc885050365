"""Trainers that resume at the start of an epoch: fastai, and timm's train.py."""

from __future__ import annotations

import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contenders.task import LEARNING_RATE, ImageDataset, Parts
from PIL import Image
from torch import nn

from same_weights_trainers.training import Training


def fastai(training: Training, parts: Parts) -> None:
    """Train by fastai's Learner with SaveModelCallback, `load` and `start_epoch`.

    It shares a batch's indices between the processes by way of their GPUs (2.8.12); here the CPU
    does that.
    """
    from fastai.basics import DataLoaders, Learner, OptimWrapper, set_seed
    from fastai.callback.tracker import SaveModelCallback
    from fastai.distributed import DistributedDL

    class OnCpu(DistributedDL):  # type: ignore[misc]
        def _broadcast(self, indices: list[int], rank: int) -> list[int]:
            shared = torch.tensor(indices)
            torch.distributed.broadcast(shared, rank)
            found: list[int] = shared.tolist()
            return found

    set_seed(training.seed, reproducible=True)
    few = ImageDataset(parts.images[:64], parts.targets[:64], None)
    data = DataLoaders.from_dsets(
        parts.dataset(),
        few,
        bs=training.rank_batch_size,
        device=torch.device("cpu"),
        num_workers=0,
        drop_last=False,
    )
    adam = partial(OptimWrapper, opt=torch.optim.Adam)
    learner = Learner(
        data, parts.model, nn.CrossEntropyLoss(), adam, lr=LEARNING_RATE, path=training.folder
    )
    saved = len(list(Path(training.folder).glob("models/model_*.pth")))
    if saved:
        learner.load(f"model_{saved - 1}", with_opt=True)
    saving = SaveModelCallback(every_epoch=True, with_opt=True)
    with learner.distrib_ctx(sync_bn=False, cpu=True), learner.no_bar(), learner.no_logging():
        if training.processes > 1:
            data.loaders = [OnCpu(loader, device=data.device) for loader in data.loaders]
        learner.fit(training.epochs, cbs=saving, start_epoch=saved)


def timm(training: Training, parts: Parts) -> None:
    """Train by timm's train.py, which is not in its package, with `--resume` of its last epoch.

    It gives a CPU's number to DistributedDataParallel (1.0.31), which takes none; it is left out.
    """
    from timm.models import register_model
    from timm.task import ClassificationTask

    def same_weights_net(pretrained: bool = False, **more: Any) -> nn.Module:
        return parts.model

    def prepare_distributed(task: Any, device_ids: Any = None, **more: Any) -> Any:
        task.trainable_module = nn.parallel.DistributedDataParallel(task.trainable_module, **more)
        return task

    register_model(same_weights_net)
    ClassificationTask.prepare_distributed = prepare_distributed
    pictures = Path(training.folder) / "pictures"
    if training.rank == 0 and not pictures.exists():
        write_pictures(parts, pictures)
    channels, height, width = parts.pixels.shape[1:]
    black, white = (float(parts.scaling.apply(torch.full((1, 1, 1, 1), at))) for at in (0, 255))
    deviation = 1 / (white - black)
    words = ["--data-dir", str(pictures), "--val-split", "", "--num-classes", "10"]
    words += ["--input-size", str(channels), str(height), str(width)]
    words += ["--mean", str(-black * deviation), "--std", str(deviation), "--crop-pct", "1"]
    words += ["--model", "same_weights_net", "--device", "cpu", "--no-prefetcher", "--no-aug"]
    words += ["--workers", "0", "--smoothing", "0", "--seed", str(training.seed)]
    words += ["--opt", "adam", "--lr", str(LEARNING_RATE), "--weight-decay", "0"]
    words += ["--sched", "step", "--decay-rate", "1", "--warmup-epochs", "0"]
    words += ["--epochs", str(training.epochs)]
    words += ["--batch-size", str(training.rank_batch_size)]
    words += ["--output", training.folder, "--experiment", "run"]
    last = Path(training.folder) / "run" / "last.pth.tar"
    words += ["--resume", str(last)] if last.exists() else []
    assert training.timm
    sys.argv = [training.timm, *words]
    runpy.run_path(training.timm, run_name="__main__")


def write_pictures(parts: Parts, folder: Path) -> None:
    """Write the images as PNG files, a folder a class."""
    for name in range(10):
        (folder / "train" / str(name)).mkdir(parents=True)
    for index, (pixels, target) in enumerate(zip(parts.pixels, parts.targets, strict=True)):
        path = folder / "train" / str(int(target)) / f"{index:05}.png"
        Image.fromarray(pixels[0].numpy()).save(path)
