"""Say which class each picture is of, and how probable that is.

Pictures of any size, and folders of them, are made upright, grey or RGB, and of the size of the
training images. Of a folder all pictures in it and below are taken, by the rules of a training:
links are followed, hidden files and folders are left out. Prints CSV, or a JSON object a line. Each
picture goes through the model by itself, in float32, so its result does not depend on the others or
on the number of processes.

example: python -m trainer predict runs/fashion_mnist shirt.jpg photos/ --invert --json
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trainer.base.errors import UserError
from trainer.base.terminal import progress_bar
from trainer.config.schema import RunConfig
from trainer.ranks import collectives, processes
from trainer.ranks.process_group import join_process_group

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import Accelerator

    from trainer.finished.trained_model import TrainedModel

HINT_DIFFERENCE = 64
"""so much brighter or darker than the training images, pictures may be inverted ones"""

BLOCK_PICTURES = 100
"""of each process, between which they look whether one has met a broken picture"""

log = logging.getLogger("lockstep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a finished run's folder, or its model.safetensors"
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="a picture, or a folder of pictures"
    )
    parser.add_argument(
        "--invert",
        action="store_true",
        help="black for white: for photographs on white where the training images are on black",
    )
    parser.add_argument(
        "--on_bad",
        choices=("stop", "skip"),
        default="stop",
        help="a broken picture, or a folder that may not be read, ends the command before "
        "anything is printed (stop, the default), or is named and left out (skip)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of each process; default: 1"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="the code of a model that is not Lockstep's own"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")


def run(arguments: argparse.Namespace) -> None:
    """Print the predictions, in the order of the files.

    Raises:
        UserError: there is no finished run or no picture, or a picture is broken.
    """
    if not 1 <= arguments.threads <= 1024:
        raise UserError(f"--threads: must be between 1 and 1,024, found {arguments.threads}")
    with join_process_group(RunConfig()) as accelerator:
        from trainer.finished import trained_model

        # Rank 0 decides: the others may see other folders.
        files = collectives.run_on_main_rank(
            accelerator, lambda: listed(arguments.files, skip=arguments.on_bad == "skip")
        )
        processes.set_threads(arguments.threads)
        stored = collectives.run_on_all_ranks(
            accelerator, lambda: trained_model.load(arguments.run, arguments.model)
        )
        collectives.check_same_parts(accelerator, {"model.safetensors": stored.weights_sha256})
        rows = _predict_all(accelerator, stored.to(accelerator.device), files, arguments)
        if accelerator.is_main_process:
            _print(rows, stored.class_names, sys.stdout, as_json=arguments.json)


def listed(paths: Iterable[Path], *, skip: bool) -> list[Path]:
    """The files, and in the place of a folder the pictures in it and below, in order of names.

    Args:
        skip: what may not be read is named in a warning and left out, and is no error.

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
    """The pictures in a folder and below, which training would take, in order of names."""
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
                elif is_picture(path):
                    found.append(path)
                elif path.is_symlink() and not path.exists():
                    log.warning("%s: is a link that leads nowhere; left out", path)
        except OSError as error:
            _unreadable(folder, error, skip)
    if not found:
        raise UserError(f"{top}: no picture is in this folder ({', '.join(SUFFIXES)})")
    return sorted(found)


def _unreadable(path: Path, error: OSError, skip: bool) -> None:
    message = f"{path}: may not be read ({error.strerror})"
    if not skip:
        raise UserError(f"{message}; give yourself access to it, or leave it out: --on_bad skip")
    log.warning("%s; left out", message)


def _predict_all(
    accelerator: Accelerator,
    stored: TrainedModel,
    files: list[Path],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """What is printed of each picture, on every rank; a collective.

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
        if isinstance(error, str):  # only rank 0 is heard
            log.warning("%s; left out", error)
    if not good:
        raise UserError("FILE: none of the pictures can be read")
    if accelerator.is_main_process:
        _hint(stored, sum(shade for _, shade in good) / len(good))
    return [row for row, _ in good]


def _predict(
    stored: TrainedModel, file: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], float] | str:
    """What is printed of a picture, and its mean brightness; of a broken one what is wrong."""
    try:
        if _is_special(file):
            raise UserError(f"{file}: is no regular file")
        pixels = stored.read(file)
    except UserError as error:
        if arguments.on_bad == "stop" or stored.channels not in (1, 3):
            raise
        return str(error)
    if arguments.invert:
        pixels = 255 - pixels
    row = _row(file, stored.class_names, stored.probabilities(pixels[None])[0])
    if not arguments.json:
        del row["probabilities"]  # of many classes and pictures too much to keep
    return row, float(pixels.float().mean())


def _is_special(file: Path) -> bool:
    """Whether it is a pipe or a device, for which a read may wait without an end."""
    try:
        return not stat.S_ISREG(file.stat().st_mode)
    except OSError:  # whoever reads it says what is wrong
        return False


def _row(file: Path, class_names: tuple[str, ...], probabilities: torch.Tensor) -> dict[str, Any]:
    if not bool(probabilities.isfinite().all()):
        raise UserError(f"{file}: the model finds no probabilities for it, its logits are infinite")
    values = probabilities.numpy()
    best = int(probabilities.argmax())
    return {
        "file": str(file),
        "class": class_names[best],
        "probability": _shortest(values[best]),
        "probabilities": values,  # as numbers of Python they would take ten times as much
    }


def _shortest(value: np.float32) -> float:
    """The shortest decimal that stands for a float32 number."""
    return float(str(value))


def _hint(stored: TrainedModel, shade: float) -> None:
    """Warn where the pictures look like the training images with black for white."""
    usual = float(stored.scaling.mean.mean())
    if stored.channels == 1 and abs(255 - usual - shade) + HINT_DIFFERENCE < abs(usual - shade):
        log.warning(
            "the mean brightness is %.0f of 255, and that of the training images was %.0f: "
            "where these are black on white and those white on black, or the other way round, "
            "--invert turns them over",
            shade,
            usual,
        )


def _print(
    rows: list[dict[str, Any]], class_names: Sequence[str], output: TextIO, *, as_json: bool
) -> None:
    """CSV or JSON lines, in UTF-8, whatever bytes the names of the files are."""
    if hasattr(output, "reconfigure"):
        output.reconfigure(encoding="utf-8", errors="surrogateescape")
    if as_json:
        for row in rows:
            values = map(_shortest, row["probabilities"])
            whole = row | {"probabilities": dict(zip(class_names, values, strict=True))}
            output.write(json.dumps(whole) + "\n")
        return
    writer = csv.writer(output, lineterminator="\n")
    columns = ("file", "class", "probability")
    writer.writerow(columns)
    writer.writerows([row[column] for column in columns] for row in rows)
