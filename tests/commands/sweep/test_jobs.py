"""What a sweep says of a process that failed."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from trainer.base.locks import Lock
from trainer.commands.sweep import jobs
from trainer.config.schema import RunConfig


def test_a_process_that_wrote_nothing(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(3,))
    process.start()
    process.join()
    with (tmp_path / "lock").open("wb", buffering=0) as file:
        job = jobs.Job(RunConfig(output_dir=str(tmp_path)), list, Lock(file, False), process)
        assert job.reason() == "ended with code 3"  # it failed before it could open its output
        (tmp_path / jobs.OUTPUT).write_text("first\n\nValueError: \u2026 \n\n", "utf-8")
        assert job.reason() == "ValueError: \u2026"
