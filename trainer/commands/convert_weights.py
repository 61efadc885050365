"""Write the tensors of a file of torch.save (.pth, .pt, .bin, .ckpt) as a safetensors file.

The file is a pickle, which could run code: it is read by torch's weights-only loader, which runs
none, and refuses files with anything but tensors and plain values in them. Where a program has kept
an average of its weights beside them, as timm's state_dict_ema, the average is taken; --key names
another place.

example: python -m trainer convert-weights resnet18.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.base.errors import UserError
from trainer.commands.options import add_json_option, check_output, report_write_errors

SUFFIX = ".safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what torch.save has written")
    parser.add_argument(
        "output", type=Path, nargs="?", metavar="OUT", help=f"default: FILE with {SUFFIX}"
    )
    parser.add_argument(
        "--key", help="where in the file the weights are, such as state_dict or state.model"
    )
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the file, and say what is in it.

    Raises:
        UserError: the file cannot be read, or the other is there already.
    """
    output: Path = arguments.output or arguments.file.with_suffix(SUFFIX)
    if output.exists():
        raise UserError(f"{output}: exists already, and is not overwritten; name another file")
    check_output("OUT", output)
    from trainer.base.tensor_files import write_tensors
    from trainer.base.terminal import print_report
    from trainer.network import torch_files

    tensors, place = torch_files.read(arguments.file, arguments.key)
    with report_write_errors("OUT", output):
        write_tensors(output, tensors)
    report = {
        "file": str(output),
        "key": place,
        "tensors": len(tensors),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
    }
    of = f", those of its {place}" if place else ""
    line = f"{output}  {report['tensors']:,} tensors, {report['numbers']:,} numbers{of}"
    print_report(report, [line], as_json=arguments.json)
