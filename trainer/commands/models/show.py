"""Tables of networks and of the layers of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

import models
from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.base.terminal import format_table, progress_bar
from trainer.commands.models.fields import Field
from trainer.commands.models.layers import Layer, inspect
from trainer.config.schema import RunConfig
from trainer.data import loading
from trainer.data.sources import reading

COUNTED = (
    "multiply-adds: of convolutions and matrix products, for one image; "
    "FLOPs (additions and products apart) are twice as many"
)


@dataclass(frozen=True)
class Shape:
    """What a network is built for."""

    channels: int
    image_size: tuple[int, int]
    """height and width in pixels"""
    num_classes: int

    def __str__(self) -> str:
        height, width = self.image_size
        return f"images of {self.channels} x {height} x {width}, {self.num_classes} classes"


def shape_of(config: RunConfig) -> Shape:
    """That of the configuration's data.

    Raises:
        UserError: they are not there, or are damaged.
    """
    lacking = reading.to_download(config.data)
    if lacking:
        raise UserError(
            f"{lacking}; or say --image_size, --channels and --num_classes, and they are not needed"
        )
    dataset = loading.load(config.data, config.seed)
    channels, height, width = dataset.train.images.shape[1:]
    return Shape(channels, (height, width), len(dataset.class_names))


def every_network(shape: Shape) -> dict[str, Any]:
    """The registered networks with the arguments that they have by default, as JSON."""
    rows, names = [], models.names()
    with progress_bar("networks", len(names)) as progress:
        for name in names:
            row: dict[str, Any] = {"name": name, "parameters": None, "multiply_adds": None}
            try:
                network = inspect(_build(name, {}, 0, shape), shape.channels, shape.image_size)
                row |= {"parameters": network.parameters, "multiply_adds": network.multiply_adds}
            except ValueError as error:
                row["error"] = str(error)
            rows.append(row)
            progress.update()
    return {**_shape_json(shape), "models": rows}


def one_network(config: RunConfig, shape: Shape) -> dict[str, Any]:
    """A network and its layers, as JSON.

    Raises:
        UserError: it cannot be built, or does not take such images.
    """
    name, arguments = config.model.name, config.model.args
    try:
        model = _build(name, arguments, config.seed, shape)
        network = inspect(model, shape.channels, shape.image_size)
    except ValueError as error:
        raise UserError(f"model.name, model.args: {error}") from error
    return {
        "name": name,
        "args": arguments,
        **_shape_json(shape),
        "parameters": network.parameters,
        "multiply_adds": network.multiply_adds,
        "flops": 2 * network.multiply_adds,
        "other_parameters": network.other_parameters,
        "layers": [_layer_json(layer) for layer in network.layers],
    }


def _build(name: str, arguments: dict[str, Any], seed: int, shape: Shape) -> nn.Module:
    seeding.seed_torch(seed, "initialisation")
    data: dict[str, Any] = {
        "num_classes": shape.num_classes,
        "in_channels": shape.channels,
        "image_size": shape.image_size,
    }
    model = models.create(name, arguments, **data)
    models.check_output(model, **data)
    return model


def _shape_json(shape: Shape) -> dict[str, Any]:
    return {
        "channels": shape.channels,
        "image_size": list(shape.image_size),
        "num_classes": shape.num_classes,
    }


def _layer_json(layer: Layer) -> dict[str, Any]:
    window = layer.window
    return {
        "name": layer.name,
        "operation": layer.operation,
        "input_size": list(layer.input_size),
        "output_size": list(layer.output_size),
        "kernel": list(window.kernel) if window else None,
        "stride": list(window.stride) if window else None,
        "padding": list(window.padding) if window else None,
        "dilation": list(window.dilation) if window else None,
        "parameters": layer.parameters,
        "multiply_adds": layer.multiply_adds,
        "receptive_field": _field_json(layer.field),
        "arithmetic": list(layer.arithmetic),
    }


def _field_json(field: Field) -> list[int] | str | None:
    return field if field is None or isinstance(field, str) else list(field.size)


def list_lines(found: dict[str, Any]) -> list[str]:
    """The list for people."""
    rows = [("model", "parameters", "multiply-adds")]
    for row in found["models"]:
        rows.append((row["name"], _number(row["parameters"]), _number(row["multiply_adds"])))
    lines = format_table(rows)
    for place, row in enumerate(found["models"], start=1):
        if "error" in row:
            lines[place] = f"{row['name']}: {row['error']}"
    return [
        f"{_shape_of(found)}; each network with its own defaults",
        "",
        *lines,
        "",
        COUNTED,
        "layer by layer: python -m trainer models NAME; your own: path/to/file.py:ClassName",
    ]


def layer_lines(found: dict[str, Any]) -> list[str]:
    """The layers for people."""
    head = ("layer", "operation", "output", "kernel", "stride", "padding", "sees")
    rows: list[tuple[str, ...]] = [(*head, "parameters", "multiply-adds")]
    rows += [_cells(layer) for layer in found["layers"]]
    rows.append(("total", *[""] * 6, _number(found["parameters"]), _number(found["multiply_adds"])))
    head_line, *lines, total = format_table(rows, left=range(7))
    body: list[str] = []
    for layer, line in zip(found["layers"], lines, strict=True):
        body.append(line)
        if layer["arithmetic"]:
            body.append(f"    {'; '.join(layer['arithmetic'])}")
    return [f"{found['name']}: {_shape_of(found)}", "", head_line, *body, total, *_notes(found)]


def _cells(layer: dict[str, Any]) -> tuple[str, ...]:
    return (
        layer["name"] or "-",
        layer["operation"],
        " x ".join(map(str, layer["output_size"])),
        _sides(layer["kernel"], always_both=True),
        _sides(layer["stride"]),
        _sides(layer["padding"]),
        _seen(layer["receptive_field"]),
        _number(layer["parameters"] or None),
        _number(layer["multiply_adds"] or None),
    )


def _notes(found: dict[str, Any]) -> Iterator[str]:
    yield ""
    if found["other_parameters"]:
        yield (
            f"of the parameters {found['other_parameters']:,} are taken by no operation directly, "
            f"as those that only training uses"
        )
    yield "output: channels x height x width; -: no module's own, but a function's"
    yield "sees: the pixels, height x width, that one value has seen (receptive field), padding too"
    yield COUNTED


def _shape_of(found: dict[str, Any]) -> str:
    height, width = found["image_size"]
    return str(Shape(found["channels"], (height, width), found["num_classes"]))


def _sides(sides: Sequence[int] | None, always_both: bool = False) -> str:
    if sides is None:
        return ""
    if len(set(sides)) == 1 and not always_both:
        return str(sides[0])
    return " x ".join(map(str, sides))


def _seen(field: list[int] | str | None) -> str:
    if field is None:
        return "?"
    return field if isinstance(field, str) else " x ".join(map(str, field))


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
