"""Complete the data's configuration with what the weights that a run starts from want."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from trainer.config.schema import DataConfig, Interpolation, RunConfig
from trainer.network import weights_sources
from trainer.network.hub import NotAtHandError
from trainer.network.pretrained import Preprocessing


def fill_in(data: DataConfig, known: Preprocessing) -> DataConfig:
    """Fill in the keys that are null, so that nothing has to be looked up again.

    Pictures get the size, channels, crop share and filter that the weights were trained with, any
    images their mean and deviation, unless another scaling was asked for. What nobody knows is as
    it is without weights.

    Args:
        known: of the weights; without any values where there are none.
    """
    changes: dict[str, Any] = {}
    channels = None if known.mean is None else len(known.mean)
    if data.has_pictures:
        is_cut = data.resize == "crop"
        wanted = {
            "image_size": None if known.image_size is None else list(known.image_size),
            "channels": channels if channels in (1, 3) else None,
            "crop_share": known.crop_share if is_cut and known.crop_share else 1.0,
            "interpolation": cast("Interpolation", known.interpolation or "bilinear"),
        }
        changes |= {key: value for key, value in wanted.items() if getattr(data, key) is None}
    asked = data.channels if data.has_pictures else None
    if (
        known.mean is not None
        and known.deviation is not None
        and data.scaling in (None, "pretrained")
        and data.mean is None
        and asked in (None, 1, channels)
    ):
        changes |= {
            "scaling": "pretrained",
            "mean": list(known.mean),
            "deviation": list(known.deviation),
        }
    return dataclasses.replace(data, **changes)


def complete(config: RunConfig) -> RunConfig:
    """Fill in what a new run would, as far as this machine has its weights.

    Raises:
        UserError: there are no such weights.
    """
    try:
        weights = weights_sources.find(config.model, download=False)
    except NotAtHandError:
        weights = None
    known = weights.preprocessing if weights else Preprocessing()
    return dataclasses.replace(config, data=fill_in(config.data, known))


def find_doubts(data: DataConfig, image_size: Sequence[int], known: Preprocessing) -> list[str]:
    """Return warnings about images that are much smaller than what the weights were trained on.

    Args:
        image_size: height and width of the images.
    """
    if known.image_size is None or 2 * min(image_size) > min(known.image_size):
        return []
    found, wanted = (" x ".join(map(str, size)) for size in (image_size, known.image_size))
    advice = "data.image_size: null takes that size"
    if not data.has_pictures:
        advice = "enlarge them when you write them, or save them as pictures (data.name: folder)"
    return [
        f"model.weights were trained on images of {wanted} pixels, and these have {found}, where "
        f"they recognise little; {advice}"
    ]
