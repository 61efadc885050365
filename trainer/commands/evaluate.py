"""Test a finished run's chosen weights again, on its own images or on others.

The run's test set gives the figures of results.json, to the bit on the same kind of machine, on any
number of processes. Keys of the data, threads, train.precision, train.kernels and
train.evaluation_batch_size may follow, as for train.py.

example: python -m trainer evaluate runs/digits --split validation
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.strict_json import check_type
from trainer.commands.options import (
    add_json_option,
    add_model_option,
    check_output,
    report_write_errors,
)
from trainer.config import command_line
from trainer.config.schema import RunConfig, replace
from trainer.ranks import collectives, processes
from trainer.ranks.process_group import join_process_group
from trainer.run.console import print_figures
from trainer.run.run_folder import read_results

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.training.weight_selection import Found

SPLITS = ("test", "validation", "train")

# The images and the machine may be different; the rest belongs to the weights.
ALLOWED = ("data.", "threads", "train.precision", "train.kernels", "train.evaluation_batch_size")

log = logging.getLogger("lockstep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments; the others are the run's."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: test")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE.npz",
        help="where to write the answer to each image and the probabilities of all classes",
    )
    parser.add_argument(
        "--slices",
        nargs="+",
        metavar="COLUMN",
        help="columns of the table, size (of pictures) or brightness: the accuracy by each value, "
        "worst first; default: data.slice_columns of the run",
    )
    add_model_option(parser)
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Print the figures.

    Raises:
        UserError: there is no finished run, a file is damaged, or the images do not fit the model.
    """
    path = arguments.predictions
    check_output("--predictions", path, ".npz")
    config = command_line.parse_for_run(arguments.run, arguments.configuration, ALLOWED)
    if arguments.slices:
        config = replace(config, {"data.slice_columns": arguments.slices})
    with join_process_group(config) as accelerator:
        found, predictions = _evaluate(accelerator, config, arguments)
        if path:
            collectives.run_on_main_rank(accelerator, lambda: _write(path, predictions))
        if not accelerator.is_main_process:
            return
        found["equals_results_json"] = _equals_results(arguments.run, found)
        _warn(accelerator, config, found, arguments)
        if arguments.json:
            print(json.dumps(found, indent=2))
            return
        print_figures(found[arguments.split], arguments.split)
        if found["equals_results_json"]:
            print("\nthe same as in results.json, to the last digit")
        elif not found["own_images"]:
            other = f"not the run's own {arguments.split} images: results.json is about others"
            unknown = (
                "without results.json it is unknown whether these are the run's own "
                f"{arguments.split} images"
            )
            print(f"\n{unknown if found['own_images'] is None else other}")
        if path:
            print(f"\npredictions    {path}")


def _warn(
    accelerator: Accelerator,
    config: RunConfig,
    found: dict[str, Any],
    arguments: argparse.Namespace,
) -> None:
    """Warn of figures that are not what a user of the run may take them for."""
    results = arguments.run / "results.json"
    if found["equals_results_json"] is False:
        why = _why_other(accelerator, config, arguments.run, found["weights_sha256"])
        log.warning("%s has other figures for these images: %s", results, why)
    if found["data"]["classes_by"] == "position":
        log.warning(
            "%s has numbers for classes, and no class of the model has a number as its name: "
            "they are taken for its classes in their order, 0 for %r",
            found["data"]["source"],
            found[found["split"]]["per_class"][0]["name"],
        )
    asked_for = any(word.startswith("--data.") for word in arguments.configuration)
    if found["own_images"] is False and not asked_for:
        learnt = ", and images that it was trained on may be among them"
        log.warning(
            "the images of %s have changed since the run: these figures are not those of %s%s",
            found["data"]["source"],
            results,
            learnt * (found["split"] != "train"),
        )


