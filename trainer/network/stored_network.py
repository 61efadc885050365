"""The network of a finished run, from its model.safetensors, which anybody may have written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models
from models import timm_models
from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.base.strict_json import describe_value
from trainer.base.tensor_files import describe_mismatch, read_specs, read_tensors
from trainer.config import plugin_checks
from trainer.config.run_status import read_status
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.scaling import Scaling, decode_scaling, network_tensors
from trainer.network import memory_layout, model_metadata, model_state, new_model

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False)
class StoredNetwork:
    """A network with the weights of a file, and what the file says of it.

    Args:
        module: in evaluation mode, on the CPU.
        name: as in model.name.
        facts: the metadata, of the right types and in their bounds: see `model_metadata`.
        metadata: the text that they were read from.
        scaling: of the pixels, from 0 to 255.
        file: where it came from.
        weights_sha256: as in results.json; of what was loaded, before a mode could change it.
    """

    module: nn.Module
    name: str
    facts: dict[str, Any]
    metadata: str
    scaling: Scaling
    file: Path
    weights_sha256: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """One for each class, in the order of the logits."""
        return tuple(self.facts["class_names"])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.facts["image_size"]
        return height, width

    @property
    def grey_range(self) -> GreyRange | None:
        """Of pictures of more than 8 bits, the values of black and white; None: there were none."""
        limits = self.facts.get("grey_range")
        return (limits[0], limits[1]) if limits else None


def load(path: Path, named: str | None, option: str, memory_format: str = "auto") -> StoredNetwork:
    """Load the network of a finished run, on the CPU.

    Args:
        path: the run's folder, or its model.safetensors.
        named: the network's name, where the user has named it.
        option: that names it: a network whose code is not Lockstep's runs only where it is given.
        memory_format: train.memory_format of the run; rounding may depend on it.

    Raises:
        UserError: there is no such file, it is damaged, or it does not fit the network.
    """
    file = weights_file(path)
    text, found = model_metadata.read(file)
    name = named or found["name"]
    if named is None and plugin_checks.needs_naming("model", name):
        raise UserError(
            f"{file}: its model is {describe_value(name)}, and code that is not of Lockstep runs "
            f"only where you name it: {option} path/to/file.py:ClassName or {option} timm:NAME "
            f"(in Python the argument `{option.rpartition('-')[2]}`)"
        )
    module = _build(file, name, found, memory_format)
    digest = model_state.digest(module)
    module.eval()  # not chained: a user-defined eval() may return nothing
    scaling = decode_scaling(found, file, (found["in_channels"], *found["image_size"]))
    return StoredNetwork(module, name, found, text, scaling, file, digest)


def weights_file(path: Path) -> Path:
    """Return the file of the weights where the run's folder or the file itself is named.

    Raises:
        UserError: it does not exist.
    """
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: there is no such run, neither a folder nor a {WEIGHTS}")
        if not path.is_file():
            raise UserError(f"{path}: is neither a run's folder nor a {WEIGHTS}")
        return path.resolve()  # a link that the user names is followed
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if not (path / "config.yaml").exists():
        raise UserError(f"{path}: not a run, there is no {WEIGHTS} and no config.yaml in it")
    status = read_status(path)
    raise UserError(
        f"{path}: has no {WEIGHTS}, its run is {status.state} at step {status.step}; "
        f"let it come to its end (the same command goes on)"
    )


def _build(file: Path, name: str, found: dict[str, Any], memory_format: str) -> nn.Module:
    """Build the network with the weights of the file, in training mode.

    The state of torch's random generators does not change.
    """
    data = {
        "num_classes": found["num_classes"],
        "in_channels": found["in_channels"],
        "image_size": tuple(found["image_size"]),
    }
    arguments = dict(found["args"])
    for key in timm_models.WEIGHTS_ARGUMENTS:
        arguments.pop(key, None)  # the weights come from the file
    specs, seed = network_tensors(read_specs(file)), found.get("seed", 0)
    effects = model_state.effects_from_metadata(found)

    def check_tensors(module: nn.Module) -> None:
        reshaped = found.get("reshaped_buffers", ())
        expected = model_state.expected_specs(module, specs, reshaped)
        difference = describe_mismatch(specs, expected, any_dtype=True)
        if difference:
            raise UserError(
                f"{file}: does not fit the model {describe_value(name)}: it {difference}"
            )

    def check_output(module: nn.Module, backward: bool = True) -> None:
        models.check_output(module, **data, backward=backward)

    try:
        if name in models.names():
            # So that a network of another size costs no memory.
            with torch.device("meta"), models.WithoutDraws():
                sized = models.create(name, arguments, **data)
            check_tensors(sized)
        with seeding.preserve_generators():
            tried = new_model.build_seeded(name, arguments, data, seed)
            names = new_model.names_of(tried)
            check_output(tried, backward=False)
            late = new_model.names_of(tried) != names
            module = new_model.build_seeded(name, arguments, data, seed, first_pass=late)
    except ValueError as error:
        raise UserError(f"{file}: its model cannot be built: {error}") from error
    model_state.remember_effects(module, effects)
    check_tensors(module)
    weights = read_tensors(file, specs)
    memory_layout.set_layout(
        module, memory_layout.choose_layout(tried, memory_format, check_output)
    )  # as trained
    model_state.load(module, weights)
    if found.get("reshaped_buffers"):  # the shapes are only the file's claim
        try:
            model_state.load(tried, weights)
            check_output(tried)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{file}: its buffers do not fit the model: {error}") from error
    return module
