"""The weights of a file as the first ones of a model."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from trainer.base.errors import UserError
from trainer.base.tensor_files import Specs, describe_mismatch, read_specs, read_tensors
from trainer.data import saved_scaling
from trainer.network import model_state
from trainer.network.foreign_weights import how_to_convert, prefix_hint, surplus_prefix, without
from trainer.ranks import processes

log = logging.getLogger("lockstep")


def load_weights(model: nn.Module, path: Path, *, says_prefix: bool = True) -> None:
    """Fill a model from a .safetensors file that names its parameters and buffers.

    A prefix that all names have, where they fit without it, is taken off.

    Args:
        says_prefix: whether that is said; a start fills several models from one file.

    Raises:
        UserError: the file is missing or no safetensors file, or it does not fit the model.
    """
    try:
        file = path.resolve()  # a link that the user names is followed
        specs = saved_scaling.network_tensors(_read_specs(file))
        expected = model_state.expected(model, specs)
        prefix = surplus_prefix(specs, expected)
        # Before the values, so that a file of another size costs no memory; types are converted.
        difference = describe_mismatch(without(prefix, specs), expected, any_dtype=True)
        if difference:
            hint = prefix_hint(specs, expected)
            raise UserError(f"does not fit the model: it {difference}{hint}")
        tensors = read_tensors(file, specs)
        named = {name.removeprefix(prefix): one for name, one in tensors.items()}
        model_state.load(model, named)
    except (UserError, RuntimeError) as error:
        raise UserError(f"model.weights: {path}: {error}") from error
    if says_prefix and prefix and processes.launched_rank() == 0:
        log.warning("model.weights: %s: its names are taken without their prefix %r", path, prefix)


def _read_specs(file: Path) -> Specs:
    try:
        return read_specs(file)
    except UserError as error:
        advice = how_to_convert(file) if file.is_file() else None
        if advice is None:
            raise
        raise UserError(advice) from error
