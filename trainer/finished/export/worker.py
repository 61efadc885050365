"""Write a trained model in a format of other programs and check what was written.

Run by `writing` as `python -m trainer.finished.export.worker`: torch's exporters may crash on a
network that they do not understand. The arithmetic of the graph is float32, whatever precision the
run was trained in.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.base.errors import UserError
from trainer.finished import trained_model
from trainer.finished.export import checking, formats
from trainer.finished.export.failures import explain_failure, silence_libraries
from trainer.finished.export.modules import ExportedModule, PictureModel, PixelModel


def main() -> None:
    """Do the task on standard input, JSON; print `checked` or `error` as JSON."""
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where the libraries print
    try:
        found: dict[str, Any] = {"checked": write_and_check(json.load(sys.stdin))}
    except UserError as error:
        found = {"error": str(error)}
    with os.fdopen(output, "w", encoding="utf-8") as stream:
        json.dump(found, stream)


def write_and_check(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do a task in this process, which an exporter may end.

    Args:
        task: `file` of the weights, `model` its name, `form` to write, `input_type` of the pixels
            or None with preprocessing, `facts` that the file says of itself, `calibration`, a file
            of images, or None, `temporary` to write to, and `target`, for messages.

    Returns:
        What `checking.check_pixels` or `check_pictures` returns.

    Raises:
        UserError: the network cannot be written in this format, or the file does not give the same.
    """
    form, path, target = task["form"], Path(task["temporary"]), Path(task["target"])
    formats.require(form)
    trained = trained_model.load(Path(task["file"]), task["model"])
    module: ExportedModule
    if task["input_type"]:
        module = PixelModel(trained, task["input_type"])
    else:
        module = PictureModel(trained)
    module.eval().requires_grad_(False)
    calibration = task["calibration"]
    with silence_libraries(), explain_failure(f"the network cannot be written as {form}"):
        formats.write(
            form,
            module,
            task["facts"],
            path,
            torch.from_numpy(np.load(calibration, allow_pickle=False)) if calibration else None,
        )
        run = formats.open_file(form, path)
    is_whole = isinstance(module, PictureModel)
    tolerance = checking.tolerance_of(form, with_preprocessing=is_whole)
    with silence_libraries():
        if isinstance(module, PixelModel):
            return checking.check_pixels(run, module, target, tolerance)
        return checking.check_pictures(run, trained, target, tolerance)


if __name__ == "__main__":
    main()
