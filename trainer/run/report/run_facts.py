"""What a report says of a run as a whole: what was trained, and how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.run.report.pages import duration, percent


def facts_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Say what was trained, on which data and how long: label and text."""
    train, data, model = results["train"], results["data"], results["model"]
    validation = results["validation"]
    accuracy = validation.get("chosen_accuracy")
    precision = validation.get("chosen_average_precision")
    facts = {
        "Model": f"{model['name']}, {model['parameters']:,} parameters",
        "Data": f"{data['name']}: {data['train']:,} training, {data['validation']:,} validation "
        f"and {data['test']:,} test images",
        "Training": f"{train['epochs']:,} epochs, {train['steps']:,} steps, "
        f"{duration(train['seconds'])}, {train['samples_per_second']:,.0f} images/s",
        "Device": f"{train['device']}, {train['precision']}, processes: {train['processes']}, "
        f"micro-batches: {train['microbatches']}",
        "Seed": str(results["seed"]),
        "Chosen weights": f"those after epoch {validation['chosen_epoch']}",
    }
    if accuracy is not None:
        facts["Chosen weights"] += f", with {percent(accuracy)} on validation"
    if precision is not None:
        facts["Chosen weights"] += f", with a mAP of {percent(precision)} on validation"
    return facts


def command_of(output_dir: Path) -> str:
    """Return the command that repeats the run in a folder next to it."""
    again = output_dir.with_name(f"{output_dir.name}-again")
    config = output_dir / "config.yaml"
    return shlex.join(["python", "train.py", "--config", str(config), "--output_dir", str(again)])
