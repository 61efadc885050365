"""List the networks, or show what one does layer by layer: sizes, parameters, multiply-adds.

Keys of a configuration may follow, as for train.py. Where --image_size, --channels or --num_classes
is left out, it is that of the configuration's data; without a configuration the images are of
28 x 28 grey pixels and ten classes. Nothing is trained, downloaded or written.

example: python -m trainer models lab_cnn
example: python -m trainer models vgg_small --model.args '{"widths": [16, 32]}' --image_size 32 32
example: python -m trainer models --config configs/digits.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.commands.options import add_json_option, positive_integer, print_result
from trainer.config import command_line
from trainer.config.schema import RunConfig
from trainer.ranks import processes

if TYPE_CHECKING:
    from trainer.commands.models.show import Shape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments; the others are the configuration's."""
    # No positional argument, which would take the value of a key of the configuration.
    parser.usage = (
        f"{parser.prog} [NAME] [--image_size H W] [--channels C] [--num_classes N] [--json]\n"
        f"  NAME is a registered name, path/to/file.py:ClassName, or timm:NAME; without: list them"
    )
    parser.add_argument(
        "--image_size", type=positive_integer, nargs=2, metavar=("H", "W"), help="in pixels"
    )
    parser.add_argument("--channels", type=positive_integer, metavar="C", help="1 grey, 3 colour")
    parser.add_argument("--num_classes", type=positive_integer, metavar="N")
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Print the list or the layers, on rank 0.

    Raises:
        UserError: there is no such network, it does not take such images, or the configuration's
            data are not there.
    """
    words: Sequence[str] = arguments.configuration
    name = words[0] if words and not words[0].startswith("-") else None
    words = words[name is not None :]
    config = _config(name, words)
    if processes.launched_rank() > 0:
        return
    from trainer.commands.models import show

    shape = _shape(arguments, config, words)
    if config is None:
        found = show.every_network(shape)
        lines = show.list_lines(found)
    else:
        found = show.one_network(config, shape)
        lines = show.layer_lines(found)
    print_result(found, lines, as_json=arguments.json)


def _config(name: str | None, words: Sequence[str]) -> RunConfig | None:
    """What to show; None for the list of all."""
    if name is None and not words:
        return None
    if name is None:
        return command_line.parse(words)
    own = ["--model.name", name]
    if "--model.args" not in [word.partition("=")[0] for word in words]:
        own += ["--model.args", "{}"]  # those of a recipe are for its own network
    return command_line.parse([*words, *own])


def _shape(arguments: argparse.Namespace, config: RunConfig | None, words: Sequence[str]) -> Shape:
    from trainer.commands.models.show import Shape, shape_of

    asked = (arguments.channels, arguments.image_size, arguments.num_classes)
    of_data = any(word.startswith(("--config", "--data.")) for word in words)
    is_read = of_data and None in asked
    default = shape_of(config) if config and is_read else Shape(1, (28, 28), 10)
    channels, image_size, num_classes = asked
    return Shape(
        channels or default.channels,
        tuple(image_size) if image_size else default.image_size,
        num_classes or default.num_classes,
    )
