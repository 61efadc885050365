"""The files that a trained run ends with: model, predictions and results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from trainer.base.files import write_json
from trainer.base.tensor_files import Tensors, weights_sha256, write_tensors
from trainer.config.schema import DataConfig, RunConfig
from trainer.data.pictures.resizing import MIDDLE, fit_of
from trainer.data.scaling import encode_scaling
from trainer.data.slices import slices_of_test
from trainer.data.stored.form import quality_of
from trainer.network import model_state
from trainer.run import receipt, results
from trainer.run.metrics_log import read_records
from trainer.training.engine import Engine
from trainer.training.label_metrics import LabelPredictions
from trainer.training.slices import slice_accuracies
from trainer.training.weight_selection import TestedWeights


def write(
    folder: Path,
    config: RunConfig,
    engine: Engine,
    tested: TestedWeights,
    final_sha256: str,
    peak_bytes: int,
) -> dict[str, Any]:
    """Write model.safetensors, predictions.npz, receipt.json and results.json.

    Args:
        engine: with the chosen weights.
        final_sha256: digest of the weights after the last step.
        peak_bytes: the most memory that a process had.

    Returns:
        What results.json holds.
    """
    weights = model_state.tensors_to_write(engine.module)
    metadata, scaling = _model_metadata(config, engine)
    if tested.calibration:
        metadata["temperature"] = tested.calibration.temperature
    if isinstance(tested.test, LabelPredictions):
        metadata["thresholds"] = tested.test.thresholds.tolist()
    path = folder / "model.safetensors"
    write_tensors(path, {**weights, **scaling}, {"model": json.dumps(metadata)})
    results.write_predictions(folder / "predictions.npz", tested.test, tested.validation)
    class_names = engine.data.class_names
    columns = slices_of_test(config.data, config.seed, engine.data.test)
    found = {
        "test": {
            **results.test_results(tested.test, tested.augmented, class_names, config),
            "slices": slice_accuracies(tested.test, columns) or None,
        },
        "calibration": results.calibration_results(tested),
        **results.run_results(config, engine, peak_bytes),
        "weights_sha256": weights_sha256(weights),
        "final_weights_sha256": final_sha256,
    }
    records = read_records(folder / "metrics.jsonl")
    issued = receipt.make(config, found, engine.snapshot.fingerprints, records)
    receipt.write(folder, issued)
    found["receipt_sha256"] = issued["sha256"] if issued else None
    for name in ("report.html", "README.md", "confusion.npz"):
        # Those of a run of fewer epochs must not stay next to these results.
        (folder / name).unlink(missing_ok=True)
    write_json(folder / "results.json", found)
    return found


def _model_metadata(config: RunConfig, engine: Engine) -> tuple[dict[str, Any], Tensors]:
    """Return what building and feeding the model again takes, some of it as tensors."""
    dataset = engine.data
    channels, *image_size = dataset.train.images.shape[1:]
    numbers, tensors = encode_scaling(dataset.scaling)
    metadata = {
        "name": config.model.name,
        "args": config.model.args,
        "num_classes": len(dataset.class_names),
        "in_channels": channels,
        "image_size": image_size,
        "resize": config.data.resize,
        **_fit_metadata(config.data),
        "store_size": config.data.store_size,
        "store_quality": quality_of(config.data),
        "class_names": dataset.class_names,
        **numbers,
        "test_augment": config.data.test_augment,
        "evaluation_batch_size": engine.selection.block_samples,
        **({"grey_range": dataset.grey_range} if dataset.grey_range else {}),
        "seed": config.seed,
        **model_state.effects_to_metadata(engine.module),
    }
    return metadata, tensors


def _fit_metadata(data: DataConfig) -> dict[str, Any]:
    """Return what differs from the usual way of making pictures fit, which needs no words."""
    found, usual = dataclasses.asdict(fit_of(data)), dataclasses.asdict(MIDDLE)
    return {key: found[key] for key in ("crop_share", "interpolation") if found[key] != usual[key]}
