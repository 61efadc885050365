"""Make pages of one file each from the templates: HTML, with its pictures inside, or Markdown."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np


def render(template: str, **values: Any) -> str:
    """Render a page. In HTML all text in `values` is escaped, in Markdown by filters.

    Args:
        template: the name of a file in templates/; one of HTML extends base.html.

    Raises:
        KeyError: it needs a value that there is not.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.run.report"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["duration"] = duration
    environment.filters["count"] = "{:,}".format
    # Of Markdown; those of HTML are escaped without being asked.
    environment.filters["markdown"] = markdown
    environment.filters["code"] = code
    try:
        return environment.get_template(template).render(**values)
    except jinja2.UndefinedError as error:
        raise KeyError(str(error)) from error


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


def markdown(text: object) -> str:
    """Return text that Markdown shows as it is, in one line, also within a table."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Return text as Markdown's span of code, without the folders of a plug-in's file."""
    plain = re.sub(r"[^\s'\"]*[/\\](?=[^/\\\s]+\.py:)", "", " ".join(str(text).split()))
    return f"`{plain.replace('`', chr(39)).replace('|', '/')}`"


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
