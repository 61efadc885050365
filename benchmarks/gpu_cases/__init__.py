"""What gpu.py measures, a process each: `python -m gpu_cases PROGRAM TASK OUTPUT` runs one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Save = Callable[[dict[str, Any]], None]
"""keeps figures as they come, so that a program that is killed leaves those before"""


@dataclass(frozen=True)
class Task:
    """What a program is to do, as JSON."""

    device: Literal["cuda", "cpu"]
    small: bool
    """whether sizes are those of a trial of the whole in a minute, whose figures mean nothing"""
    work_dir: str
    """folder of all programs, where the first ones put images for the others"""
    root: str | None
    """folder with cifar10-jpg.zip; None: images are made"""
    options: dict[str, Any] = field(default_factory=dict)
    """of this program"""

    @property
    def images(self) -> Path:
        """The folder of the small images, four NumPy files."""
        return Path(self.work_dir) / "images"

    @property
    def photos(self) -> Path:
        """The folder of the photographs' JPEG files."""
        return Path(self.work_dir) / "photos"

    @property
    def pixels(self) -> Path:
        """The folder of as many photographs decoded beforehand, four NumPy files."""
        return Path(self.work_dir) / "pixels"

    @property
    def epochs(self) -> int:
        """How many epochs a measurement of speed has, with those that do not count."""
        return 2 if self.small else WARM_UP_EPOCHS + 4

    @property
    def batch_size(self) -> int:
        """Samples of a step of the small images."""
        return 50 if self.small else 500

    @property
    def workers(self) -> int:
        """Processes or threads that prepare batches beside the one that computes."""
        return 1 if self.small else min(12, max(1, (os.cpu_count() or 1) - 2))


WARM_UP_EPOCHS = 1
