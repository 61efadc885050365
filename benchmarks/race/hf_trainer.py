"""HF Trainer as in examples/pytorch/image-classification, github.com/huggingface/transformers.

AdamW with a rate that falls to nothing in a straight line, the Trainer's own defaults. Its rate of
2e-5 is for transformers that were trained before, and so are its pictures of 224 pixels. `bf16` is
its switch for mixed precision.
"""

from __future__ import annotations

from contenders.hf_trainer import Classifier
from contenders.task import NamedDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from race import Task, parts

RATE, BATCH_SIZE = 3e-3, 64


def train(task: Task, curve: parts.Curve) -> None:
    """Train the net of the race, without files and bars."""
    made = parts.make(task, BATCH_SIZE, augment=True, channels_last=True)
    arguments = TrainingArguments(
        output_dir=task.folder,
        use_cpu=True,
        bf16=True,
        num_train_epochs=task.length(),
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=RATE,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=task.seed,
    )
    callback = curve.callback(
        TrainerCallback, "on_epoch_begin", "on_epoch_end",
        lambda: parts.accuracy(made.model, made),
    )  # fmt: skip
    trainer = Trainer(
        model=Classifier(made.model),
        args=arguments,
        train_dataset=NamedDataset(
            "pixel_values", "labels", made.images, made.targets, made.transform
        ),
        callbacks=[callback],
    )
    trainer.train()
