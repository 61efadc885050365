"""The contents of results.json and predictions.npz."""

from __future__ import annotations

import platform
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.array_files import write_arrays
from trainer.base.files import write_file
from trainer.config.schema import (
    LAB_TEST_SAMPLES,
    LAB_TRAIN_SAMPLES,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from trainer.data.measurements import fingerprint_of
from trainer.training import figures
from trainer.training.averaging import chooses_final_mean
from trainer.training.confusion import count_confusion
from trainer.training.engine import Engine
from trainer.training.label_metrics import LabelPredictions, label_results
from trainer.training.metrics import LabelledPredictions, Predictions, per_class_results
from trainer.training.weight_selection import Found, TestedWeights

_BLOCK_ROWS = 100
"""of a confusion matrix, written together"""


def test_results(
    plain: Found,
    augmented: Found | None,
    class_names: tuple[str, ...],
    config: RunConfig,
) -> dict[str, Any]:
    """Return the part `test` of results.json, with `augmented` where `data.test_augment` asks."""
    of_lab = config.data.train_size == LAB_TRAIN_SAMPLES and config.data.folds is None
    lab = of_lab and len(plain) >= LAB_TEST_SAMPLES
    return figures_of(plain, augmented, class_names, config, lab=lab)


def figures_of(
    plain: Found,
    augmented: Found | None,
    class_names: tuple[str, ...],
    config: RunConfig,
    *,
    lab: bool = False,
) -> dict[str, Any]:
    """Return the figures of one set of images.

    Args:
        plain: with the probabilities of all classes.
        lab: whether to add the accuracy over the first LAB_TEST_SAMPLES of them.
    """
    if isinstance(plain, LabelPredictions):
        return _figures_of_labels(plain, augmented, class_names, config)
    results: dict[str, Any] = _overall(plain, lab) | {"samples": len(plain)}
    results |= figures.compute(plain, config.seed)
    if augmented is not None:
        assert isinstance(augmented, Predictions)
        results["augmented"] = {"by": config.data.test_augment} | _overall(augmented, lab)
    return results | per_class_results(plain, class_names)


def _figures_of_labels(
    plain: LabelPredictions,
    augmented: Found | None,
    class_names: tuple[str, ...],
    config: RunConfig,
) -> dict[str, Any]:
    """Return the figures of one set of images that may have several labels.

    Those that are about one class an image are None.
    """
    results: dict[str, Any] = dict.fromkeys(figures.FIGURES)
    results |= label_results(plain, class_names, config.seed)
    if isinstance(augmented, LabelPredictions):
        overall = {key: getattr(augmented, key) for key in ("accuracy", "average_precision")}
        by = {"by": config.data.test_augment, "loss": augmented.mean_loss}
        results["augmented"] = by | overall
    return results


def _overall(predictions: Predictions, lab: bool) -> dict[str, float]:
    shares = {"accuracy": predictions.accuracy}
    if lab:
        hits = predictions.predicted == predictions.target
        shares["lab_accuracy"] = float(np.mean(hits[:LAB_TEST_SAMPLES]))
    return shares | {
        "loss": predictions.mean_loss,
        "calibration_error": predictions.calibration_error,
    }


def calibration_results(tested: TestedWeights) -> dict[str, Any] | None:
    """Return the part `calibration` of results.json; None: the probabilities are not calibrated."""
    found = tested.calibration
    if found is None or not isinstance(tested.validation, Predictions):
        return None
    assert isinstance(tested.test, Predictions)
    pairs = {
        "validation": (found.validation_before, tested.validation),
        "test": (found.test_before, tested.test),
    }
    return {"temperature": found.temperature} | {
        part: {
            "ece": [one.calibration_error for one in both],
            "log_loss": [one.mean_loss for one in both],
        }
        for part, both in pairs.items()
    }


def run_results(config: RunConfig, engine: Engine, peak_bytes: int) -> dict[str, Any]:
    """Return the rest of results.json, except the digests of the weights.

    Args:
        peak_bytes: the most memory that a process had, on a GPU of the GPU's.
    """
    dataset, state = engine.data, engine.state
    epochs = state.epoch - 1
    rounding = list(state.rounding)
    mean = chooses_final_mean(config.train, state.epoch)
    figure = "average_precision" if dataset.test.has_several_labels else "accuracy"
    if config.train.reduction == "fast":
        rounding.append("train.reduction: fast, whose sums depend on the process count")
    return {
        "validation": {
            "chosen_by": config.train.choose_by,
            "best_figure": state.best_figure,
            f"best_{figure}": state.best_accuracy,
            "best_epoch": state.best_epoch,
            f"chosen_{figure}": state.last_accuracy if mean else state.best_accuracy,
            "chosen_epoch": epochs if mean else state.best_epoch or epochs,
        },
        "train": {
            "epochs": epochs,
            "steps": state.step,
            "skipped_steps": state.skipped_steps,
            "seconds": state.train_seconds,
            "samples_per_second": epochs * len(dataset.train) / state.train_seconds,
            "peak_memory_bytes": peak_bytes,
            "processes": engine.accelerator.num_processes,
            "microbatches": config.train.microbatches,
            "device": engine.environment["device"],
            "precision": config.train.precision,
            "kernels": config.train.kernels,
            "compile": config.train.compile,
            "teacher": _teacher(config.train),
        },
        "model": {
            "name": config.model.name,
            "parameters": sum(p.numel() for p in engine.module.parameters()),
            "weights": _starting_weights(config.model),
        },
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "test_fingerprint": fingerprint_of(dataset.test),
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
            "fold": config.data.fold,
            "folds": config.data.folds,
        },
        "seed": config.seed,
        "versions": _versions(),
        "environment": engine.environment,
        "equality": {"in_bits": not rounding, "because": rounding},
    }


