"""Describe what rounds numbers and makes pixels here: what may differ after a resume."""

from __future__ import annotations

import torch

from trainer.base import compiler, numerics
from trainer.config.schema import RunConfig
from trainer.data.pictures import formats
from trainer.data.sources.stored_pictures import needs_stored


def describe_environment(
    device: torch.device, config: RunConfig, *, trains: bool = False
) -> numerics.Environment:
    """Describe the machine and the versions that decide on a run's bits.

    Pictures that were decoded before the run are fingerprinted by their pixels. Where each batch
    decodes them, the fingerprint has only their files, and the decoders count here.

    Args:
        trains: whether steps are computed, the only part that may have compiled kernels.

    Raises:
        UserError: nothing here can compile them.
    """
    found = numerics.describe(
        device,
        config.train.evaluation_batch_size,
        is_portable=config.train.kernels == "portable",
    )
    if config.data.has_pictures and needs_stored(config.data):
        versions = zip(formats.DECODERS, formats.decoder_versions(), strict=True)
        found["picture decoders"] = ", ".join(f"{name} {own}" for name, own in versions if own)
    if trains and config.train.compile != "none":
        found["compiled kernels"] = compiler.describe(config.train.compile, device)
    return found
