"""Write a finished run's model for other programs: ONNX, TorchScript or safetensors.

ONNX and TorchScript take pixels from 0 to 255, (batch, channels, height, width), any number of
images at once, and give logits; the scaling is inside, the arithmetic float32. What was written is
read again and compared with the original before the file gets its name.

example: python -m trainer export runs/fashion_mnist --format onnx --output shirts.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.base.terminal import print_report
from trainer.commands.options import add_json_option, add_model_option, check_output
from trainer.run.console import MOST_CLASSES

FORMATS = ("onnx", "torchscript", "safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a finished run's folder, or its model.safetensors"
    )
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: model.onnx or model.pt next to model.safetensors; required for safetensors",
    )
    parser.add_argument(
        "--input",
        choices=("float32", "uint8"),
        help="the type of the pixels that ONNX takes, default: float32; TorchScript takes both",
    )
    add_model_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the file, and say what is in it.

    Raises:
        UserError: there is no finished run, or its model cannot be written in this format.
    """
    if arguments.input and arguments.format != "onnx":
        raise UserError(f"--input: is only for --format onnx, found {arguments.format}")
    if arguments.format == "safetensors" and not arguments.output:
        raise UserError("--output: name the file; the run's model.safetensors has this format")
    from trainer.finished import export, trained_model

    stored = trained_model.load(arguments.run, arguments.model)
    default = stored.file.with_name(f"model{export.SUFFIXES[arguments.format]}")
    output = arguments.output or default
    check_output("--output", output)
    found = export.export(stored, arguments.format, output, arguments.input or "float32")
    print_report(found, _lines(found), as_json=arguments.json)


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
    lines.append(
        f"checked   on {checked['images']} images: logits differ by at most "
        f"{checked['largest_difference']:.1g} of the largest; {checked['tolerance']:g} is allowed"
    )
    return lines
