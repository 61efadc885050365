"""Test a finished run's chosen weights again, on its own images or on others.

The run's test set gives the figures of results.json, to the bit on the same kind of machine, on any
number of processes. Keys of the data, threads, train.precision and train.evaluation_batch_size may
follow, as for train.py.

example: python -m trainer evaluate runs/digits --split validation
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type
from trainer.base.terminal import progress_bar
from trainer.commands.options import add_json_option, add_model_option, report_write_errors
from trainer.config import command_line
from trainer.config.schema import RunConfig
from trainer.ranks import collectives, processes
from trainer.ranks.process_group import join_process_group
from trainer.run.console import print_figures
from trainer.run.run_folder import read_results

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.data.dataset import ImageSet
    from trainer.finished.evaluation_images import EvaluationImages
    from trainer.finished.trained_model import TrainedModel
    from trainer.training.metrics import Predictions

SPLITS = ("test", "validation", "train")

# The images and the machine may be different; the rest belongs to the weights.
ALLOWED = ("data.", "threads", "train.precision", "train.evaluation_batch_size")

log = logging.getLogger("lockstep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments; the others are the run's."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: test")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE.npz",
        help="where to write index, target, predicted and probability of each image",
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
    if path and (path.suffix != ".npz" or not path.absolute().parent.is_dir()):
        raise UserError(f"--predictions: {path} must be a file FILE.npz in an existing folder")
    config = command_line.parse_for_run(arguments.run, arguments.configuration, ALLOWED)
    with join_process_group(config) as accelerator:
        found, predictions = _evaluate(accelerator, config, arguments)
        if path:
            collectives.run_on_main_rank(accelerator, lambda: _write(path, predictions))
        if not accelerator.is_main_process:
            return
        found["equals_results_json"] = _equals_results(arguments.run, found)
        _warn(found, arguments, _why_other(accelerator, config, arguments.run, found))
        if arguments.json:
            print(json.dumps(found, indent=2))
            return
        print_figures(found[arguments.split], arguments.split)
        if found["equals_results_json"]:
            print("\nthe same as in results.json, to the last digit")
        elif not found["own_images"]:
            print(f"\n{_other_images(found)}")
        if path:
            print(f"\npredictions    {path}")


def _warn(found: dict[str, Any], arguments: argparse.Namespace, why_other: str) -> None:
    """Warn of figures that are not what a user of the run may take them for."""
    results = arguments.run / "results.json"
    if found["equals_results_json"] is False:
        log.warning("%s has other figures for these images: %s", results, why_other)
    if found["data"]["classes_by"] == "position":
        log.warning(
            "%s has numbers for classes, and no class of the model has a number as its name: "
            "they are taken for its classes in their order, 0 for %r",
            found["data"]["source"],
            found[found["split"]]["per_class"][0]["name"],
        )
    asked_for = any(word.startswith("--data.") for word in arguments.configuration)
    if found["own_images"] is False and not asked_for:
        log.warning(
            "the images of %s have changed since the run: these figures are not those of %s%s",
            found["data"]["source"],
            results,
            ", and images that it was trained on may be among them"
            if found["split"] != "train"
            else "",
        )


def _why_other(
    accelerator: Accelerator, config: RunConfig, folder: Path, found: dict[str, Any]
) -> str:
    """Say what differs here from the run, as far as its files say; empty where nothing does."""
    from trainer.base import numerics

    if found["equals_results_json"] is not False:
        return ""
    path, stored = folder / "results.json", read_results(folder)
    if stored.get("weights_sha256") != found["weights_sha256"]:
        return f"they are of other weights than those in {folder / 'model.safetensors'}"
    for key in ("environment", "train"):
        check_type(stored.get(key), dict[str, Any], f"{path}: {key}")
    here = numerics.describe(accelerator.device, config.train.evaluation_batch_size)
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


def _other_images(found: dict[str, Any]) -> str:
    split = found["split"]
    if found["own_images"] is None:
        return f"without results.json it is unknown whether these are the run's own {split} images"
    return f"not the run's own {split} images: results.json is about others"


def _write(path: Path, predictions: Predictions) -> None:
    from trainer.run.results import write_predictions

    with report_write_errors("--predictions", path):
        write_predictions(path, predictions)


def _evaluate(
    accelerator: Accelerator, config: RunConfig, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Predictions]:
    """Return the figures and the predictions behind them, on every rank; a collective."""
    from trainer.base import numerics
    from trainer.data.loading import fingerprint_of
    from trainer.run import results

    # As in the run: rounding depends on them.
    processes.set_threads(config.threads or processes.default_threads())
    numerics.choose_kernels(config.train.reduction == "exact")
    chosen, stored = collectives.run_on_all_ranks(
        accelerator, lambda: _load(config, arguments), one_first=True
    )
    collectives.check_same_parts(
        accelerator,
        {"data.root": fingerprint_of(chosen.images), "model.safetensors": stored.weights_sha256},
    )
    about = collectives.run_on_main_rank(accelerator, lambda: _about(arguments, config, chosen))
    numerics.choose_precision(config.train.precision)  # user-defined code may have changed it
    stored = stored.to(accelerator.device)
    images = chosen.images.move_if_it_fits(accelerator.device)
    at_once = config.train.evaluation_batch_size or stored.evaluation_batch_size
    both = _predict(accelerator, stored, images, at_once, config.data.test_augment == "flip")
    if arguments.split == "test":
        figures = results.test_results(*both, stored.class_names, config)
    else:
        figures = results.figures(*both, stored.class_names, config.data.test_augment)
    found = {
        "run": str(arguments.run),
        "split": arguments.split,
        arguments.split: figures,
        **about,
        "weights_sha256": stored.weights_sha256,
        "processes": accelerator.num_processes,
    }
    return found, both[0]


def _load(
    config: RunConfig, arguments: argparse.Namespace
) -> tuple[EvaluationImages, TrainedModel]:
    """Load images and model, and check that they fit together."""
    from trainer.finished import evaluation_images, trained_model

    stored = trained_model.load(arguments.run, arguments.model, config.train.memory_format)
    data = stored.fill_in(config.data)
    chosen = evaluation_images.load(data, config.seed, arguments.split, stored.class_names)
    if not len(chosen.images):
        raise UserError(f"--split: {arguments.split} has no images; data.validation_size is 0")
    shape = tuple(chosen.images.images.shape[1:])
    wanted = (stored.channels, *stored.image_size)
    if shape != wanted:
        raise UserError(
            f"data.name, data.root: the images of {chosen.source} are of (channels, height, "
            f"width) {shape}, and the model takes {wanted}"
        )
    return chosen, stored


def _about(
    arguments: argparse.Namespace, config: RunConfig, chosen: EvaluationImages
) -> dict[str, Any]:
    """Describe the images, and whether they are the run's own; None where that is unknown."""
    from trainer.data.loading import fingerprint_of
    from trainer.finished.run_record import are_images_of_run

    tested = fingerprint_of(chosen.images) if arguments.split == "test" else None
    data = {
        "name": config.data.name,
        "source": chosen.source,
        "fingerprint": chosen.fingerprint,
        "test_fingerprint": tested,
        "classes_by": chosen.classes_by,
    }
    own = are_images_of_run(arguments.run, chosen.fingerprint, tested)
    return {"data": data, "own_images": own}


