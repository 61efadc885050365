"""The trackers of Accelerate, given the figures, pictures and results of a run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.schema import TrackerName
from trainer.run.main_figure import has_several_labels, main_figure
from trainer.training.observer import Record

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "lockstep"
"""where no project is named"""
TEST_FIGURES = (
    "accuracy", "lab_accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision",
    "loss", "calibration_error", "subset_accuracy", "micro_f1",
)  # fmt: skip
"""of the part `test` of the results, which are logged where they are there"""
PICTURES = ("curves", "confusion", "calibration", "mistakes", "features")
MOST_CLASS_CURVES = 256
"""classes with a curve of their own; of more, the trackers' pages get slow"""


class AccelerateTracker:
    """Logs train/loss and train/lr of steps, epoch/* of epochs at their last step, then test/*.

    Args:
        tracker: one of Accelerate's, started.
        step: after which the run goes on.
    """

    def __init__(self, tracker: GeneralTracker, folder: Path, step: int) -> None:
        self.tracker = tracker
        self.folder = folder
        self.step = step

    def log(self, record: Record) -> None:
        """Log the figures of a record."""
        self.step = record.get("step", self.step)
        self.tracker.log(self.figures(record), step=self.step)

    def figures(self, record: Record) -> dict[str, Any]:
        """Return the figures of a record by the names of their curves."""
        if record["event"] == "step":
            return {f"train/{key}": record[key] for key in ("loss", "lr")}
        return {f"epoch/{key}": value for key, value in record.items() if isinstance(value, float)}

    def finish(self, results: dict[str, Any] | None) -> None:
        """Log the results and pictures, and close the tracker."""
        if results is not None:
            self.tracker.log(self.test_figures(results["test"]), step=self.step)
            for name, path in pictures(self.folder).items():
                self.log_picture(name, path)
        self.tracker.finish()

    def test_figures(self, test: dict[str, Any]) -> dict[str, float]:
        """Return the figures of the part `test` of the results."""
        figure = main_figure(test)
        # Of several labels the accuracy is the subset accuracy, which has its own name.
        left_out = "accuracy" if has_several_labels(test) else None
        values = {
            f"test/{key}": test[key]
            for key in TEST_FIGURES
            if test.get(key) is not None and key != left_out
        }
        if "augmented" in test:
            values[f"test/augmented_{figure}"] = test["augmented"][figure]
        return values

    def log_picture(self, name: str, path: Path) -> None:
        """Log a PNG file, where Accelerate knows how."""
        if self.tracker.name == "mlflow":
            self.tracker.log_artifact(str(path), "pictures")
        elif self.tracker.name in ("aim", "clearml"):
            from PIL import Image

            with Image.open(path) as picture:
                self.tracker.log_images({name: picture.convert("RGB")}, step=self.step)


class TensorBoardTracker(AccelerateTracker):
    """Writes TensorBoard's files into the folder `tensorboard` of the run's.

    Args:
        step: after which the run goes on; TensorBoard hides points of later steps.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """

    def __init__(self, folder: Path, configuration: str, step: int) -> None:
        super().__init__(self._open(folder, step), folder, step)
        if step == 0:
            indented = "".join(f"    {line}\n" for line in configuration.splitlines())
            self.tracker.log({"configuration": indented}, step=0)

    @staticmethod
    def _open(folder: Path, step: int) -> GeneralTracker:
        from accelerate import tracking

        if not is_installed("tensorboard"):
            raise ModuleNotFoundError(
                "the package tensorboard is not installed "
                "(pip install 'lockstep-trainer[tensorboard]')"
            )
        tracker = tracking.TensorBoardTracker("tensorboard", folder, purge_step=step + 1)
        tracker.start()
        return tracker

    def log(self, record: Record) -> None:
        """Log a record; where the run has gone back, it replaces the one of its step."""
        if record["event"] == "step" and record["step"] <= self.step:
            self.tracker.finish()
            self.tracker = self._open(self.folder, record["step"] - 1)
        super().log(record)

    def test_figures(self, test: dict[str, Any]) -> dict[str, float]:
        """Return the figures of the part `test` of the results, with those of the classes."""
        return super().test_figures(test) | class_figures(test)

    def log_picture(self, name: str, path: Path) -> None:
        """Log a PNG file."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self.tracker.log_images({name: pixels[None]}, step=self.step, dataformats="NHWC")


def pictures(folder: Path) -> dict[str, Path]:
    """Return the pictures in a run's folder, by the names under which they are logged."""
    paths = {f"pictures/{name}": folder / f"{name}.png" for name in PICTURES}
    return {name: path for name, path in paths.items() if path.exists()}


def class_figures(test: dict[str, Any]) -> dict[str, float]:
    """Return the accuracy of each class by the name of its curve; none of too many classes.

    Of several labels it is the average precision of each.
    """
    rows, figure = test["per_class"], main_figure(test)
    if len(rows) > MOST_CLASS_CURVES:
        return {}
    return {
        f"test/class_{figure}/{row['name']}": row[figure] for row in rows if row[figure] is not None
    }


def start(
    name: TrackerName,
    config: dict[str, Any],
    project: str | None,
    folder: Path,
    run_id: str,
    step: int,
) -> AccelerateTracker:
    """Start a tracker of `tracking.trackers`.

    Where its library accepts an id, a run that goes on continues the tracker's run; MLflow's is
    found by a tag. The libraries' own variables, such as MLFLOW_TRACKING_URI, apply.

    Args:
        project: None: PROJECT.
        step: after which the run goes on.
    """
    tracker = _create(name, project or PROJECT, folder, run_id)
    tracker.start()
    if step == 0:
        tracker.store_init_configuration(config)
    return AccelerateTracker(tracker, folder, step)


def _create(name: TrackerName, project: str, folder: Path, run_id: str) -> GeneralTracker:
    from accelerate import tracking

    match name:
        case "aim":
            return tracking.AimTracker(folder.name, folder / "aim")
        case "clearml":
            task = os.environ.get("CLEARML_TASK", folder.name)
            return tracking.ClearMLTracker(project, task_name=task)
        case "comet_ml":  # its keys are 32 to 50 letters and digits
            key = hashlib.sha256(run_id.encode()).hexdigest()[:32]
            return tracking.CometMLTracker(project, experiment_key=key)
        case "mlflow":
            import mlflow

            tags = {"lockstep_run": run_id}
            found = mlflow.search_runs(
                search_all_experiments=True,
                filter_string=f"tags.lockstep_run = '{run_id}'",
                output_format="list",
            )
            known = found[0].info.run_id if found else None
            return tracking.MLflowTracker(project, run_id=known, run_name=folder.name, tags=tags)
        case "trackio":
            return tracking.TrackioTracker(project, name=f"{folder.name}-{run_id}", resume="allow")


def is_installed(name: str) -> bool:
    """Return whether Accelerate finds the package of a tracker."""
    from accelerate.tracking import get_available_trackers

    return name in map(str, get_available_trackers())
