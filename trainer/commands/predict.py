"""Classify pictures, and say how probable the classes are.

Pictures may have any size; they are made upright, grey or RGB, and resized like the training
images. Of a folder or an archive all pictures in it and below are taken, by the rules of a
training: links are followed, hidden files and folders are skipped. Archives are not unpacked, and
one at an address, https://HOST/own.zip#sha256=HEX, is downloaded once. Prints CSV, or one JSON
object per line. A picture's result depends neither on the others nor on the number of processes. Of
a model of several labels all are named that reach their thresholds, with | between them, in JSON as
lists.

example: python -m trainer predict runs/fashion_mnist shirt.jpg photos/ --invert --json
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from trainer.base import csv_rows
from trainer.base.errors import UserError
from trainer.base.terminal import progress_bar
from trainer.commands.options import (
    add_max_megapixels_option,
    add_min_confidence_option,
    add_model_option,
    add_pictures_argument,
    add_trained_model_argument,
    choose_kernels_of,
)
from trainer.config.schema import RunConfig
from trainer.ranks import collectives, processes
from trainer.ranks.process_group import join_process_group

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from trainer.data.pictures.places import Place
    from trainer.finished.separate_answers import Classifier
    from trainer.finished.trained_model import TrainedModel

_Answer = tuple[dict[str, Any], float]
"""what is printed for a picture, and its mean brightness"""

HINT_DIFFERENCE = 64
"""levels of 255: pictures that much brighter or darker than the training images may be inverted"""

TURN_BLOCKS = 100
"""on each process, before all of them check whether one has met a broken picture"""

NOT_SURE = "not sure"
"""in place of a class that is not probable enough"""

log = logging.getLogger("lockstep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_trained_model_argument(parser)
    add_pictures_argument(parser)
    parser.add_argument(
        "--invert",
        action="store_true",
        help="swap black and white: for pictures on white where the training images are on black",
    )
    parser.add_argument(
        "--on_bad",
        choices=("stop", "skip"),
        default="stop",
        help="what a broken picture or archive, or an unreadable folder, does: end the command "
        "before anything is printed (stop, the default), or be named and skipped (skip)",
    )
    add_max_megapixels_option(parser, "counts as broken")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of each process; default: 1"
    )
    add_min_confidence_option(parser)
    add_model_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def run(arguments: argparse.Namespace) -> None:
    """Print the predictions, in the order of the files.

    Raises:
        UserError: there is no finished run or no picture, or a picture is broken.
    """
    if not 1 <= arguments.threads <= 1024:
        raise UserError(f"--threads: must be between 1 and 1,024, found {arguments.threads}")
    choose_kernels_of(arguments.run)
    with join_process_group(RunConfig()) as accelerator:
        from trainer.data.sources import named_pictures
        from trainer.finished import answers, trained_model

        def list_all() -> list[Place]:
            if not accelerator.is_local_main_process:
                return []
            return named_pictures.list_named(arguments.files, skip=arguments.on_bad == "skip")

        # On each machine, into whose cache archives may come; rank 0 decides what is in a folder.
        listed = collectives.run_on_all_ranks(accelerator, list_all)
        places = collectives.run_on_main_rank(accelerator, lambda: listed)
        processes.set_threads(arguments.threads)
        stored = collectives.run_on_all_ranks(
            accelerator, lambda: trained_model.load(arguments.run, arguments.model)
        )
        collectives.check_same_parts(accelerator, {"model.safetensors": stored.weights_sha256})
        answers.check_min_confidence(stored, arguments.min_confidence)
        rows = _predict_all(accelerator, stored.to(accelerator.device), places, arguments)
        if accelerator.is_main_process:
            _print(rows, stored.class_names, sys.stdout, as_json=arguments.json)


def _predict_all(
    accelerator: Accelerator,
    stored: TrainedModel,
    places: Sequence[Place],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Return what is printed for each picture, on every rank; a collective.

    The ranks take the pictures in turn, and threads of a rank take blocks of them.
    """
    from accelerate.utils import gather_object

    from trainer.data.pictures.parallel import in_threads
    from trainer.finished import separate_answers

    classifier = separate_answers.make_classifier(stored)
    own = range(accelerator.process_index, len(places), accelerator.num_processes)
    size = classifier.block_images
    blocks = [own[begin : begin + size] for begin in range(0, len(own), size)]
    most_blocks = -(-len(places) // (size * accelerator.num_processes))

    def predict(block: range) -> list[tuple[int, _Answer | str]]:
        answers = _predict(classifier, [places[number] for number in block], arguments)
        return [*zip(block, answers, strict=True)]

    done: list[tuple[int, _Answer | str]] = []
    with progress_bar("pictures", len(own), enabled=accelerator.is_main_process) as progress:
        predicted = in_threads(
            predict, blocks, processes.decoding_threads(), lambda one: progress.update(len(one))
        )
        with contextlib.closing(predicted) as left:
            for _ in range(0, most_blocks, TURN_BLOCKS):
                some = collectives.run_on_all_ranks(
                    accelerator, lambda: [*itertools.islice(left, TURN_BLOCKS)]
                )
                done += itertools.chain.from_iterable(some)
    answers = [one for _, one in sorted(gather_object(done), key=lambda one: one[0])]
    good = [one for one in answers if not isinstance(one, str)]
    for error in answers:
        if isinstance(error, str):  # only rank 0 prints
            log.warning("%s; skipped", error)
    if not good:
        raise UserError("FILE: none of the pictures can be read")
    if accelerator.is_main_process:
        _hint(stored, sum(shade for _, shade in good) / len(good))
    return [row for row, _ in good]


def _read(stored: TrainedModel, place: Place, arguments: argparse.Namespace) -> torch.Tensor | str:
    """Return the pixels of a picture, or what is wrong with it where such are skipped."""
    try:
        pixels = stored.read(place, arguments.max_megapixels)
    except UserError as error:
        if arguments.on_bad == "stop":
            raise
        return str(error)
    return 255 - pixels if arguments.invert else pixels


def _predict(
    classifier: Classifier, places: Sequence[Place], arguments: argparse.Namespace
) -> list[_Answer | str]:
    """Return the answers to a block of pictures, and what is wrong with others."""
    import torch

    from trainer.finished import answers

    found: list[Any] = [_read(classifier.stored, place, arguments) for place in places]
    good = [number for number, pixels in enumerate(found) if not isinstance(pixels, str)]
    if not good:
        return found
    pixels = torch.stack([found[number] for number in good])
    probabilities = answers.ask(classifier, pixels, [str(places[number]) for number in good])
    shades = pixels.float().mean((1, 2, 3)).tolist()
    for number, of_image, shade in zip(good, probabilities, shades, strict=True):
        named = answers.name(classifier.stored, of_image, arguments.min_confidence)
        row = {"file": places[number].name, **named}
        if arguments.json:  # otherwise too much to keep, of many classes and pictures
            row["probabilities"] = of_image  # as Python floats they would take ten times as much
        found[number] = row, shade
    return found


def _hint(stored: TrainedModel, shade: float) -> None:
    """Warn if the pictures look like the training images with black and white swapped."""
    usual = float(stored.scaling.mean.mean())
    if stored.channels == 1 and abs(255 - usual - shade) + HINT_DIFFERENCE < abs(usual - shade):
        log.warning(
            "the mean brightness is %.0f of 255, and that of the training images was %.0f: "
            "where these are black on white and those white on black, or the other way round, "
            "--invert swaps them",
            shade,
            usual,
        )


def _print(
    rows: list[dict[str, Any]], class_names: Sequence[str], output: TextIO, *, as_json: bool
) -> None:
    """Print CSV or JSON lines, in UTF-8, whatever bytes the names of the files are."""
    if hasattr(output, "reconfigure"):
        output.reconfigure(encoding="utf-8", errors="surrogateescape")
    if as_json:
        from trainer.finished import answers

        for row in rows:
            whole = row | {"probabilities": answers.by_class(class_names, row["probabilities"])}
            output.write(json.dumps(whole) + "\n")
        return
    writer = csv_rows.writer(output)
    columns = ("file", "class", "probability")
    writer.writerow(columns)
    for row in rows:
        cells = (NOT_SURE if row[column] is None else row[column] for column in columns)
        writer.writerow("|".join(map(str, c)) if isinstance(c, list) else c for c in cells)