def _predict(
    accelerator: Accelerator,
    stored: TrainedModel,
    images: ImageSet,
    block_samples: int,
    with_mirrored: bool,
) -> tuple[Predictions, Predictions | None]:
    """Return the plain predictions, and those with mirror images where they are wanted."""
    from trainer.training import evaluation

    module = accelerator.prepare_model(stored.module, device_placement=False, evaluation_mode=True)
    ways = [False, True] if with_mirrored else [False]
    turns = evaluation.turns_per_rank(accelerator, -(-len(images) // block_samples)) * len(ways)
    with progress_bar("blocks", turns, enabled=accelerator.is_main_process) as progress:
        predict = functools.partial(
            evaluation.predict, block_samples=block_samples, seed=stored.seed
        )
        plain, *others = [
            predict(accelerator, module, images, stored.scaling, progress.update, mirrored)
            for mirrored in ways
        ]
    if not math.isfinite(plain.mean_loss):
        raise UserError(f"{stored.file}: its weights give a loss that is {plain.mean_loss}")
    return plain, others[0] if others else None


def _equals_results(folder: Path, found: dict[str, Any]) -> bool | None:
    """Return whether results.json has the same figures; None where it is about other images."""
    if found["split"] != "test" or not found["own_images"]:
        return None
    results = read_results(folder)
    stored = results.get("test", {})
    check_type(stored, dict[str, Any], f"{folder / 'results.json'}: test")
    if results.get("weights_sha256") != found["weights_sha256"]:
        return False
    # Mirror images may be asked for only here, and older versions have written every matrix.
    here = {key: value for key, value in found["test"].items() if value is not None}
    return all(here.get(key, value) == value for key, value in stored.items())
