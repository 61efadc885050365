"""Make pages of one file each from the templates: HTML, with its pictures inside, or Markdown."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LARGE, MIDDLE, SMALL = 144, 112, 56
"""how large pictures are shown, in CSS pixels"""


class Picture(NamedTuple):
    """A picture on a page, and its size there in CSS pixels."""

    uri: str
    width: int
    height: int
    is_enlarged: bool
    """by a whole number, so that its pixels stay squares"""


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
    script = (Path(__file__).parent / "templates" / "tables.js").read_text(encoding="utf-8")
    # The page's policy lets this script run and nothing else, whatever a name may contain.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values |= {"script": script, "script_sha256": digest}
    try:
        return environment.get_template(template).render(**values)
    except jinja2.UndefinedError as error:
        raise KeyError(str(error)) from error


def picture(image: np.ndarray, longest: int) -> Picture:
    """Encode an image to be shown: small ones enlarged by a whole number, large ones made smaller.

    Args:
        image: as of `image_uri`.
        longest: of its sides, at most, in CSS pixels.
    """
    sides = image.shape[:2]
    factor = longest // max(sides)
    height, width = (
        side * factor if factor else max(1, round(side * longest / max(sides))) for side in sides
    )
    return Picture(image_uri(image), width, height, is_enlarged=factor > 0)


def image_uri(image: np.ndarray) -> str:
    """Encode an image, uint8 (height, width) or (height, width, 3), as the address of an <img>."""
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(image).save(memory, "PNG")
    return _uri(memory.getvalue())


def file_uri(path: Path) -> str:
    """Encode a PNG file as the address of an <img>."""
    return _uri(path.read_bytes())


def percent(share: float | None) -> str:
    """Format 0.9057 as 90.57 %, with a space that does not break; None, undefined, as a dash."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


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