def _why_other(
    accelerator: Accelerator, config: RunConfig, folder: Path, weights_sha256: str
) -> str:
    """Say what differs here from the run, as far as its files say."""
    from trainer.base import numerics
    from trainer.data.environment import describe_environment

    path, stored = folder / "results.json", read_results(folder)
    if stored.get("weights_sha256") != weights_sha256:
        return f"they are of other weights than those in {folder / 'model.safetensors'}"
    for key in ("environment", "train"):
        check_type(stored.get(key), dict[str, Any], f"{path}: {key}")
    here = describe_environment(accelerator.device, config)
    precision = {"precision": config.train.precision}
    reasons = numerics.differences(
        stored["environment"] | {"precision": stored["train"].get("precision")}, here | precision
    )
    if reasons:
        return f"numbers round differently (there against here): {'; '.join(reasons)}"
    return (
        "machine, versions, precision and threads are the same, so the code of the network has "
        "changed, or it depends on something that the run's files do not contain"
    )


def _write(path: Path, predictions: Found) -> None:
    from trainer.run.results import write_predictions

    with report_write_errors("--predictions", path):
        write_predictions(path, predictions)


def _evaluate(
    accelerator: Accelerator, config: RunConfig, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Found]:
    """Return the figures and the predictions behind them, on every rank; a collective."""
    from trainer.base import numerics
    from trainer.data import slices
    from trainer.data.measurements import fingerprint_of
    from trainer.finished import evaluation_images, trained_model
    from trainer.finished.run_record import are_images_of_run
    from trainer.run import results
    from trainer.training.slices import slice_accuracies

    folder, split = arguments.run, arguments.split
    # As in the run: rounding depends on them.
    processes.set_threads(config.threads or processes.DEFAULT_THREADS)
    numerics.choose_kernels(config.train.reduction == "exact")

    def load() -> tuple[evaluation_images.EvaluationImages, trained_model.TrainedModel]:
        slices.check(config.data)
        stored = trained_model.load(folder, arguments.model, config.train.memory_format)
        return evaluation_images.load(stored, config, split), stored

    chosen, stored = collectives.run_on_all_ranks(accelerator, load, one_first=True)
    fingerprint = fingerprint_of(chosen.images)
    parts = {"data.root": fingerprint, "model.safetensors": stored.weights_sha256}
    collectives.check_same_parts(accelerator, parts)
    tested = fingerprint if split == "test" else None
    own_images = collectives.run_on_main_rank(
        accelerator, lambda: are_images_of_run(folder, chosen.fingerprint, tested)
    )
    numerics.choose_precision(config.train.precision)  # user-defined code may have changed it
    plain, *others = stored.prepare(accelerator).predict_set(
        accelerator,
        chosen.images.move_if_it_fits(accelerator.device),
        "blocks",
        config.train.evaluation_batch_size,
        with_mirrored=config.data.test_augment == "flip",
        prefetch=config.data.prefetch,
    )
    augmented = others[0] if others else None

    def describe() -> dict[str, Any]:
        describe = results.test_results if split == "test" else results.figures_of
        columns = slices.slices_of(config.data, chosen.labelled, chosen.images)
        return describe(plain, augmented, stored.class_names, config) | {
            "slices": slice_accuracies(plain, columns) or None
        }

    figures = collectives.run_on_main_rank(accelerator, describe)
    found = {
        "run": str(folder),
        "split": split,
        split: figures,
        "data": {
            "name": config.data.name,
            "source": chosen.source,
            "fingerprint": chosen.fingerprint,
            "test_fingerprint": tested,
            "classes_by": chosen.classes_by,
        },
        "own_images": own_images,
        "weights_sha256": stored.weights_sha256,
        "processes": accelerator.num_processes,
    }
    return found, plain


def _equals_results(folder: Path, found: dict[str, Any]) -> bool | None:
    """Return whether results.json has the same figures; None if it is about other images."""
    if found["split"] != "test" or not found["own_images"]:
        return None
    from trainer.finished.run_record import as_recorded

    results = read_results(folder)
    stored = results.get("test", {})
    check_type(stored, dict[str, Any], f"{folder / 'results.json'}: test")
    if results.get("weights_sha256") != found["weights_sha256"]:
        return False
    # Mirror images may be asked for only here, and older versions have written every matrix.
    here = {key: value for key, value in found["test"].items() if value is not None}
    # Slices may be by other columns.
    return all(
        as_recorded(here[key], value) == value
        for key, value in stored.items()
        if key in here and key != "slices"
    )
