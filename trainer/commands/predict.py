"""Classify pictures, and say how probable the classes are.

Pictures may have any size; they are made upright, grey or RGB, and resized like the training
images. Of a folder all pictures in it and below are taken, by the rules of a training: links are
followed, hidden files and folders are skipped. Prints CSV, or one JSON object per line. Each
picture goes through the model by itself, in float32, so its result does not depend on the others
or on the number of processes. Of a model of several labels all are named that reach their
thresholds, with | between them, in JSON as lists.

example: python -m trainer predict runs/fashion_mnist shirt.jpg photos/ --invert --json
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trainer.base.errors import UserError
from trainer.base.terminal import progress_bar
from trainer.commands.options import (
    add_max_megapixels_option,
    add_min_confidence_option,
    add_model_option,
    choose_kernels_of,
)
from trainer.config.schema import RunConfig
from trainer.ranks import collectives, processes
from trainer.ranks.process_group import join_process_group

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.finished.trained_model import TrainedModel

HINT_DIFFERENCE = 64
"""levels of 255: pictures that much brighter or darker than the training images may be inverted"""

BLOCK_PICTURES = 100
"""on each process, before all of them check whether one has met a broken picture"""

NOT_SURE = "not sure"
"""in place of a class that is not probable enough"""

log = logging.getLogger("lockstep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a finished run's folder, or its model.safetensors"
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="a picture, or a folder of pictures"
    )
    parser.add_argument(
        "--invert",
        action="store_true",
        help="swap black and white: for pictures on white where the training images are on black",
    )
    parser.add_argument(
        "--on_bad",
        choices=("stop", "skip"),
        default="stop",
        help="what a broken picture or an unreadable folder does: end the command before anything "
        "is printed (stop, the default), or be named and skipped (skip)",
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
        from trainer.finished import answers, trained_model

        # Rank 0 decides: the others may see other folders.
        files = collectives.run_on_main_rank(
            accelerator, lambda: list_pictures(arguments.files, skip=arguments.on_bad == "skip")
        )
        processes.set_threads(arguments.threads)
        stored = collectives.run_on_all_ranks(
            accelerator, lambda: trained_model.load(arguments.run, arguments.model)
        )
        collectives.check_same_parts(accelerator, {"model.safetensors": stored.weights_sha256})
        answers.check_min_confidence(stored, arguments.min_confidence)
        rows = _predict_all(accelerator, stored.to(accelerator.device), files, arguments)
        if accelerator.is_main_process:
            _print(rows, stored.class_names, sys.stdout, as_json=arguments.json)


def list_pictures(paths: Iterable[Path], *, skip: bool) -> list[Path]:
    """Return the files, and instead of a folder the pictures in it and below, sorted by name.

    Args:
        skip: name what may not be read in a warning, instead of raising an error.

    Raises:
        UserError: a path does not exist or may not be read, or a folder has no picture.
    """
    found: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                found += _below(path, skip)
            elif path.exists():
                found.append(path)
            else:
                raise UserError(f"{path}: there is no such file")
        except OSError as error:
            _unreadable(path, error, skip)
    return found


def _below(top: Path, skip: bool) -> list[Path]:
    """Return the pictures in a folder and below that training would take, sorted by name."""
    from trainer.data.pictures.decoding import SUFFIXES
    from trainer.data.pictures.names import is_ignored, is_picture

    found: list[Path] = []
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(top, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            status = folder.stat()
            place = (status.st_dev, status.st_ino)
            if place in above:  # by a link that leads back to it
                continue
            for path in folder.iterdir():
                if is_ignored(path.name):
                    continue
                if path.is_dir():
                    waiting.append((path, above | {place}))
                elif is_picture(path.name):
                    found.append(path)
                elif path.is_symlink() and not path.exists():
                    log.warning("%s: is a link that leads nowhere; skipped", path)
        except OSError as error:
            _unreadable(folder, error, skip)
    if not found:
        raise UserError(f"{top}: there are no pictures in this folder ({', '.join(SUFFIXES)})")
    return sorted(found)


def _unreadable(path: Path, error: OSError, skip: bool) -> None:
    message = f"{path}: may not be read ({error.strerror})"
    if not skip:
        raise UserError(f"{message}; give yourself access to it, or skip it: --on_bad skip")
    log.warning("%s; skipped", message)


def _predict_all(
    accelerator: Accelerator,
    stored: TrainedModel,
    files: list[Path],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Return what is printed for each picture, on every rank; a collective.

    The ranks take the pictures in turn.
    """
    from accelerate.utils import gather_object

    own = range(accelerator.process_index, len(files), accelerator.num_processes)
    rounds = -(-len(files) // (BLOCK_PICTURES * accelerator.num_processes))
    done: list[tuple[int, tuple[dict[str, Any], float] | str]] = []
    with progress_bar("pictures", len(own), enabled=accelerator.is_main_process) as progress:
        for turn in range(rounds):
            block = own[turn * BLOCK_PICTURES : (turn + 1) * BLOCK_PICTURES]

            def predict(block: range = block) -> None:
                for number in block:
                    done.append((number, _predict(stored, files[number], arguments)))
                    progress.update()

            collectives.run_on_all_ranks(accelerator, predict)
    found = [one for _, one in sorted(gather_object(done), key=lambda one: one[0])]
    good = [one for one in found if not isinstance(one, str)]
    for error in found:
        if isinstance(error, str):  # only rank 0 prints
            log.warning("%s; skipped", error)
    if not good:
        raise UserError("FILE: none of the pictures can be read")
    if accelerator.is_main_process:
        _hint(stored, sum(shade for _, shade in good) / len(good))
    return [row for row, _ in good]


def _predict(
    stored: TrainedModel, file: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], float] | str:
    """Return what is printed for a picture, and its mean brightness, or what is wrong with it."""
    from trainer.finished import answers

    try:
        # A read from a pipe or a device may never return.
        if file.exists() and not file.is_file():
            raise UserError(f"{file}: is not a regular file")
        pixels = stored.read(file, arguments.max_megapixels)
    except UserError as error:
        if arguments.on_bad == "stop":
            raise
        return str(error)
    if arguments.invert:
        pixels = 255 - pixels
    probabilities = answers.ask(stored, pixels, str(file))
    row = {"file": str(file), **answers.name(stored, probabilities, arguments.min_confidence)}
    if arguments.json:  # otherwise too much to keep, of many classes and pictures
        row["probabilities"] = probabilities  # as Python floats they would take ten times as much
    return row, float(pixels.float().mean())


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
    writer = csv.writer(output, lineterminator="\n")
    columns = ("file", "class", "probability")
    writer.writerow(columns)
    for row in rows:
        cells = (NOT_SURE if row[column] is None else row[column] for column in columns)
        writer.writerow("|".join(map(str, c)) if isinstance(c, list) else c for c in cells)
