"""The page of a replayed step: one HTML file that loads nothing."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np


def render(report: dict[str, Any], steps_before: int) -> str:
    """The page.

    Args:
        report: what `replay --json` prints.
        steps_before: of how many steps `mean_loss_before` is the mean.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    losses = [row["loss"] for row in report["samples"] if row["loss"] is not None]
    return environment.get_template("replay.html").render(
        report=report, steps_before=steps_before, largest=max(losses, default=0.0) or 1.0
    )


def image_uri(image: np.ndarray) -> str:
    """A picture as the address of itself: uint8, (height, width, 1) or (height, width, 3)."""
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(memory, "PNG")
    return "data:image/png;base64," + base64.b64encode(memory.getvalue()).decode()
