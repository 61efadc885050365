"""The page of a cross-validation, in the style of a run's report."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.files import write_text
from trainer.run.report import pages
from trainer.run.report.run_report import classes_shown, mistakes_of, save_confusion, shown_mistakes
from trainer.training.metrics import confusion_of


def write_page(
    path: Path,
    found: dict[str, Any],
    columns: dict[str, np.ndarray],
    pictures: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Write confusion.png and crossval.html; recipe.yaml is there.

    Args:
        found: what crossval.json holds.
        columns: as out_of_fold.npz has them.
        pictures: gives the training images at some positions in file order, int64 (n,), as uint8
            (n, height, width) or (n, height, width, 3).
    """
    pooled = found["out_of_fold"]
    names = [row["name"] for row in pooled["per_class"]]
    confusion = confusion_of(columns["target"], columns["predicted"], len(names))
    save_confusion(path / "confusion.png", confusion, names)
    mistakes = mistakes_of(columns)
    page = pages.render(
        "crossval.html",
        found=found,
        results={"test": pooled},
        **classes_shown(pooled, confusion, names),
        mistakes=shown_mistakes(mistakes, pictures(mistakes["index"]), names),
        confusion=pages.file_uri(path / "confusion.png"),
        facts=_facts(found),
        config_text=(path / "recipe.yaml").read_text(encoding="utf-8"),
        command=_command(path, found["folds"]),
    )
    write_text(path / "crossval.html", page)


def _facts(found: dict[str, Any]) -> dict[str, str]:
    """What was trained, on what and how long: label and text."""
    model, data, runs = found["model"], found["data"], found["runs"]
    sizes = sorted({each["train_samples"] for each in runs})
    return {
        "Model": f"{model['name']}, {model['parameters']:,} parameters",
        "Data": f"{data['name']}: {data['samples']:,} training images in {len(runs)} folds; the "
        f"test images were left alone",
        "Each fold": f"trained on {' or '.join(f'{size:,}' for size in sizes)} images",
        "Training": f"{pages.duration(sum(each['seconds'] for each in runs))} in all",
        "Seed": f"{found['seed']}, the same for the division and for every fold's training",
    }


def _command(path: Path, folds: int) -> str:
    """The command that repeats the cross-validation beside it."""
    again = path.with_name(f"{path.name}-again")
    words = ["python", "-m", "trainer", "crossval", "--config", str(path / "recipe.yaml")]
    return shlex.join([*words, "--folds", str(folds), "--output_dir", str(again)])
