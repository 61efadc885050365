"""Trainers that resume within an epoch: Accelerate, PyTorch Lightning and HF Trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from contenders.task import LEARNING_RATE, NamedDataset, Parts
from torch.utils.data import DataLoader

from same_weights_trainers.training import Training


def accelerate(training: Training, parts: Parts) -> None:
    """Train by Accelerate's examples/complete_cv_example.py, made repeatable in its shuffling.

    Without set_epoch it resumes in the order of the first epoch (1.15.0); without its own
    generator the loader takes a number from the stream of dropout when it resumes.
    """
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration, set_seed

    set_seed(training.seed, deterministic=True)
    loading = DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True)
    accelerator = Accelerator(cpu=True, dataloader_config=loading)
    generator = torch.Generator().manual_seed(training.seed)
    batches: DataLoader[Any] = DataLoader(
        parts.dataset(), batch_size=training.batch_size, shuffle=True, generator=generator
    )
    model, optimizer, loader = accelerator.prepare(parts.model, parts.adam(), batches)
    first_epoch, done = 0, 0
    for folder in Path(training.folder).glob("step_*"):
        accelerator.load_state(str(folder))
        first_epoch, done = divmod(int(folder.name.removeprefix("step_")), len(loader))
    step = first_epoch * len(loader) + done
    for epoch in range(first_epoch, training.epochs):
        model.train()
        loader.set_epoch(epoch)
        resumed = epoch == first_epoch and done > 0
        for images, targets in accelerator.skip_first_batches(loader, done) if resumed else loader:
            loss = F.cross_entropy(model(images), targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step % training.save_every == 0:
                accelerator.save_state(f"{training.folder}/step_{step}")


def lightning(training: Training, parts: Parts) -> None:
    """Train by PyTorch Lightning's Trainer with ModelCheckpoint and ckpt_path.

    One process has the strategy for several too, without which it shuffles differently.
    """
    _lightning(training, parts, DataLoader, strategy="ddp")


def lightning_stateful(training: Training, parts: Parts) -> None:
    """Train the same with torchdata's loader, which can be resumed within an epoch.

    With Lightning's sampler for several processes it resumes in another order (2.6.6).
    """
    from torchdata.stateful_dataloader import StatefulDataLoader

    strategy = "ddp" if training.processes > 1 else "auto"
    _lightning(training, parts, StatefulDataLoader, strategy)


def _lightning(
    training: Training, parts: Parts, loader: Callable[..., DataLoader[Any]], strategy: str
) -> None:
    import pytorch_lightning as pl
    from contenders.lightning import LitClassifier
    from pytorch_lightning.callbacks import ModelCheckpoint

    pl.seed_everything(training.seed, workers=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy=strategy,
        devices=training.processes,
        max_epochs=training.epochs,
        deterministic=True,
        callbacks=[ModelCheckpoint(training.folder, every_n_train_steps=training.save_every)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    saved = [str(path) for path in Path(training.folder).glob("*.ckpt")]
    trainer.fit(
        LitClassifier(parts),
        loader(parts.dataset(), batch_size=training.rank_batch_size, shuffle=True),
        ckpt_path=saved[0] if saved else None,
    )


def hf_trainer(training: Training, parts: Parts) -> None:
    """Train by HF Trainer with full_determinism and resume_from_checkpoint."""
    from contenders.hf_trainer import Classifier
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=training.folder,
        use_cpu=True,
        seed=training.seed,
        full_determinism=True,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.rank_batch_size,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        save_steps=training.save_every,
        report_to="none",
        disable_tqdm=True,
    )
    samples = NamedDataset("pixel_values", "labels", parts.images, parts.targets, None)
    trainer = Trainer(model=Classifier(parts.model), args=arguments, train_dataset=samples)
    trainer.train(resume_from_checkpoint=any(Path(training.folder).glob("checkpoint-*")))
