"""Run one program: python -m gpu_cases PROGRAM TASK OUTPUT.

TASK is a JSON object; OUTPUT the file of what the program finds, which is whole at any time.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from gpu_cases import Task
from trainer.base import files


def main() -> None:
    """Run it, and write each of its figures as it comes."""
    program, text, output = sys.argv[1:]
    found: dict[str, Any] = {}

    def save(figures: dict[str, Any]) -> None:
        found.update(figures)
        files.write_json(Path(output), found)

    importlib.import_module(f"gpu_cases.{program}").run(Task(**json.loads(text)), save)


if __name__ == "__main__":
    main()
