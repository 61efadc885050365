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
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.terminal import format_table, print_report, progress_bar
from trainer.commands.options import add_json_option, positive_integer
from trainer.config import command_line
from trainer.config.schema import RunConfig

if TYPE_CHECKING:
    from trainer.commands.models.layers import Network

COUNTED = (
    "multiply-adds: of convolutions and matrix products, for one image; "
    "FLOPs (additions and products apart) are twice as many"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; the others are the configuration's."""
    # A positional argument would take the value of a key of the configuration.
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
    """Print the list or the layers.

    Raises:
        UserError: there is no such network, it does not take such images, or the configuration's
            data are not there.
    """
    words: Sequence[str] = arguments.configuration
    name = words[0] if words and not words[0].startswith("-") else None
    words = words[name is not None :]
    config = _config(name, words)
    shape = _shape(arguments, config, words)
    if config is None:
        found = _all_networks(shape)
        print_report(found, _list_lines(found), as_json=arguments.json)
    else:
        found = _one_network(config, shape)
        print_report(found, _layer_lines(found), as_json=arguments.json)


def _config(name: str | None, words: Sequence[str]) -> RunConfig | None:
    """Return the configuration of the network to show; None to list them all."""
    if name is None:
        return command_line.parse(words) if words else None
    network = ["--model.name", name]
    if "--model.args" not in [word.partition("=")[0] for word in words]:
        network += ["--model.args", "{}"]  # those of a recipe are for its own network
    return command_line.parse([*words, *network])


def _shape(
    arguments: argparse.Namespace, config: RunConfig | None, words: Sequence[str]
) -> dict[str, Any]:
    """Return `channels`, `image_size` and `num_classes` that networks are built for."""
    asked = {key: getattr(arguments, key) for key in ("channels", "image_size", "num_classes")}
    default = {"channels": 1, "image_size": [28, 28], "num_classes": 10}
    names_data = any(word.startswith(("--config", "--data.")) for word in words)
    if config and names_data and None in asked.values():
        default = _data_shape(config)
    return {key: asked[key] or value for key, value in default.items()}


def _data_shape(config: RunConfig) -> dict[str, Any]:
    from trainer.data import loading
    from trainer.data.sources import reading
    from trainer.network import image_settings

    config = image_settings.complete(config)
    lacking = reading.describe_missing(config.data) or reading.describe_undecoded(config.data)
    if lacking:
        raise UserError(
            f"{lacking}; or say --image_size, --channels and --num_classes, and they are not needed"
        )
    dataset = loading.load(config.data, config.seed)
    channels, *image_size = dataset.train.images.shape[1:]
    classes = len(dataset.class_names)
    return {"channels": channels, "image_size": image_size, "num_classes": classes}


def _all_networks(shape: dict[str, Any]) -> dict[str, Any]:
    """Build the registered networks with their default arguments."""
    import models

    rows, names = [], models.names()
    with progress_bar("networks", len(names)) as progress:
        for name in names:
            row: dict[str, Any] = {"name": name, "parameters": None, "multiply_adds": None}
            try:
                network = _build(name, {}, 0, shape)
                row |= {"parameters": network.parameters, "multiply_adds": network.multiply_adds}
            except ValueError as error:
                row["error"] = str(error)
            rows.append(row)
            progress.update()
    return {**shape, "models": rows}


def _one_network(config: RunConfig, shape: dict[str, Any]) -> dict[str, Any]:
    name, arguments = config.model.name, config.model.args
    try:
        network = _build(name, arguments, config.seed, shape)
    except ValueError as error:
        raise UserError(f"model.name, model.args: {error}") from error
    flops = 2 * network.multiply_adds
    return {"name": name, "args": arguments, **shape, "flops": flops, **dataclasses.asdict(network)}


def _build(name: str, arguments: Mapping[str, Any], seed: int, shape: dict[str, Any]) -> Network:
    """Build a network and record its layers.

    Raises:
        ValueError: it cannot be built, or does not take such images.
    """
    import models
    from trainer.base import seeding
    from trainer.commands.models.layers import record_layers
    from trainer.network import creation

    seeding.seed_torch(seed, "initialisation")
    height, width = shape["image_size"]
    data: dict[str, Any] = {
        "num_classes": shape["num_classes"],
        "in_channels": shape["channels"],
        "image_size": (height, width),
    }
    model = creation.create(name, arguments, **data)
    models.check_output(model, **data)
    return record_layers(model, shape["channels"], (height, width))


def _list_lines(found: dict[str, Any]) -> Iterator[str]:
    rows = [("model", "parameters", "multiply-adds")]
    for row in found["models"]:
        rows.append((row["name"], _number(row["parameters"]), _number(row["multiply_adds"])))
    head, *lines = format_table(rows)
    yield from (f"{_shape_text(found)}; each network with its own defaults", "", head)
    for row, line in zip(found["models"], lines, strict=True):
        yield f"{row['name']}: {row['error']}" if "error" in row else line
    yield from ("", COUNTED)
    yield "layer by layer: python -m trainer models NAME; your own: path/to/file.py:ClassName"


def _layer_lines(found: dict[str, Any]) -> Iterator[str]:
    columns = ("layer", "operation", "output", "kernel", "stride", "padding", "sees")
    rows: list[tuple[str, ...]] = [(*columns, "parameters", "multiply-adds")]
    rows += [_cells(layer) for layer in found["layers"]]
    rows.append(("total", *[""] * 6, _number(found["parameters"]), _number(found["multiply_adds"])))
    head, *lines, total = format_table(rows, left=range(len(columns)))
    yield from (f"{found['name']}: {_shape_text(found)}", "", head)
    for layer, line in zip(found["layers"], lines, strict=True):
        yield line
        if layer["arithmetic"]:
            yield f"    {'; '.join(layer['arithmetic'])}"
    yield from (total, "")
    if found["other_parameters"]:
        yield (
            f"{found['other_parameters']:,} of the parameters are not used by any operation "
            f"directly, such as those that only training uses"
        )
    yield "output: channels x height x width; -: of a function and not a module"
    yield "sees: the pixels, height x width, that one value has seen (receptive field), padding too"
    yield COUNTED


def _cells(layer: dict[str, Any]) -> tuple[str, ...]:
    field = layer["receptive_field"]
    return (
        layer["name"] or "-",
        layer["operation"],
        _times(layer["output_size"]),
        _times(layer["kernel"]),
        *(_side(layer[key]) for key in ("stride", "padding")),
        field if isinstance(field, str) else _times(field) or "?",
        _number(layer["parameters"] or None),
        _number(layer["multiply_adds"] or None),
    )


def _shape_text(shape: dict[str, Any]) -> str:
    sizes = _times([shape["channels"], *shape["image_size"]])
    return f"images of {sizes}, {shape['num_classes']} classes"


def _times(sizes: Sequence[int] | None) -> str:
    return " x ".join(map(str, sizes or []))


def _side(sides: Sequence[int] | None) -> str:
    """Return one number where all sides have the same."""
    return str(sides[0]) if sides and len(set(sides)) == 1 else _times(sides)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
