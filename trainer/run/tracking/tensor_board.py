"""The course of a run as TensorBoard's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.run.tracking.attempts import MOST_CURVES, PICTURES, SHARES
from trainer.training.observer import Record

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""in the run's"""


class TensorBoardTracker:
    """Writes train/loss and train/lr of steps, epoch/* of epochs at their last step, then test/*.

    Args:
        output_dir: of the run.
        configuration: of the run, as YAML, for people.
        step: after which the run goes on; what TensorBoard's files have of later steps is hidden.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """

    def __init__(self, output_dir: Path, configuration: str, step: int) -> None:
        self._folder = output_dir / FOLDER
        self._step = step
        self._writer = self._open()
        if step == 0:
            indented = "".join(f"    {line}\n" for line in configuration.splitlines())
            self._writer.add_text("configuration", indented, 0)

    def log(self, records: Sequence[Record]) -> None:
        """As `Tracker`."""
        for record in records:
            if record["event"] == "step":
                if record["step"] <= self._step:  # the run has gone back
                    self._writer.close()
                    self._step = record["step"] - 1
                    self._writer = self._open()
                self._step = record["step"]
                values = {f"train/{key}": record[key] for key in ("loss", "lr")}
            else:
                values = {f"epoch/{key}": value for key, value in record.items()
                          if isinstance(value, float)}  # fmt: skip
            for name, value in values.items():
                self._writer.add_scalar(name, value, self._step)

    def finish(
        self, results: dict[str, Any] | None, output_dir: Path, stopped: bool = False
    ) -> None:
        """As `Tracker`."""
        if results is not None:
            self._add_results(results["test"], output_dir)
        self._writer.close()

    def _open(self) -> SummaryWriter:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the package tensorboard is not installed "
                "(pip install 'lockstep-trainer[tensorboard]')"
            ) from error
        return SummaryWriter(str(self._folder), purge_step=self._step + 1)

    def _add_results(self, test: dict[str, Any], output_dir: Path) -> None:
        import numpy as np
        from PIL import Image

        for key in SHARES:
            if key in test:
                self._writer.add_scalar(f"test/{key}", test[key], self._step)
        for row in test["per_class"] if len(test["per_class"]) <= MOST_CURVES else []:
            name = f"test/class_accuracy/{row['name']}"
            self._writer.add_scalar(name, row["accuracy"], self._step)
        for name in PICTURES:
            path = output_dir / f"{name}.png"
            if path.exists():
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                self._writer.add_image(f"pictures/{name}", pixels, self._step, dataformats="HWC")
