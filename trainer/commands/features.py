"""Write what a finished run's network makes of its images before its last layer: their features.

These vectors are for searching, clustering and drawing. How well they tell the classes of the
validation and test images is measured by the nearest training images (--knn) and by a logistic
regression on the training images' (--probe). Keys of the data, threads, train.precision,
train.kernels and train.evaluation_batch_size may follow, as for evaluate; other images are divided
as a run on them would be.

example: python -m trainer features runs/digits --output features.npz --knn 5 --probe
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.terminal import format_table, percent, print_report
from trainer.commands.evaluate import ALLOWED
from trainer.commands.options import (
    add_json_option,
    add_model_option,
    check_output,
    positive_integer,
    report_write_errors,
)
from trainer.config import command_line
from trainer.config.schema import RunConfig
from trainer.ranks import collectives, processes
from trainer.ranks.process_group import join_process_group

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.finished.embeddings import Embeddings
    from trainer.finished.trained_model import TrainedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments; the others are the run's."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.npz",
        help="where to write the features, class, index and, where it has one, name of each image",
    )
    parser.add_argument(
        "--knn",
        type=positive_integer,
        metavar="K",
        help="classify by the K training images whose features are nearest",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="classify by a logistic regression on the training images' features",
    )
    add_model_option(parser)
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Compute the features, write them, and print how well they tell classes.

    Raises:
        UserError: there is no finished run, the images do not fit the model, its network has no
            features, or there are no training images to compare with.
    """
    path = arguments.output
    if not (path or arguments.knn or arguments.probe):
        raise UserError("--output, --knn, --probe: none is given, so nothing would be done")
    check_output("--output", path, ".npz")
    config = command_line.parse_for_run(arguments.run, arguments.configuration, ALLOWED)
    with join_process_group(config) as accelerator:
        stored, parts = _embed(accelerator, config, arguments)

        def finish() -> dict[str, Any]:
            if path:
                from trainer.finished import embeddings

                with report_write_errors("--output", path):
                    embeddings.write(path, parts, stored.class_names)
            return _describe(arguments, stored, parts)

        found = collectives.run_on_main_rank(accelerator, finish)
        if accelerator.is_main_process:
            print_report(found, _lines(found, path), as_json=arguments.json)


def _embed(
    accelerator: Accelerator, config: RunConfig, arguments: argparse.Namespace
) -> tuple[TrainedModel, dict[str, Embeddings]]:
    """Return the model and the features of each part, on every rank; a collective."""
    from trainer.base import numerics
    from trainer.data.measurements import fingerprint_of
    from trainer.finished import embeddings, evaluation_images, trained_model

    # As in an evaluation, so that the features are those behind its answers.
    processes.set_threads(config.threads or processes.DEFAULT_THREADS)
    numerics.choose_kernels(config.train.reduction == "exact")

    def load() -> tuple[TrainedModel, dict[str, evaluation_images.EvaluationImages]]:
        stored = trained_model.load(arguments.run, arguments.model, config.train.memory_format)
        if stored.thresholds is not None and (arguments.knn or arguments.probe):
            raise UserError(
                "--knn, --probe: answer with one class for each image, and this model's images may "
                "have several labels; only --output works with data.multi_label: true"
            )
        parts = evaluation_images.load_parts(stored, config)
        if "train" not in parts and (arguments.knn or arguments.probe):
            raise UserError(
                "--knn, --probe: compare with training images, and these data have none; only "
                "--output works without"
            )
        if arguments.knn and arguments.knn > len(parts["train"].images):
            raise UserError(
                f"--knn: {arguments.knn} neighbours, but there are "
                f"{len(parts['train'].images)} training images"
            )
        return stored, parts

    stored, parts = collectives.run_on_all_ranks(accelerator, load, one_first=True)
    content = "".join(fingerprint_of(part.images) for part in parts.values())
    collectives.check_same_parts(
        accelerator,
        {
            "data.root": hashlib.sha256(content.encode()).hexdigest(),
            "model.safetensors": stored.weights_sha256,
        },
    )
    numerics.choose_precision(config.train.precision)  # user-defined code may have changed it
    return stored, embeddings.embed(accelerator, stored.prepare(accelerator), parts, config)


def _describe(
    arguments: argparse.Namespace, stored: TrainedModel, parts: dict[str, Embeddings]
) -> dict[str, Any]:
    """Return what --json prints."""
    from trainer.finished import embeddings

    found: dict[str, Any] = {
        "run": str(arguments.run),
        "weights_sha256": stored.weights_sha256,
        "features": next(iter(parts.values())).features.shape[1],
        "samples": {name: len(part) for name, part in parts.items()},
        "knn": None,
        "probe": None,
    }
    known, asked = parts.get("train"), {k: part for k, part in parts.items() if k != "train"}
    if arguments.knn and known:
        found["knn"] = {"neighbours": arguments.knn} | {
            name: _accuracy(embeddings.classify_by_neighbours(known, part, arguments.knn), part)
            for name, part in asked.items()
        }
    if arguments.probe and known:
        answers = embeddings.classify_by_probe(known, list(asked.values()))
        found["probe"] = {
            name: _accuracy(predicted, part)
            for (name, part), predicted in zip(asked.items(), answers, strict=True)
        }
    return found


def _accuracy(predicted: Any, part: Embeddings) -> float:
    return float((predicted == part.targets).mean())


def _lines(found: dict[str, Any], path: Path | None) -> list[str]:
    """Return what a user reads: a line for each part."""
    heads = {"knn": "nearest images", "probe": "linear probe"}
    asked = [key for key in heads if found[key]]
    rows = [("", "images", *(heads[key] for key in asked))]
    for name, samples in found["samples"].items():
        shares = (percent(found[key].get(name)) for key in asked)
        rows.append((name, f"{samples:,}", *shares))
    lines = [f"{found['features']:,} features of each image", "", *format_table(rows)]
    return [*lines, "", f"features    {path}"] if path else lines
