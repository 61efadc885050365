"""Do a training that same_weights.py compares, as its trainer's documentation shows it.

`python same_weights_trainers.py NAME TRAINING` does one, in one process or as a rank of torchrun's.
All have the same first weights, images, global batch, Adam at a constant 1e-3, float32 and one
thread, and are seeded by their own means. If there is a checkpoint in the folder, they resume.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from contenders.task import LEARNING_RATE, NamedDataset, Parts, Task
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
PIECES = 2
"""of a batch of ours: one for each of two processes"""


@dataclass(frozen=True, kw_only=True)
class Training(Task):
    """A training, as JSON; the batch size is that of all processes together."""

    save_every: int
    """steps between checkpoints"""
    killed: bool
    """whether the process ends in the second step after the first checkpoint"""
    output: str
    """the folder for what was seen, and for the last weights"""

    @property
    def rank_batch_size(self) -> int:
        """The batch size of one process."""
        return self.batch_size // PROCESSES


class Seen:
    """Records which images a model has been trained on, by forward pass.

    A hook of the model, as nothing else is common to the trainers: it finds the images themselves.
    """

    def __init__(self, training: Training, parts: Parts, pieces: int = 1) -> None:
        self.training = training
        self.images = parts.images.flatten(1)
        self.last = (training.save_every + 1) * pieces if training.killed else None
        self.forwards: list[list[int]] = []

    def __call__(self, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Record a forward pass before it is done."""
        if not model.training:
            return
        if len(self.forwards) == self.last:
            self.write()
            time.sleep(1)  # a checkpoint may be written in the background
            os.kill(os.getpid(), signal.SIGKILL)
        distances = torch.cdist(inputs[0].flatten(1), self.images)
        self.forwards.append(distances.argmin(1).tolist())

    def write(self) -> None:
        """Write the file of this rank."""
        path = Path(self.training.output) / f"seen-{RANK}.json"
        path.write_text(json.dumps(self.forwards))


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

    strategy = "ddp" if PROCESSES > 1 else "auto"
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
        devices=PROCESSES,
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


def lockstep(training: Training, parts: Parts) -> None:
    """Train by the parts of train.py."""
    from contenders.lockstep import configuration

    from trainer.run.engine_builder import build_engine
    from trainer.run.session import Session

    run = configuration(training, microbatches=PIECES, save_every=training.save_every)
    with Session(run) as session:
        assert session.open()
        engine = build_engine(
            session.accelerator, session.config, session.checkpoints, session.stop
        )
        session.start(engine)
        seen = Seen(training, parts, PIECES // PROCESSES)
        engine.module.register_forward_pre_hook(seen)
        engine.fit()
        seen.write()
        parts.model.load_state_dict(engine.module.state_dict())


TRAINERS: dict[str, Callable[[Training, Parts], None]] = {
    function.__name__: function
    for function in (lockstep, accelerate, lightning, lightning_stateful, hf_trainer)
}


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


def main() -> None:
    """Train, and write the images seen and the last weights."""
    name, text = sys.argv[1:]
    training = Training(**json.loads(text))
    torch.set_num_threads(1)
    parts = Parts(training)
    seen = Seen(training, parts)
    hook = parts.model.register_forward_pre_hook(seen)
    TRAINERS[name](training, parts)
    hook.remove()
    if name != "lockstep":  # which trains another model
        seen.write()
    if RANK == 0:
        write_end(training, parts)


if __name__ == "__main__":
    main()
