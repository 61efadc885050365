"""Train from Python, in a notebook or a script, and register your own parts.

from trainer.api import train

run = train("configs/digits.yaml", seed=1, train={"epochs": 3}, output_dir="runs/first")
run.results["test"]["accuracy"]
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import NonFiniteLossError, StoppedOnRequest, UserError
from trainer.base.terminal import percent
from trainer.config import command_line
from trainer.config.plugins import (
    register_augmentation,
    register_dataset,
    register_loss,
    register_model,
    register_optimizer,
    register_schedule,
    register_tracker,
)
from trainer.config.schema import RunConfig, folder_of
from trainer.data.sources.user_dataset import OwnImages
from trainer.ranks import processes
from trainer.run.console import omitted_note, worst_rows
from trainer.run.main_figure import has_several_labels
from trainer.run.metrics_log import by_event, read_records
from trainer.run.recorder import Hook, Hooks
from trainer.training.observer import Record

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from trainer.finished.trained_model import TrainedModel

__all__ = [
    "NonFiniteLossError",
    "OwnImages",
    "Run",
    "RunConfig",
    "StoppedOnRequest",
    "UserError",
    "register_augmentation",
    "register_dataset",
    "register_loss",
    "register_model",
    "register_optimizer",
    "register_schedule",
    "register_tracker",
    "train",
]


def train(
    recipe: str | os.PathLike[str] | RunConfig,
    *,
    on_step: Hook | None = None,
    on_epoch: Hook | None = None,
    **changes: Any,
) -> Run:
    """Do a run, or what is left of it: as `python train.py --config RECIPE`, to the same bits.

    The same call goes on with a run that was stopped; of a finished one it gives the results.
    Unlike train.py it starts no processes, because what they did to the variables of your program,
    as in a hook, would be lost, and because one that has computed cannot be forked. So on several
    cores or GPUs train.py is faster, or torchrun with your script.

    Args:
        recipe: a YAML file, or a whole configuration.
        on_step: gets the record of every step, as it stands in metrics.jsonl, some together about
            every second; on rank 0. It sees and changes nothing, and its failure is a warning.
        on_epoch: likewise of every epoch.
        changes: keys of the configuration: values, and for a section a mapping of those of its
            keys that change, `optimizer={"lr": 0.1}`.

    Raises:
        UserError: something that you can put right, in one message.
        StoppedOnRequest: asked to, by an interrupt for one; everything is saved.
        NonFiniteLossError: a loss is infinite or not a number.
    """
    config = command_line.combine(recipe, changes)
    processes.check_launch(config, starts_others=False)
    from trainer.ranks import caller_settings
    from trainer.run.training_run import run_training

    with caller_settings.preserve_caller_settings():
        run_training(config, hooks=Hooks(on_step, on_epoch))
    return Run(folder_of(config), config)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run."""

    folder: Path
    """where its files are"""
    config: RunConfig
    """as asked for; config.yaml in the folder has everything that was filled in"""

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json."""
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text("utf-8"))
        return found

    @cached_property
    def steps(self) -> dict[str, list[Any]]:
        """Curves over the steps, a list each: step, epoch, loss, lr."""
        return _columns(self._records[0])

    @cached_property
    def epochs(self) -> dict[str, list[Any]]:
        """Curves over the epochs: epoch, train_loss, validation_accuracy and so on."""
        return _columns(self._records[1])

    @cached_property
    def predictions(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays of the test set, in its order: index, target, predicted, probability, (n,)."""
        import numpy as np

        with np.load(self.folder / "predictions.npz") as arrays:
            return dict(arrays)

    @cached_property
    def model(self) -> TrainedModel:
        """The network with the chosen weights, on the CPU, ready for pictures."""
        from trainer.finished import trained_model

        return trained_model.load(self.folder, self.config.model.name)

    def __repr__(self) -> str:
        test = self.results["test"]
        name, figure, _ = _judged_by(test)
        return (
            f"Run({str(self.folder)!r}, test {name} {percent(test[figure])}, "
            f"worst class {test['worst_class']})"
        )

    def _repr_html_(self) -> str:
        """Return the table of a notebook: a line for each class or, of many, the worst."""
        test = self.results["test"]
        name, figure, of_class = _judged_by(test)
        shown = worst_rows(test["per_class"], figure=figure)
        rows = "".join(
            f"<tr><td>{html.escape(row['name'])}</td><td>{row['support']:,}</td>"
            f"<td>{percent(row[figure])}</td></tr>"
            for row in shown
        )
        others = omitted_note(test["per_class"], shown)
        return (
            f"<p>{name} <b>{percent(test[figure])}</b> of {test['samples']:,} test images, "
            f"worst class {html.escape(str(test['worst_class']))}; "
            f"<code>{html.escape(str(self.folder))}</code></p>"
            f"<table><tr><th>class</th><th>images</th><th>{of_class}</th></tr>{rows}</table>"
            + (f"<p>{others}</p>" if others else "")
        )

    @cached_property
    def _records(self) -> tuple[list[Record], list[Record]]:
        return by_event(read_records(self.folder / "metrics.jsonl"))


def _judged_by(test: dict[str, Any]) -> tuple[str, str, str]:
    """Return what judges a run: in words, its key in results.json, and in words of one class."""
    if has_several_labels(test):
        return "mAP", "average_precision", "average precision"
    return "accuracy", "accuracy", "accuracy"


def _columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    names = [name for name in records[0] if name != "event"] if records else []
    return {name: [record[name] for record in records] for name in names}
