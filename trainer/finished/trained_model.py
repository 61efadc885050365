"""The model that a finished run has left, built again from its model.safetensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models
from models import timm_models
from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, describe_value, parse_json
from trainer.base.tensor_files import (
    describe_mismatch,
    read_metadata,
    read_specs,
    read_tensors,
    weights_sha256,
)
from trainer.config import plugin_checks
from trainer.config.rules import LARGEST_EVALUATION_BATCH, LARGEST_SIDE
from trainer.config.schema import DataConfig
from trainer.data import saved_scaling
from trainer.data.pictures import decoding
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.scaling import Scaling
from trainer.network import model_state, new_model
from trainer.network.buffers import left_alone
from trainer.run.run_folder import read_status
from trainer.training import evaluation

WEIGHTS = "model.safetensors"

LARGEST_ARGUMENT = 100_000
"""of a network's whole numbers: a width or depth beyond would only eat memory"""

_TYPES = {
    "name": str,
    "args": dict[str, Any],
    "num_classes": int,
    "in_channels": int,
    "image_size": list[int],
    "class_names": list[str],
    "mean": list[Any] | None,
    "deviation": list[Any] | None,
    "test_augment": str,
    "evaluation_batch_size": int,
    "grey_range": list[float] | None,
}

_OPTIONAL_TYPES = {
    "seed": int,
    "set_parameters": list[str],
    "reshaped_buffers": list[str],
    "passing_buffers": list[str],
}
"""and of what `model_state.as_metadata` says, which an earlier version has not written"""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model and what it takes to use it.

    Args:
        module: in evaluation mode; takes scaled images, float32 (n, channels, height, width), and
            returns one logit for each class, (n, classes).
        class_names: one for each class, in the order of the logits.
        scaling: of the pixels, which it takes as whole numbers or floats from 0 to 255.
        channels: of an image, 1 (grey) or 3 (red, green, blue) for pictures.
        image_size: height and width in pixels.
        grey_range: of pictures of more than 8 bits a channel, the values that become black and
            white; None where it was trained on none.
        name: of the network, as in model.name.
        evaluation_batch_size: how many images its run classified at once.
        metadata: the text in the file that all this was read from.
        file: where it came from.
        weights_sha256: as in results.json; of what was loaded, before a mode could change it.
        seed: of the run, which what it draws follows from.
    """

    module: nn.Module
    class_names: tuple[str, ...]
    scaling: Scaling
    channels: int
    image_size: tuple[int, int]
    grey_range: GreyRange | None
    name: str
    evaluation_batch_size: int
    metadata: str
    file: Path
    weights_sha256: str
    seed: int

    def to(self, device: torch.device | str) -> TrainedModel:
        """The same model on `device`."""
        module = model_state.moved(self.module, torch.device(device))
        return replace(self, module=module, scaling=self.scaling.to(device))

    def fitting(self, data: DataConfig) -> DataConfig:
        """What a folder's pictures are made into for this model, where that is not set.

        Else they would be decided by that folder's own training pictures.
        """
        if data.name != "folder" or self.channels not in (1, 3):
            return data
        return replace(
            data,
            image_size=data.image_size or list(self.image_size),
            channels=data.channels or self.channels,
            grey_range=data.grey_range or list(self.grey_range or ()),  # empty: none are taken
        )

    def read(self, picture: Path | str) -> torch.Tensor:
        """The pixels of a picture file of any size, as the model takes them.

        Returns:
            uint8, (channels, height, width).

        Raises:
            UserError: names the file that is missing, broken or no picture.
        """
        if self.channels not in (1, 3):
            raise UserError(
                f"{self.file}: its images have {self.channels} channels; a picture file has 1 or 3"
            )
        pixels = decoding.decode(Path(picture), self.channels, self.image_size, self.grey_range)
        return torch.from_numpy(pixels.copy())

    @torch.no_grad()
    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the model makes of images that go through it together.

        Args:
            pixels: from 0 to 255, of any type, (n, channels, height, width), on any device.

        Returns:
            The probability of each class, float32, (n, classes), on the CPU.
        """
        inputs = self.scaling.apply(pixels.to(self.scaling.mean.device))
        # What a plug-in keeps there, and what it draws, would be of other pictures.
        with left_alone(self.module), seeding.preserve_generators():
            seeding.seed_all(self.seed, "evaluation", 0)
            return evaluation.log_probabilities(self.module, inputs).exp().cpu()

    def classify(self, picture: Path | str) -> dict[str, float]:
        """The probability of each class, by its name, for a picture file of any size.

        Raises:
            UserError: as `read`.
        """
        found = self.probabilities(self.read(picture)[None])[0]
        return dict(zip(self.class_names, found.tolist(), strict=True))


def load(path: Path, model: str | None = None, memory_format: str = "auto") -> TrainedModel:
    """The model of a finished run, on the CPU.

    Args:
        path: the run's folder, or its model.safetensors wherever it lies.
        model: the network's name where it is none of the registered ones: their code runs only
            where the user names it.
        memory_format: train.memory_format of the run; by it rounding may differ.

    Raises:
        UserError: there is no such file, it is damaged, or it does not fit the model.
    """
    file = weights_file(path)
    text = read_metadata(file).get("model")
    if text is None:
        raise UserError(f"{file}: says nothing of its model; only a run's own {WEIGHTS} does")
    found = parse_json(text, file)
    if isinstance(found, dict):  # a file of an older version does not say it
        found.setdefault("evaluation_batch_size", evaluation.BLOCK_SAMPLES)
    _check(found, file)
    name = model or found["name"]
    if model is None and plugin_checks.needs_naming("model", name):
        raise UserError(
            f"{file}: its model is {describe_value(name)}, and code that is not of Lockstep runs "
            f"only where you name it: --model path/to/file.py:ClassName or --model timm:NAME "
            f"(in Python the argument `model`)"
        )
    module = _build(file, name, found, memory_format)
    digest = weights_sha256(model_state.to_write(module))
    module.eval()  # whose own version may return nothing
    return TrainedModel(
        module=module,
        class_names=tuple(found["class_names"]),
        scaling=saved_scaling.decode(found, file, (found["in_channels"], *_sides(found))),
        channels=found["in_channels"],
        image_size=_sides(found),
        grey_range=tuple(found["grey_range"]) if found.get("grey_range") else None,
        name=name,
        evaluation_batch_size=found["evaluation_batch_size"],
        metadata=text,
        file=file,
        weights_sha256=digest,
        seed=found.get("seed", 0),
    )


