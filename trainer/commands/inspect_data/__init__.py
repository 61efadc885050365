"""Look at the images of a configuration: counts, sizes, duplicates, and labels that may be wrong.

Of a finished run, named by its folder in the first place, its model says which labels of the
validation and test images are most likely wrong; the folder of a finished crossval says it of the
training and validation images, each by the fold that did not train on it. --csv writes all of
these. With --page all of it is written as an HTML page with pictures, some of them also as the
first epochs train on them. A folder of pictures is decoded first, as a run would do it.

example: python -m trainer inspect-data --config configs/folder.yaml --data.root my_pictures
example: python -m trainer inspect-data runs/folder --page labels.html --csv labels.csv
example: python -m trainer inspect-data runs/folds --page labels.html --csv labels.csv
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.terminal import format_table, percent, print_report
from trainer.commands.options import (
    add_json_option,
    add_model_option,
    check_output,
    positive_integer,
    report_write_errors,
)
from trainer.config import command_line, stored_config
from trainer.config.augmentations import own_augmentations_of
from trainer.config.schema import RunConfig
from trainer.ranks import collectives, processes
from trainer.ranks.process_group import join_process_group
from trainer.run.console import MOST_CLASSES, WORST_CLASSES

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.commands.inspect_data.image_statistics import InspectedImages

ALLOWED = ("data.name", "data.root", "data.memory_limit_mb", "threads", "train.precision")
"""keys that may be set for a run; the others are the run's own"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; the others are a folder or the configuration's."""
    # An optional positional argument would take the word after --config.
    parser.usage = (
        "%(prog)s [-h] [RUN | --config FILE] [--model NAME] [--page FILE.html] "
        "[--csv FILE.csv] [--most N] [--json] [--a.b value ...]"
    )
    add_model_option(parser)
    parser.add_argument(
        "--page", type=Path, metavar="FILE.html", help="write a page with pictures there"
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE.csv",
        help="write all labels that are most likely wrong there, by RUN: file, part, label, likely "
        "label, and the probabilities of both",
    )
    parser.add_argument(
        "--most",
        type=positive_integer,
        default=24,
        metavar="N",
        help="how many groups of duplicates, and how many labels, are listed; default: 24",
    )
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Print what was found, and write the page.

    Raises:
        UserError: the images cannot be read, there is no finished run, or it knows other images.
    """
    check_output("--page", arguments.page, ".html")
    check_output("--csv", arguments.csv, ".csv")
    words = arguments.configuration
    folder = Path(words[0]) if words and not words[0].startswith("-") else None
    if arguments.model and not folder:
        raise UserError("--model: is about the model of a run, whose folder is not given")
    if arguments.csv and not folder:
        raise UserError(
            "--csv: needs a model that says which labels are wrong; give the folder of a run or of "
            "a cross-validation"
        )
    folds = folder if folder and stored_config.holds_folds(folder) else None
    if folds and arguments.model:
        raise UserError("--model: is about the model of a run; the answers of folds are stored")
    if folder:
        read = stored_config.read_folds if folds else stored_config.read_folder
        config = command_line.parse_for_run(folder, words[1:], ALLOWED, read)
    else:
        config = command_line.parse(words)
    with join_process_group(config) as accelerator:
        _inspect(accelerator, config, None if folds else folder, folds, arguments)


def _inspect(
    accelerator: Accelerator,
    config: RunConfig,
    folder: Path | None,
    folds: Path | None,
    arguments: argparse.Namespace,
) -> None:
    """Inspect the images and print the result on rank 0; a collective.

    Args:
        folder: of a run, whose model judges the labels.
        folds: the folder of a cross-validation, whose answers judge them.
    """
    from trainer.base import numerics
    from trainer.commands.inspect_data import image_statistics, label_errors, out_of_fold
    from trainer.finished import trained_model
    from trainer.network import image_settings

    processes.set_threads(config.threads or processes.DEFAULT_THREADS)
    stored = None
    if folder:
        numerics.choose_kernels(config.train.reduction == "exact")
        stored = collectives.run_on_all_ranks(
            accelerator,
            lambda: trained_model.load(folder, arguments.model, config.train.memory_format),
        )
        config = dataclasses.replace(config, data=stored.fill_in(config.data))
    else:
        config = collectives.run_on_all_ranks(
            accelerator, lambda: image_settings.complete(config), one_first=True
        )
    inspected = collectives.run_on_all_ranks(
        accelerator, lambda: image_statistics.load(config), one_first=True
    )
    suspects = None
    if stored:
        images, weights = inspected.dataset.fingerprint, stored.weights_sha256
        parts = {"data.root": images, "model.safetensors": weights}
        collectives.check_same_parts(accelerator, parts)
        suspects = label_errors.find(accelerator, stored, inspected)
    elif folds:
        suspects = collectives.run_on_main_rank(
            accelerator, lambda: out_of_fold.find(folds, inspected)
        )
    if accelerator.is_main_process:
        is_own = folder is None and folds is None
        _report(config, inspected, suspects, arguments, is_own_recipe=is_own)


