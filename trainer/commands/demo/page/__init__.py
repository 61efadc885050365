"""The page: a template, its style and its scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.commands.demo.server import PageFile
from trainer.finished.trained_model import TrainedModel

MOST_NAMES = 12
"""of classes in the page's first line"""

_FOLDER = Path(__file__).parent


def name_of(run: Path) -> str:
    """Return what the page calls a run: its folder's name, without the folders above."""
    found = run.resolve()
    name = found.name if found.is_dir() else found.parent.name
    return name.encode(errors="replace").decode()  # it may have bytes that are no UTF-8


def files(stored: TrainedModel, name: str) -> dict[str, PageFile]:
    """Return the files of the served page by their addresses."""
    html = render(stored, name, is_served=True)
    return {
        "/": PageFile("text/html; charset=utf-8", html.encode()),
        "/demo.css": PageFile("text/css; charset=utf-8", read("demo.css")),
        "/demo.js": PageFile("text/javascript; charset=utf-8", read("demo.js")),
        "/classify.js": PageFile("text/javascript; charset=utf-8", read("classify_served.js")),
    }


def read(name: str) -> bytes:
    """Return a file of the page that is the same for every model."""
    return (_FOLDER / name).read_bytes()


def render(stored: TrainedModel, name: str, **more: Any) -> str:
    """Render the page; names of classes and of the run are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("demo.html").render(
        name=name,
        network=stored.name,
        class_names=stored.class_names[:MOST_NAMES],
        others=len(stored.class_names) - len(stored.class_names[:MOST_NAMES]),
        count=len(stored.class_names),
        several_labels=stored.thresholds is not None,
        is_grey=stored.channels == 1,
        **more,
    )
