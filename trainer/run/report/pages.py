"""Make HTML pages of one file each from the templates: escaped, with their pictures inside."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np


def render(template: str, **values: Any) -> str:
    """Render a page; all text in `values` is escaped.

    Args:
        template: the name of a file in templates/, which extends base.html.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.run.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["duration"] = duration
    environment.filters["count"] = "{:,}".format
    return environment.get_template(template).render(**values)


def image_uri(image: np.ndarray) -> str:
    """Encode an image, uint8 (height, width) or (height, width, 3), as the address of an <img>."""
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(image).save(memory, "PNG")
    return _uri(memory.getvalue())


def file_uri(path: Path) -> str:
    """Encode a PNG file as the address of an <img>."""
    return _uri(path.read_bytes())


def percent(share: float) -> str:
    """Format 0.9057 as 90.57 %, with a space that does not break."""
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Format seconds as 41.3 s, 12 min 5 s or 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
