"""Write a finished run's model for other programs: ONNX, torch.export, OpenVINO, int8 and more.

They take pixels from 0 to 255, (batch, channels, height, width), any number of images at once, and
give logits; the scaling is inside, the arithmetic float32, or whole numbers of 8 bits (int8, in
ONNX, calibrated on validation images). With --with-preprocessing they take decoded pictures of any
size, uint8 (batch, height, width, channels), and give probabilities. What was written is read again
and compared with the original before the file gets its name; how it answers the run's test images
goes into exports.json. Keys of the data (--data.*) may follow, to find the images elsewhere.

example: python -m trainer export runs/fashion_mnist --format onnx --output shirts.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.base.terminal import percent, print_report
from trainer.commands.options import (
    add_json_option,
    add_model_option,
    add_trained_model_argument,
    check_output,
)
from trainer.config import command_line
from trainer.config.schema import RunConfig
from trainer.run.console import MOST_CLASSES

FORMATS = ("onnx", "torchscript", "pt2", "openvino", "int8", "safetensors")
WITHOUT_PREPROCESSING = ("torchscript", "safetensors")
WITHOUT_INPUT = {"torchscript": "which takes both", "safetensors": "which has no graph"}

ALLOWED = ("data.",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments; the others are the run's."""
    add_trained_model_argument(parser)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: model.onnx, model.pt, model.pt2, model.xml or model_int8.onnx next to "
        "model.safetensors; required for safetensors",
    )
    parser.add_argument(
        "--input",
        choices=("float32", "uint8"),
        help="the type of the pixels that the file takes, default: float32; TorchScript takes both",
    )
    parser.add_argument(
        "--with-preprocessing",
        action="store_true",
        help="put all that is done to a picture's pixels into the file: greys, resizing, scaling; "
        "and the probabilities",
    )
    add_model_option(parser)
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Write the file, and say what is in it.

    Raises:
        UserError: there is no finished run, or its model cannot be written in this format.
    """
    form = arguments.format
    if arguments.input and form in WITHOUT_INPUT:
        raise UserError(f"--input: is not for --format {form}, {WITHOUT_INPUT[form]}")
    if arguments.with_preprocessing and form in WITHOUT_PREPROCESSING:
        others = ", ".join(one for one in FORMATS if one not in WITHOUT_PREPROCESSING)
        raise UserError(f"--with-preprocessing: is for --format {others}, found {form}")
    if arguments.with_preprocessing and arguments.input == "float32":
        raise UserError("--input: pictures are uint8 --with-preprocessing, found float32")
    if form == "safetensors" and not arguments.output:
        raise UserError("--output: name the file; the run's model.safetensors has this format")
    from trainer.finished import trained_model
    from trainer.finished.export import writing
    from trainer.finished.export.description import Order

    stored = trained_model.load(arguments.run, arguments.model)
    order = Order(form, arguments.input or "float32", arguments.with_preprocessing)
    output = arguments.output or stored.file.with_name(order.file_name)
    check_output("--output", output, *[".xml"] * (form == "openvino"))
    config = configuration_of(stored.file.parent, arguments.configuration)
    named = bool(arguments.configuration)
    found = writing.export(stored, order, output, config, must_test=named)
    print_report(found, _lines(found), as_json=arguments.json)


def configuration_of(folder: Path, words: list[str]) -> RunConfig | str:
    """Return the configuration of the run in a folder, or why its images cannot be read.

    Raises:
        UserError: a key in `words` cannot be set.
    """
    if not (folder / "config.yaml").is_file():
        if words:
            raise UserError(f"{words[0]}: {folder} has no config.yaml whose data could be changed")
        return f"there is no config.yaml in {folder} that names them"
    try:
        return command_line.parse_for_run(folder, words, ALLOWED)
    except UserError as error:
        if words:
            raise
        return str(error)


def _count_of(tested: dict[str, Any]) -> str:
    """Say how many images were tested; those of an earlier version were all."""
    count, whole = tested["images"], tested["test_images"]
    return f"{count:,}" if count == whole else f"{count:,}, evenly spread over the {whole:,},"


def _lines(found: dict[str, Any]) -> list[str]:
    checked = found["checked"]
    lines = [f"{found['file']}  {found['bytes']:,} bytes"]
    for end in ("input", "output"):
        if end in found:
            one = found[end]
            shape = " x ".join(map(str, one["shape"]))
            lines.append(f"{end:<8}  {one['name']}, {one['type']}, {shape}: {one['values']}")
    names = found["class_names"]
    more = f" and {len(names) - MOST_CLASSES:,} more" * (len(names) > MOST_CLASSES)
    lines.append(f"classes   {', '.join(names[:MOST_CLASSES])}{more}")
    if checked["tolerance"] is not None:
        lines.append(
            f"checked   on {checked['images']} patterns: values differ by at most "
            f"{checked['largest_difference']:.1g} of the largest; {checked['tolerance']:g} is "
            "allowed"
        )
    if tested := found.get("tested"):
        lines.append(
            f"tested    on {_count_of(tested)} test images: accuracy {percent(tested['accuracy'])}"
            f", of the original {percent(tested['own_accuracy'])}; {tested['other_answers']:,} "
            "other answers, probabilities differ by at most "
            f"{tested['largest_probability_difference']:.1g}"
        )
    elif "not_tested_because" in found:
        lines.append(f"tested    not on the test images: {found['not_tested_because']}")
    return lines
