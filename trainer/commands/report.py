"""Write the report of a finished run again: report.html, its pictures, a missing model card.

A run writes them at its end, after everything else. This is for a run that was killed while it did,
or to have them drawn by another version. The test images are read again, and must be those that
the run was tested on; --data.root says where they are now.

example: python -m trainer report runs/digits
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.base.errors import UserError
from trainer.commands.options import add_model_option, choose_kernels_of
from trainer.config import command_line, stored_config
from trainer.config.run_status import describe_unfinished
from trainer.config.schema import RunConfig
from trainer.ranks import processes
from trainer.run.run_folder import RunFolder

if TYPE_CHECKING:
    from trainer.data.dataset import ImageSet
    from trainer.finished.trained_model import TrainedModel

ALLOWED = ("data.root", "data.memory_limit_mb", "threads")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments; the others are the run's."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    add_model_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Write the pictures and the page.

    Raises:
        UserError: the run is not finished or in use, a file is damaged, or its images have changed.
    """
    config = command_line.parse_for_run(arguments.run, arguments.configuration, ALLOWED)
    choose_kernels_of(arguments.run)
    folder = RunFolder(arguments.run)
    opening = folder.open(stored_config.read_folder(arguments.run), {})
    try:
        if not opening.finished:
            raise UserError(describe_unfinished(arguments.run, opening.status))
        _write(arguments, config)
    finally:
        folder.release()
    print(f"report  {arguments.run / 'report.html'}")


def _write(arguments: argparse.Namespace, config: RunConfig) -> None:
    import torch

    from trainer.data.measurements import fingerprint_of
    from trainer.finished import evaluation_images, stored_predictions, trained_model
    from trainer.finished.run_record import are_images_of_run
    from trainer.run.report import (
        explanations,
        health,
        mistakes,
        model_card,
        neighbours,
        run_report,
    )
    from trainer.run.report.features import write_features
    from trainer.run.results import write_confusion
    from trainer.run.run_folder import read_results
    from trainer.training.metrics import MOST_CLASSES_IN_FULL, LabelledPredictions

    processes.set_threads(config.threads or processes.DEFAULT_THREADS)
    stored = trained_model.load(arguments.run, arguments.model, config.train.memory_format)
    # A file that is missing or damaged is named before anything of the last report is gone.
    read_results(arguments.run)
    several = stored.thresholds is not None
    read_answers = stored_predictions.read_labels if several else stored_predictions.read
    read_answers(arguments.run / "predictions.npz")
    found = evaluation_images.load(stored, config, "test")
    images = found.images
    if not are_images_of_run(arguments.run, found.fingerprint, fingerprint_of(images)):
        raise UserError(
            f"data.root: the test images of {found.source} are not those that {arguments.run} was "
            "tested on, so its pictures would be of others; name the folder of those images"
        )
    train = _training_images(arguments.run, stored, config, found.fingerprint)
    features, device = arguments.run / "features.png", torch.device("cpu")
    try:
        features.unlink(missing_ok=True)
        write_features(features, stored.module, images, stored.scaling, device)
        classes = len(stored.class_names)
        nearest = explained = None
        if not images.has_several_labels:
            explained = explanations.find(
                arguments.run, stored.module, images, stored.scaling, device
            )
        if train is not None and not images.has_several_labels:
            asked = mistakes.read_worst(arguments.run)["index"]
            nearest = neighbours.find(
                stored.module, classes, train, images, asked, stored.scaling, device
            )
        examined = health.examine(stored.module, images, stored.scaling, device)
        run_report.write_report(arguments.run, images.pictures, nearest, explained, examined)
        if not (arguments.run / model_card.NAME).exists():  # it may have been edited
            model_card.write(arguments.run)
        if classes > MOST_CLASSES_IN_FULL and not images.has_several_labels:
            columns = mistakes.read_predictions(arguments.run / "predictions.npz")
            answers = LabelledPredictions(
                *(columns[key] for key in ("target", "predicted", "probability"))
            )
            write_confusion(arguments.run / "confusion.npz", answers, classes)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{arguments.run}: its report cannot be written ({type(error).__name__}: {error})"
        ) from error


def _training_images(
    run: Path, stored: TrainedModel, config: RunConfig, fingerprint: str | None
) -> ImageSet | None:
    """Return what the run was trained on; None, and say so, if these images are not that.

    Args:
        fingerprint: of the images that were found.
    """
    from trainer.finished import evaluation_images
    from trainer.finished.run_record import are_images_of_run

    if are_images_of_run(run, fingerprint, None):
        return evaluation_images.load(stored, config, "train").images
    print("without the training images, so none are shown beside the mistakes")
    return None
