"""Fine-tuning by other libraries, each as its documentation shows it, and by a plain loop."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from finetune_loops import Task, parts

RATE, BODY_FACTOR, WEIGHT_DECAY = 1e-3, 0.2, 0.01


def plain(task: Task) -> dict[str, float]:
    """Train by a loop of a dozen lines: AdamW and a cosine over all steps."""
    batches = parts.load(task, "train", parts.for_training(task))
    net = parts.build_net(len(batches.dataset.classes))  # type: ignore[attr-defined]
    named = list(net.named_parameters())
    head = [one for name, one in named if name.startswith(parts.HEAD)]
    body = [one for name, one in named if not name.startswith(parts.HEAD)]
    groups = [{"params": body, "lr": RATE * BODY_FACTOR}, {"params": head, "lr": RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
    steps = task.epochs * len(batches)  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start_s = time.perf_counter()
    for _ in range(task.epochs):
        for images, targets in batches:
            with parts.autocast():
                logits = net(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=parts.LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return {"train_s": time.perf_counter() - start_s, **parts.test(net, task)}


def fastai(task: Task) -> dict[str, float]:
    """Train as fastai's documentation of `vision_learner` does: docs.fast.ai/vision.learner.html.

    The head alone for an epoch, then all; its pictures, augmentation, head and policy of rates.
    """
    from fastai.vision import all as vision

    data = vision.ImageDataLoaders.from_folder(
        task.root,
        train="train",
        valid="validation",
        item_tfms=vision.Resize(task.image_size * 4 // 3),
        batch_tfms=[
            *vision.aug_transforms(size=task.image_size),
            vision.Normalize.from_stats(parts.MEAN, parts.DEVIATION),
        ],
        bs=task.batch_size,
        num_workers=task.workers,
        seed=task.seed,
    )
    learner = vision.vision_learner(
        data, parts.NET, pretrained=False, normalize=False, metrics=vision.accuracy
    )
    body = parts.build_net(1).state_dict()
    body = {name: one for name, one in body.items() if not name.startswith(parts.HEAD)}
    learner.model[0].model.load_state_dict(body)
    learner.model[0].to(memory_format=torch.channels_last)
    learner.add_cb(_Autocast(vision))
    start_s = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(task.epochs)
    train_s = time.perf_counter() - start_s
    found = {"train_s": train_s}
    for key, part in {"validation_accuracy": "validation", "accuracy": "test"}.items():
        files = vision.get_image_files(Path(task.root) / part)
        batches = data.test_dl(files, with_labels=True)
        with learner.no_bar():
            found[key] = float(learner.validate(dl=batches)[1])
    return found


def _Autocast(vision: Any) -> Any:  # noqa: N802
    """Return fastai's callback for mixed precision, for a CPU: its own is for GPUs."""

    class Autocast(vision.Callback):  # type: ignore[misc]
        def before_batch(self) -> None:
            self.context = parts.autocast()
            self.context.__enter__()  # type: ignore[no-untyped-call]

        def after_pred(self) -> None:
            self.context.__exit__(None, None, None)
            self.learn.pred = self.learn.pred.float()

    return Autocast()


def lightning(task: Task) -> dict[str, float]:
    """Train as Lightning's documentation of `BackboneFinetuning` does.

    lightning.ai/docs/pytorch/stable/advanced/finetuning.html: the head and batch norm for an epoch,
    then all, the rest of the body from a tenth of the rate on, which doubles with each epoch.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import BackboneFinetuning

    class Tuned(pl.LightningModule):  # type: ignore[misc]
        def __init__(self, net: Any) -> None:
            super().__init__()
            self.head = net.get_classifier()
            net.reset_classifier(0)
            self.backbone = net

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            images, targets = batch
            features = self.backbone(images.contiguous(memory_format=torch.channels_last))
            return F.cross_entropy(
                self.head(features).float(), targets, label_smoothing=parts.LABEL_SMOOTHING
            )

        def configure_optimizers(self) -> torch.optim.Optimizer:
            trained = filter(lambda one: one.requires_grad, self.parameters())
            return torch.optim.AdamW(trained, RATE, weight_decay=WEIGHT_DECAY)

    batches = parts.load(task, "train", parts.for_training(task))
    module = Tuned(parts.build_net(len(batches.dataset.classes)))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            precision="bf16-mixed",
            max_epochs=task.epochs,
            callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=1)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        start_s = time.perf_counter()
        trainer.fit(module, batches)
        train_s = time.perf_counter() - start_s
    net = nn.Sequential(module.backbone, module.head)
    return {"train_s": train_s, **parts.test(net, task)}


def timm(task: Task) -> dict[str, float]:
    """Train from the parts of timm's train.py: loader, mixing, optimiser and schedule.

    As in its documentation of fine-tuning: RandAugment, mixup and cutmix off for few epochs, a
    cosine with a warm-up, decay of rates by layer.
    """
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    dataset = create_dataset("", root=str(Path(task.root) / "train"), split="train")
    batches = create_loader(
        dataset,
        input_size=(3, task.image_size, task.image_size),
        batch_size=task.batch_size,
        is_training=True,
        use_prefetcher=False,
        scale=parts.AREA,
        color_jitter=0.4,
        auto_augment="rand-m9-inc1",  # without noise: it ends below one bit, which Pillow refuses
        interpolation="bilinear",
        mean=parts.MEAN,
        std=parts.DEVIATION,
        num_workers=task.workers,
        persistent_workers=True,
    )
    net = parts.build_net(len(dataset.reader.class_to_idx))
    optimizer = create_optimizer_v2(
        net, opt="adamw", lr=RATE, weight_decay=WEIGHT_DECAY, layer_decay=0.75
    )
    schedule, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=task.epochs,
        warmup_epochs=min(1, task.epochs // 2),
        warmup_lr=1e-5,
        step_on_epochs=False,
        updates_per_epoch=len(batches),
    )
    loss_of = LabelSmoothingCrossEntropy(parts.LABEL_SMOOTHING)
    updates = 0
    start_s = time.perf_counter()
    for _ in range(task.epochs):
        for images, targets in batches:
            with parts.autocast():
                logits = net(images.contiguous(memory_format=torch.channels_last))
                loss = loss_of(logits.float(), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            schedule.step_update(updates)
    return {"train_s": time.perf_counter() - start_s, **parts.test(net, task)}


class _Classifier(nn.Module):
    """A net with its loss, as HF Trainer wants it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.net(pixel_values.contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(logits.float(), labels), logits


def transformers(task: Task) -> dict[str, float]:
    """Train by HF Trainer with the transforms of its example for image classification.

    Its own rate of 5e-5 is for transformers; this is the plain loop's.
    """
    from transformers import Trainer, TrainingArguments

    dataset = parts.read(task, "train", parts.for_training(task))
    net = parts.build_net(len(dataset.classes))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=True,
            num_train_epochs=task.epochs,
            per_device_train_batch_size=task.batch_size,
            dataloader_num_workers=task.workers,
            learning_rate=RATE,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=task.seed,
        )
        trainer = Trainer(
            model=_Classifier(net), args=arguments, train_dataset=dataset, data_collator=_collate
        )
        start_s = time.perf_counter()
        trainer.train()
        train_s = time.perf_counter() - start_s
    return {"train_s": train_s, **parts.test(net, task)}


def _collate(samples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    images, targets = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(targets)}


LOOPS = {
    "plain": plain,
    "fastai": fastai,
    "lightning": lightning,
    "timm": timm,
    "transformers": transformers,
}
