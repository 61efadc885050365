"""Put the folds of a cross-validation together: crossval.json, out_of_fold.npz and the page."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from trainer.base.array_files import write_arrays
from trainer.base.errors import UserError
from trainer.base.files import write_json, write_text
from trainer.base.strict_json import check_type
from trainer.base.terminal import format_table, percent
from trainer.commands.summary import FinishedRun, read_run
from trainer.config import command_line
from trainer.config.same_run import differences
from trainer.config.schema import RunConfig, folder_of, replace
from trainer.data.dataset import ImageSet
from trainer.data.loading import load_training
from trainer.data.measurements import fingerprint_of
from trainer.data.sources import reading
from trainer.data.split import Indices, take_fold
from trainer.run.report import pages
from trainer.run.report.attempt import attempt

CONFIDENCE = 0.95

METHOD = (
    "mean of the folds' accuracies, plus and minus Student's t at 95 % with one degree of freedom "
    "fewer than folds, times their standard deviation over the root of their number, clipped to 0 "
    "and 1"
)
CAVEAT = (
    "The folds are not independent, as their training images overlap, and no unbiased estimate of "
    "the variance exists (Bengio and Grandvalet, 2004): take the interval as a guide, most likely "
    "too narrow."
)

DIFFERENT_IN_FOLDS = ("data.fold:", "train.evaluation_batch_size:")
"""keys that may differ; the second may change where a fold lacks memory"""

Columns = dict[str, np.ndarray]
Pictures = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Form:
    """What a result has of its own: that of one class for each image, or that of several labels.

    Args:
        read: the answers in a fold's predictions.npz.
        summarise: what crossval.json contains, of the folds and all answers.
        write_more: writes other files than crossval.json and out_of_fold.npz.
        write_page: writes crossval.html and its pictures; is given what shows the training images
            at some positions in file order, int64 (n,), as uint8 (n, height, width) or
            (n, height, width, 3).
        lines: for the screen.
    """

    read: Callable[[Path], Columns]
    summarise: Callable[[Sequence[FinishedRun], Columns], dict[str, Any]]
    write_more: Callable[[Path, dict[str, Any], Columns], None]
    write_page: Callable[[Path, dict[str, Any], Columns, Pictures], None]
    lines: Callable[[dict[str, Any], Path], list[str]]


def write_result(folds: Sequence[RunConfig], form: Form) -> dict[str, Any]:
    """Write everything next to the folders of the folds, and print it.

    Args:
        folds: the configuration of each fold's run, all finished.

    Returns:
        What crossval.json contains.

    Raises:
        UserError: a fold is not finished, or a file of it is not what its run wrote.
    """
    finished = [_read_fold(folder_of(each)) for each in folds]
    path = finished[0].folder.parent
    recipe = _common_recipe(finished)
    # Where all folds were finished before, the images have not been prepared here.
    reading.prepare(folds[0].data)
    images, groups = load_training(folds[0].data)
    columns = _gather(folds, finished, images, groups, form.read)
    try:
        found = form.summarise(finished, columns)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: results.json of a fold is damaged ({error})") from error
    found["data"]["fingerprint"] = fingerprint_of(images)
    write_json(path / "crossval.json", found)
    write_arrays(path / "out_of_fold.npz", columns)
    form.write_more(path, found, columns)
    write_text(path / "recipe.yaml", command_line.to_yaml(recipe))
    attempt("the report", lambda: form.write_page(path, found, columns, images.pictures))
    print("\n".join(form.lines(found, path)), flush=True)
    return found


def _read_fold(folder: Path) -> FinishedRun:
    """Read a fold's run.

    Raises:
        UserError: it is not finished, or its results are damaged.
    """
    run, path = read_run(folder), folder / "results.json"
    for part in ("data", "model", "train"):
        check_type(run.results.get(part), dict[str, Any], f"{path}: {part}")
    check_type(run.results["data"].get("fold"), int, f"{path}: data.fold")
    return run


def _common_recipe(folds: Sequence[FinishedRun]) -> RunConfig:
    """Return the configuration that the folds have in common.

    Raises:
        UserError: they are not runs of one recipe.
    """
    first = folds[0]
    for other in folds:
        lines = differences(first.config, other.config)
        differing = [line for line in lines if not line.startswith(DIFFERENT_IN_FOLDS)]
        if differing:
            raise UserError(
                f"{other.folder}: not the recipe of {first.folder}: {'; '.join(differing)}; train "
                f"one of them again in an empty folder"
            )
    common = {"data.folds": None, "data.fold": None, "output_dir": str(first.folder.parent)}
    return replace(first.config, common)


def _gather(
    folds: Sequence[RunConfig],
    finished: Sequence[FinishedRun],
    images: ImageSet,
    groups: Indices | None,
    read: Callable[[Path], Columns],
) -> Columns:
    """Gather each image's out-of-fold answer: what `read` gives, index and fold.

    `index` is the position among the training images in file order; the rows are in that order.
    """
    labels = images.targets.numpy()
    parts: list[Columns] = []
    for each, fold in zip(folds, finished, strict=True):
        _, index = take_fold(each.data, labels, each.seed, groups=groups)
        path = folder_of(each) / "predictions.npz"
        try:
            columns = read(path)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(f"{path}: damaged or missing ({error})") from error
        if not np.array_equal(columns["target"], labels[index]):
            raise UserError(
                f"{path}: its classes are not those of fold {each.data.fold} of the images that "
                f"are there now; has data.root changed?"
            )
        tested = fold.results["data"].get("test_fingerprint")
        of_fold = ImageSet(*images.fetch(torch.from_numpy(index)))
        if tested is not None and tested != fingerprint_of(of_fold):
            raise UserError(
                f"{fold.folder}: was tested on other images than those of its fold that are there "
                f"now; data.root has changed, so train the folds again in an empty folder"
            )
        parts.append(columns | {"index": index, "fold": np.full(len(index), each.data.fold)})
    # Folds of older versions have no probabilities.
    names = [name for name in parts[0] if all(name in part for part in parts)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    order = np.argsort(whole["index"])
    return {name: column[order] for name, column in whole.items()}


def row_of(fold: FinishedRun) -> dict[str, Any]:
    """Return what crossval.json says of a fold."""
    found = fold.results
    return {
        "fold": found["data"]["fold"],
        "run": fold.folder.name,
        "accuracy": found["test"]["accuracy"],
        "loss": found["test"]["loss"],
        "samples": found["test"]["samples"],
        "train_samples": found["data"]["train"],
        "epochs": found["train"]["epochs"],
        "seconds": found["train"]["seconds"],
        "weights_sha256": found["weights_sha256"],
        "final_weights_sha256": found["final_weights_sha256"],
    }


def spread(accuracies: Sequence[float]) -> dict[str, Any]:
    """Return mean, deviation and confidence interval, and how they were found."""
    from scipy.stats import t

    count, mean = len(accuracies), statistics.fmean(accuracies)
    deviation = statistics.stdev(accuracies)
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / count**0.5
    return {
        "mean": mean,
        "standard_deviation": deviation,
        "confidence": CONFIDENCE,
        "interval": [max(0.0, mean - half), min(1.0, mean + half)],
        "method": METHOD,
        "caveat": CAVEAT,
    }


def lines_of(
    mean: str,
    figure: dict[str, Any],
    folds: Sequence[tuple[str, ...]],
    classes: Sequence[str],
    path: Path,
) -> list[str]:
    """Return the lines for the screen.

    Args:
        mean: what `figure`, which `spread` gave, is the mean of.
        folds, classes: their tables, the latter as lines, each with its head.
    """
    low, high = map(percent, figure["interval"])
    class_head, *rows = classes
    return [
        "",
        *format_table(folds),
        "",
        f"{mean:<20}{percent(figure['mean'])}",
        f"standard deviation  {percent(figure['standard_deviation'])}",
        f"95 % interval       {low} to {high} (Student's t)",
        "The folds are not independent: the interval is a guide, most likely too narrow.",
        "",
        f"{class_head}  out of fold",
        *rows,
        "",
        f"report  {path / 'crossval.html'}",
    ]


def facts_of(found: dict[str, Any]) -> dict[str, str]:
    """Say what was trained, on which data and how long: label and text."""
    model, data, runs = found["model"], found["data"], found["runs"]
    sizes = sorted({each["train_samples"] for each in runs})
    return {
        "Model": f"{model['name']}, {model['parameters']:,} parameters",
        "Data": f"{data['name']}: {data['samples']:,} training images in {len(runs)} folds; the "
        f"test images were not used",
        "Each fold": f"trained on {' or '.join(f'{size:,}' for size in sizes)} images",
        "Training": f"{pages.duration(sum(each['seconds'] for each in runs))} in all",
        "Seed": f"{found['seed']}, the same for the division and for every fold's training",
    }


def command_of(path: Path, folds: int) -> str:
    """Return the command that repeats the cross-validation in a folder next to it."""
    again = path.with_name(f"{path.name}-again")
    words = ["python", "-m", "trainer", "crossval", "--config", str(path / "recipe.yaml")]
    return shlex.join([*words, "--folds", str(folds), "--output_dir", str(again)])