def weights_file(path: Path) -> Path:
    """The file of the weights where the run's folder or the file itself is named.

    Raises:
        UserError: there is none.
    """
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: there is no such run, neither a folder nor a {WEIGHTS}")
        return path.resolve()  # a link that the user names is followed
    if (path / WEIGHTS).exists():
        return path / WEIGHTS
    if not (path / "config.yaml").exists():
        raise UserError(f"{path}: no run, there is no {WEIGHTS} and no config.yaml in it")
    status = read_status(path)
    raise UserError(
        f"{path}: has no {WEIGHTS}, its run is {status.state} at step {status.step}; "
        f"let it come to its end (the same command goes on)"
    )


def _check(found: Any, file: Path) -> None:
    """Make sure that the metadata are of the right types and sizes, as anybody may have written."""
    check_type(found, dict[str, Any], f"{file}: model")
    for key, hint in _TYPES.items():
        check_type(found.get(key), hint, f"{file}: model.{key}")
    for key, optional in _OPTIONAL_TYPES.items():
        if key in found:
            check_type(found[key], optional, f"{file}: model.{key}")

    def require(key: str, holds: bool, rule: str) -> None:
        if not holds:
            raise UserError(
                f"{file}: model.{key}: must be {rule}, found {describe_value(found[key])}"
            )

    sides, names = found["image_size"], found["class_names"]
    require(
        "image_size",
        len(sides) == 2 and all(1 <= side <= LARGEST_SIDE for side in sides),
        f"height and width, from 1 to {LARGEST_SIDE:,} pixels",
    )
    require("in_channels", 1 <= found["in_channels"] <= LARGEST_ARGUMENT, "at least 1")
    at_once = found["evaluation_batch_size"]
    require(
        "evaluation_batch_size",
        1 <= at_once <= LARGEST_EVALUATION_BATCH,
        f"from 1 to {LARGEST_EVALUATION_BATCH:,}",
    )
    require("class_names", bool(names) and len(set(names)) == len(names), "a name for each class")
    require("num_classes", found["num_classes"] == len(names), f"{len(names)}, as class_names")
    seen = found.get("grey_range")
    require(
        "grey_range",
        seen is None or (len(seen) == 2 and seen[0] <= seen[1]),
        "the values of black and of white",
    )
    require("args", _is_modest(found["args"]), f"numbers of at most {LARGEST_ARGUMENT:,}")


def _is_modest(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_modest, value.values()))
    if isinstance(value, list):
        return all(map(_is_modest, value))
    return not isinstance(value, (int, float)) or abs(value) <= LARGEST_ARGUMENT


def _sides(found: dict[str, Any]) -> tuple[int, int]:
    """Height and width."""
    height, width = found["image_size"]
    return height, width


def _build(file: Path, name: str, found: dict[str, Any], memory_format: str) -> nn.Module:
    """The network with the weights of the file, in training mode; torch's generators stay."""
    data = {
        "num_classes": found["num_classes"],
        "in_channels": found["in_channels"],
        "image_size": _sides(found),
    }
    # The weights come from the file.
    elsewhere = timm_models.WEIGHTS_ARGUMENTS
    arguments = {key: value for key, value in found["args"].items() if key not in elsewhere}
    specs, seed = saved_scaling.network_tensors(read_specs(file)), found.get("seed", 0)
    traits = model_state.from_metadata(found)

    def fit(module: nn.Module) -> None:
        expected = model_state.expected(module, specs, frozenset(found.get("reshaped_buffers", ())))
        difference = describe_mismatch(specs, expected, any_dtype=True)
        if difference:
            raise UserError(
                f"{file}: does not fit the model {describe_value(name)}: it {difference}"
            )

    def check(module: nn.Module, backward: bool = True) -> None:
        models.check_output(module, **data, backward=backward)

    try:
        if name in models.names():
            with torch.device("meta"):  # so that a network of another size costs no memory
                sized = models.create(name, arguments, **data)
            fit(sized)
        with seeding.preserve_generators():
            tried = new_model.construct(name, arguments, data, seed)
            names = new_model.names_of(tried)
            check(tried, backward=False)
            late = new_model.names_of(tried) != names
            module = new_model.construct(name, arguments, data, seed, first_pass=late)
    except ValueError as error:
        raise UserError(f"{file}: its model cannot be built: {error}") from error
    model_state.learn(module, traits)
    fit(module)
    weights = read_tensors(file, specs)
    new_model.set_layout(module, new_model.choose_layout(tried, memory_format, check))  # as trained
    model_state.load(module, weights)
    if found.get("reshaped_buffers"):  # anybody may have written the shapes
        try:
            model_state.load(tried, weights)
            check(tried)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{file}: its buffers do not fit the model: {error}") from error
    return module