def _report(
    config: RunConfig,
    inspected: InspectedImages,
    suspects: dict[str, Any] | None,
    arguments: argparse.Namespace,
    *,
    is_own_recipe: bool,
) -> None:
    """Look at the images, write the files and print the result.

    Args:
        suspects: as `label_errors.report` gives them, where there is a model.
        is_own_recipe: the user has given the recipe, not a folder that somebody may have sent.
    """
    from trainer.commands.inspect_data import image_statistics, label_errors, near_duplicates, page
    from trainer.data import class_balance

    if suspects:
        if arguments.csv:
            with report_write_errors("--csv", arguments.csv):
                label_errors.write_csv(arguments.csv, suspects)
        suspects["images"] = suspects["images"][: arguments.most]
    seen = image_statistics.see(inspected)
    found = image_statistics.compute(inspected, seen, arguments.most) | {
        "imbalance": class_balance.describe_imbalance(inspected.dataset),
        "near_duplicates": near_duplicates.report(inspected, seen, arguments.most),
        "suspects": suspects,
    }
    if arguments.page:
        # Code that a run's folder names runs only where the user names it.
        shows_augmentation = is_own_recipe or not own_augmentations_of(config.data.augment)
        shown = shown_classes(found["classes"])
        page.write(arguments.page, found, inspected, shown, config if shows_augmentation else None)
    print_report(found, _lines(found), as_json=arguments.json)
    if not arguments.json:
        for name in ("page", "csv"):
            if path := getattr(arguments, name):
                print(f"\n{name:<11} {path}")


def _lines(found: dict[str, Any]) -> Iterator[str]:
    data = found["data"]
    height, width = data["image_size"]
    yield f"data        {data['name']}, from {data['source']}"
    kind = {1: "grey", 3: "colour"}.get(data["channels"], f"{data['channels']} channels")
    yield f"images      {height} x {width} pixels, {kind}"
    if pictures := found["pictures"]:
        yield f"files       {_file_text(pictures)}"
    yield ""
    yield from _counts(found)
    if found["imbalance"]:
        yield found["imbalance"]
    yield ""
    yield from _duplicates(found["duplicates"])
    yield ""
    yield from _near_duplicates(found["near_duplicates"])
    if found["suspects"]:
        yield ""
        yield from _suspects(found["suspects"])


def _file_text(pictures: dict[str, Any]) -> str:
    sides = [" x ".join(map(str, pictures[key])) for key in ("smallest", "median", "largest")]
    kinds = f"{pictures['grey']:,} grey, {pictures['colour']:,} in colour"
    if pictures["other_channels"]:
        kinds += f", {pictures['other_channels']:,} of other channels"
    if pictures["sizes"] == 1:
        return f"{pictures['count']:,} of {sides[0]} pixels (height x width); {kinds}"
    return (
        f"{pictures['count']:,} of {pictures['sizes']:,} sizes, from {sides[0]} to {sides[2]} "
        f"pixels (height x width), the medians {sides[1]}; {kinds}"
    )


def _counts(found: dict[str, Any]) -> Iterator[str]:
    parts, classes = ("train", "validation", "test"), found["classes"]
    totals = [{"name": "all"} | found["images"]]
    if any(found["without_label"].values()):
        totals.insert(0, {"name": "no label"} | found["without_label"])
    shown = [classes[place] for place in shown_classes(classes)]
    rows = [(row["name"], *(f"{row[part]:,}" for part in parts)) for row in [*shown, *totals]]
    yield from format_table([("class", *parts), *rows])
    if len(shown) < len(classes):
        yield (
            f"the {len(shown)} of {len(classes):,} classes with the fewest training images; --json "
            "has all"
        )


def shown_classes(classes: Sequence[dict[str, Any]]) -> list[int]:
    """Return the positions of the classes to show: all, or the smallest if there are many."""
    places = range(len(classes))
    if len(classes) <= MOST_CLASSES:
        return list(places)
    return sorted(places, key=lambda place: classes[place]["train"])[:WORST_CLASSES]


def _duplicates(duplicates: dict[str, Any]) -> Iterator[str]:
    yield "duplicates, equal in every pixel"
    for key, text in (
        ("train", "again in train"),
        ("validation", "again in validation"),
        ("test", "again in test"),
        ("validation_in_train", "of validation that are in train too"),
        ("test_in_train", "of test that are in train too"),
        ("test_in_validation", "of test that are in validation too"),
        ("of_other_class", "groups with more than one label"),
    ):
        yield f"  {duplicates[key]:>8,} {text}"
    for group in duplicates["groups"]:
        yield "  - " + " = ".join(f"{image['name']} ({image['class']})" for image in group)
    if duplicates["count"] > len(duplicates["groups"]):
        yield f"  and {duplicates['count'] - len(duplicates['groups']):,} more groups (--most)"


def _near_duplicates(near: dict[str, Any]) -> Iterator[str]:
    yield "nearly equal images in different parts"
    for key, text in (
        ("validation_in_train", "of validation that are nearly in train too"),
        ("test_in_train", "of test that are nearly in train too"),
        ("test_in_validation", "of test that are nearly in validation too"),
        ("of_other_class", "pairs with two labels"),
    ):
        yield f"  {near[key]:>8,} {text}"
    for pair in near["pairs"]:
        yield "  - " + " ~ ".join(f"{image['name']} ({image['class']})" for image in pair["images"])
    if near["count"] > len(near["pairs"]):
        yield f"  and {near['count'] - len(near['pairs']):,} more pairs (--most)"


def _suspects(suspects: dict[str, Any]) -> Iterator[str]:
    from trainer.commands.inspect_data import label_errors

    yield f"labels most likely wrong, by {suspects['run']}"
    for part in suspects["parts"]:
        yield f"  {part['count']:>8,} of {part['samples']:,} in {part['part']}"
    for part in suspects["not_judged"]:
        judge = label_errors.JUDGES[part["part"]]
        yield f"  {'none':>8} of {part['samples']:,} in {part['part']} judged: {judge}"
    rows = [("image", "label -> more likely, with probabilities")]
    for image in suspects["images"]:
        label = f"{image['class']} {percent(image['self_confidence'])}"
        likelier = f"{image['suggested']} {percent(image['probability'])}"
        rows.append((image["name"], f"{label} -> {likelier}"))
    if len(rows) > 1:
        yield from (f"  {line}" for line in format_table(rows, left=(0, 1)))
