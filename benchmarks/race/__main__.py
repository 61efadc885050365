"""Train one way: python -m race NAME TASK, which is a JSON object."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys

import torch
from torchvision_operators import define_missing_operators

from race import WAYS, Task
from race.parts import Curve


def main() -> None:
    """Train, and print the curve and the version of the library as the last line."""
    name, text = sys.argv[1:]
    task, curve = Task(**json.loads(text)), Curve()
    torch.set_num_threads(task.threads)
    library = define_missing_operators() if "timm" in WAYS[name].folders else None
    importlib.import_module(f"race.{name}").train(task, curve)
    version = importlib.metadata.version(WAYS[name].distribution)
    found = {"points": curve.points, "within": curve.within, "version": version}
    print("\n" + json.dumps(found))
    del library  # it would have taken the operators with it


if __name__ == "__main__":
    main()