def _starting_weights(model: ModelConfig) -> dict[str, str | None] | None:
    if model.weights is None:
        return None
    return {"source": model.weights, "sha256": model.weights_sha256}


def _teacher(train: TrainConfig) -> dict[str, str | float | None] | None:
    if train.teacher is None:
        return None
    return {
        "source": train.teacher,
        "sha256": train.teacher_sha256,
        "weight": train.teacher_weight,
        "temperature": train.temperature,
    }


def write_predictions(path: Path, predictions: Found, validation: Found | None = None) -> None:
    """Write predictions.npz: index, target, predicted, probability and loss, each of shape (n,).

    With them `probabilities` (n, classes), and of the validation images, where there are some, all
    of these again with the prefix validation_. Of images that may have several labels target and
    predicted are uint8 (n, classes), 0 or 1, there is no probability, and `thresholds` (classes,).
    """
    columns = _columns(predictions)
    if validation is not None:
        columns |= {f"validation_{name}": each for name, each in _columns(validation).items()}
    write_arrays(path, columns)


def _columns(predictions: Found) -> dict[str, np.ndarray]:
    if isinstance(predictions, LabelPredictions):
        return {
            "index": np.arange(len(predictions)),
            "target": predictions.target,
            "predicted": predictions.predicted,
            "loss": predictions.loss,
            "probabilities": predictions.probabilities,
            "thresholds": predictions.thresholds,
        }
    assert predictions.probabilities is not None
    return {
        "index": np.arange(len(predictions)),
        "target": predictions.target,
        "predicted": predictions.predicted,
        "probability": predictions.probability,
        "loss": predictions.loss,
        "probabilities": predictions.probabilities,
    }


def write_confusion(path: Path, answers: LabelledPredictions, classes: int) -> None:
    """Write confusion.npz: the whole matrix as `confusion`, int32 (classes, classes), rows true.

    It is compressed, as nearly all of it is zeros, and made a few rows at a time: of 10,000 classes
    it has 400 MB.
    """
    confusion = count_confusion(answers.target, answers.predicted, classes)
    head = {"descr": "<i4", "fortran_order": False, "shape": (classes, classes)}

    def write(temporary: Path) -> None:
        with (
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("confusion.npy", "w", force_zip64=True) as file,
        ):
            np.lib.format.write_array_header_1_0(file, head)
            for begin in range(0, classes, _BLOCK_ROWS):
                rows = confusion.rows(begin, min(begin + _BLOCK_ROWS, classes))
                file.write(rows.astype("<i4", copy=False).tobytes())

    write_file(path, write)


def _versions() -> dict[str, str]:
    packages = ("torch", "accelerate", "numpy", "scikit-learn", "safetensors")
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in packages}}
