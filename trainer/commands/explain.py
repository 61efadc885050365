"""Show which parts of pictures the model's answers come from.

Writes a PNG for each picture: as the model sees it, and beside it in grey with colours: red where
it speaks for the class, blue where it speaks against it. The methods are Grad-CAM (coarse, fast,
for any net whose last maps keep their place), occlusion (what is lost where a patch is covered)
and integrated gradients (pixel by pixel). Such a map shows where an answer comes from, not that it
is right.

example: python -m trainer explain runs/photos mistake.jpg --method occlusion --class shirt
"""

from __future__ import annotations

import argparse
import difflib
import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.terminal import print_report
from trainer.commands.options import (
    add_json_option,
    add_max_megapixels_option,
    add_model_option,
    add_pictures_argument,
    add_trained_model_argument,
    choose_kernels_of,
    report_write_errors,
)
from trainer.ranks import processes

if TYPE_CHECKING:
    from trainer.data.pictures.places import Place
    from trainer.finished.separate_answers import Classifier

METHODS = ("gradcam", "occlusion", "integrated_gradients")
GAP = 12
"""pixels between the two pictures"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_trained_model_argument(parser)
    add_pictures_argument(parser)
    parser.add_argument("--method", choices=METHODS, default="gradcam", help="default: gradcam")
    parser.add_argument(
        "--class",
        dest="class_name",
        metavar="NAME",
        help="the class to be explained; default: the most probable one",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the PNG files go; default: explanations/ next to model.safetensors",
    )
    add_max_megapixels_option(parser, "is refused")
    add_model_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the pictures, and say what they explain.

    Raises:
        UserError: there is no finished run, no such picture or class, or the method does not fit
            the network.
    """
    choose_kernels_of(arguments.run)
    from trainer.data.sources import named_pictures

    pictures = named_pictures.list_named(arguments.files, skip=False)
    from trainer.finished import separate_answers, trained_model

    processes.set_threads(processes.DEFAULT_THREADS)
    stored = trained_model.load(arguments.run, arguments.model)
    label = _label_of(arguments.class_name, stored.class_names)
    classifier = separate_answers.make_classifier(stored)
    folder = arguments.output or stored.file.with_name("explanations")
    for place in pictures:  # a broken one is named before anything is written
        stored.read(place, arguments.max_megapixels)
    found, taken = [], set[str]()
    for place in pictures:
        row, picture = _explain(
            classifier, place, label, arguments.method, arguments.max_megapixels
        )
        stem = PurePath(place.member or place.file).stem
        name = f"{_shorten(stem, 100)}-{_shorten(row['explained'], 80)}-{arguments.method}"
        output = folder / f"{_unused(name, taken)}.png"
        _write(output, picture)
        found.append(row | {"output": str(output)})
    lines = [
        f"{row['file']}  {row['class']} {row['probability']:.2%}: {row['output']}" for row in found
    ]
    print_report({"method": arguments.method, "pictures": found}, lines, as_json=arguments.json)


def _label_of(name: str | None, class_names: tuple[str, ...]) -> int | None:
    if name is None:
        return None
    if name not in class_names:
        close = difflib.get_close_matches(name, class_names, n=1)
        known = f"did you mean {close[0]}?" if close else f"it has {', '.join(class_names[:20])}"
        raise UserError(f"--class: the model has no class {name!r}; {known}")
    return class_names.index(name)


def _explain(
    classifier: Classifier, place: Place, label: int | None, method: Any, max_megapixels: int
) -> tuple[dict[str, Any], Any]:
    """Return what is printed for a picture, and the two pictures side by side, uint8."""
    import numpy as np
    import torch

    from trainer.data.dataset import drawable
    from trainer.finished import answers
    from trainer.run.report import heat_maps
    from trainer.training import attribution

    stored = classifier.stored
    pixels = stored.read(place, max_megapixels)[None]
    probabilities = classifier.probabilities(pixels)[0]
    best = int(probabilities.argmax())
    asked = best if label is None else label
    heat = attribution.explain(
        method, stored.module, stored.scaling.apply(pixels), torch.tensor([asked])
    )[0].numpy()
    if not np.isfinite(heat).all():
        raise UserError(f"{place}: the model's gradients are not finite, so nothing can be shown")
    shown = drawable(pixels)[0]
    left, right = heat_maps.enlarge(shown), heat_maps.draw(shown, heat)
    gap = np.full((left.shape[0], GAP, 3), 255, np.uint8)
    row = {
        "file": place.name,
        "class": stored.class_names[best],
        "probability": answers.shortest(probabilities.numpy()[best]),
        "explained": stored.class_names[asked],
    }
    return row, np.concatenate([left, gap, right], axis=1)


def _shorten(name: str, most_bytes: int) -> str:
    """Return as much of a name as a part of a file's name may have; no slash is in it."""
    return os.fsencode(name.replace("/", "_"))[:most_bytes].decode(errors="ignore")


def _unused(name: str, taken: set[str]) -> str:
    """Return a name that no other picture of this call has, and note it."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found)
    return found


def _write(path: Path, picture: Any) -> None:
    from PIL import Image

    from trainer.base.files import write_file

    with report_write_errors("--output", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, lambda temporary: Image.fromarray(picture).save(temporary, "PNG"))
