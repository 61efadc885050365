"""Test a finished run's chosen weights again, on its own images or on others.

The run's test set gives the figures of results.json, in bits on the same kind of machine, whatever
the number of processes. Keys of the data, threads, train.precision and train.evaluation_batch_size
may follow, as for train.py.

example: python -m trainer evaluate runs/digits --split validation
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import command_line
from trainer.commands.outputs import writing
from trainer.config import RunConfig
from trainer.console import bar, print_figures
from trainer.errors import UserError
from trainer.ranks import collectives, processes
from trainer.ranks.process_group import joined
from trainer.untrusted import check_type, read_json

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.data.sets import Dataset, ImageSet
    from trainer.metrics import Predictions
    from trainer.stored_model import StoredModel

SPLITS = ("test", "validation", "train")

# A later run may be evaluated on other images and another machine; the rest is the weights' own.
ALLOWED = ("data.", "threads", "train.precision", "train.evaluation_batch_size")

log = logging.getLogger("lockstep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments; the others are the run's."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: test")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE.npz",
        help="write index, target, predicted and probability of each image there",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="the code of a model that is not Lockstep's own"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Print the figures.

    Raises:
        UserError: there is no finished run, a file is damaged, or the images do not fit the model.
    """
    path = arguments.predictions
    if path and (path.suffix != ".npz" or not path.absolute().parent.is_dir()):
        raise UserError(f"--predictions: {path} must be a file FILE.npz in a folder that is there")
    config = command_line.of_run(arguments.run, arguments.configuration, ALLOWED)
    with joined(config) as accelerator:
        found, predictions = _evaluate(accelerator, config, arguments)
        if path:
            collectives.on_main(accelerator, lambda: _write(path, predictions))
        if not accelerator.is_main_process:
            return
        if found["equals_results_json"] is False:
            log.warning(
                "%s has other figures for these images: another machine, version, precision or "
                "number of threads rounds differently",
                arguments.run / "results.json",
            )
        if arguments.json:
            print(json.dumps(found, indent=2))
            return
        print_figures(found[arguments.split], arguments.split)
        if found["equals_results_json"]:
            print("\nthe same as in results.json, to the last digit")
        if path:
            print(f"\npredictions    {path}")


def _write(path: Path, predictions: Predictions) -> None:
    from trainer.results import write_predictions

    with writing("--predictions", path):
        write_predictions(path, predictions)


def _evaluate(
    accelerator: Accelerator, config: RunConfig, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Predictions]:
    """The figures and what they are made of, on every rank; a collective."""
    from trainer import environment, results

    # As in the run, because rounding depends on them.
    processes.set_threads(config.threads or processes.default_threads())
    environment.choose_kernels(config.train.reduction == "exact")
    dataset, stored = collectives.together(accelerator, lambda: _load(config, arguments), once=True)
    collectives.check_same_parts(
        accelerator,
        {"data.root": dataset.fingerprint, "model.safetensors": stored.weights_sha256},
    )
    dataset = dataset.where_it_fits(accelerator.device)
    images = _by_our_numbers(getattr(dataset, arguments.split), dataset, stored)
    if not len(images):
        raise UserError(f"--split: {arguments.split} has no images; data.validation_size is 0")
    environment.choose_precision(config.train.precision)  # the model's own code may have set it
    stored = stored.to(accelerator.device)
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
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "weights_sha256": stored.weights_sha256,
        "processes": accelerator.num_processes,
    }
    return found | {"equals_results_json": _equals_results(arguments.run, found)}, both[0]


def _load(config: RunConfig, arguments: argparse.Namespace) -> tuple[Dataset, StoredModel]:
    """Images and model, which fit together."""
    from trainer import stored_model
    from trainer.data import loading, reading

    stored = stored_model.load(arguments.run, arguments.model, config.train.memory_format)
    data = stored.fitting(config.data)
    reading.prepare(data)
    source = reading.read(data)
    try:
        dataset, _ = loading.of_source(data, config.seed, source)
    except UserError:
        if arguments.split != "test":
            raise
        # Too few to hold some out for validation may still be tested on.
        undivided = dataclasses.replace(data, validation_size=0)
        dataset, _ = loading.of_source(undivided, config.seed, source)
    _check_fit(dataset, stored)
    return dataset, stored


def _predict(
    accelerator: Accelerator,
    stored: StoredModel,
    images: ImageSet,
    block_samples: int,
    with_mirrored: bool,
) -> tuple[Predictions, Predictions | None]:
    """The plain predictions, and those with mirror images where they are wanted."""
    from trainer import evaluation

    module = accelerator.prepare_model(stored.module, device_placement=False, evaluation_mode=True)
    ways = [False, True] if with_mirrored else [False]
    turns = evaluation.rounds(accelerator, -(-len(images) // block_samples)) * len(ways)
    with bar("blocks", turns, shown=accelerator.is_main_process) as progress:
        predict = functools.partial(evaluation.predict, block_samples=block_samples)
        plain, *others = [
            predict(accelerator, module, images, stored.scaling, progress.update, mirrored)
            for mirrored in ways
        ]
    if not math.isfinite(plain.mean_loss):
        raise UserError(f"{stored.file}: its weights give a loss that is {plain.mean_loss}")
    return plain, others[0] if others else None


def _check_fit(dataset: Dataset, stored: StoredModel) -> None:
    """Raises UserError where the images or classes are not those that the model knows."""
    shape = tuple(dataset.test.images.shape[1:])
    wanted = (stored.channels, *stored.image_size)
    if shape != wanted:
        raise UserError(
            f"data.name, data.root: the images of {dataset.source} are of (channels, height, "
            f"width) {shape}, and the model takes {wanted}"
        )
    if _numbered(dataset.class_names) or _numbered(stored.class_names):
        if len(dataset.class_names) > len(stored.class_names):
            raise UserError(
                f"data.name, data.root: {dataset.source} has {len(dataset.class_names)} classes, "
                f"and the model knows {len(stored.class_names)}"
            )
        return
    unknown = [name for name in dataset.class_names if name not in stored.class_names]
    if unknown:
        raise UserError(
            f"data.name, data.root: {dataset.source} has the class {unknown[0]!r}, which the model "
            f"does not know; it knows {', '.join(stored.class_names)}"
        )


def _by_our_numbers(images: ImageSet, dataset: Dataset, stored: StoredModel) -> ImageSet:
    """The images with each class under the number that the model has for its name."""
    if _numbered(dataset.class_names) or _numbered(stored.class_names):
        return images
    import torch

    from trainer.data.sets import ImageSet

    numbers = torch.tensor([stored.class_names.index(name) for name in dataset.class_names])
    return ImageSet(images.images, numbers.to(images.targets.device)[images.targets])


def _numbered(class_names: tuple[str, ...]) -> bool:
    """Whether the names are no more than the numbers."""
    return class_names == tuple(map(str, range(len(class_names))))


def _equals_results(folder: Path, found: dict[str, Any]) -> bool | None:
    """Whether results.json says the same of the same images; None where it is about others."""
    path = folder / "results.json"
    if found["split"] != "test" or not path.exists():
        return None
    stored = read_json(path)
    check_type(stored.get("data"), dict[str, Any], f"{path}: data")
    if stored["data"].get("fingerprint") != found["data"]["fingerprint"]:
        return None
    check_type(stored.get("test"), dict[str, Any], f"{path}: test")
    # The mirror images may be asked for here alone.
    return all(found["test"].get(key, value) == value for key, value in stored["test"].items())
