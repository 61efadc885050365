"""The weights of a file as the first ones of a model."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from trainer.base.errors import UserError
from trainer.base.tensor_files import Specs, Tensors, describe_mismatch, read_specs, read_tensors
from trainer.data import saved_scaling
from trainer.network import foreign_weights, model_state
from trainer.ranks import processes

log = logging.getLogger("lockstep")


def load_weights(model: nn.Module, path: Path) -> Tensors:
    """Fill a model from a .safetensors file that names its parameters and buffers.

    A prefix that all names have, where they fit without it, is removed, and a warning says so.

    Returns:
        The tensors of the file, by their names in the model.

    Raises:
        UserError: the file is missing or no safetensors file, or it does not fit the model.
    """
    try:
        file = path.resolve()  # a link that the user names is followed
        specs = saved_scaling.network_tensors(_read_specs(file))
        expected = model_state.expected_specs(model, specs)
        prefix = foreign_weights.find_surplus_prefix(specs, expected)
        # Before the values, so that a file of another size costs no memory; types are converted.
        named = foreign_weights.remove_prefix(prefix, specs)
        if difference := describe_mismatch(named, expected, any_dtype=True):
            hint = foreign_weights.prefix_hint(specs, expected)
            raise UserError(f"does not fit the model: it {difference}{hint}")
        weights = foreign_weights.remove_prefix(prefix, read_tensors(file, specs))
        model_state.load(model, weights)
    except (UserError, RuntimeError) as error:
        raise UserError(f"model.weights: {path}: {error}") from error
    if prefix and processes.launched_rank() == 0:
        log.warning("model.weights: %s: its names are taken without their prefix %r", path, prefix)
    return weights


def _read_specs(file: Path) -> Specs:
    try:
        return read_specs(file)
    except UserError as error:
        advice = foreign_weights.how_to_convert(file) if file.is_file() else None
        if advice is None:
            raise
        raise UserError(advice) from error
