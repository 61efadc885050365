"""How long a trained model takes for an image in each format, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.base.errors import UserError
from trainer.base.files import sha256_of
from trainer.base.terminal import progress_bar
from trainer.config.schema import RunConfig
from trainer.finished.export import formats, record, writing
from trainer.finished.export.description import Order
from trainer.finished.export.failures import (
    describe_failure,
    explain_failure,
    find_missing,
    silence_libraries,
)
from trainer.finished.export.formats import FORMATS, GraphFormat, Run
from trainer.finished.export.modules import PixelModel
from trainer.finished.trained_model import TrainedModel

TIMED: tuple[GraphFormat, ...] = ("onnx", "pt2", "openvino", "int8", "torchscript")
EAGER = "torch"
"""the network as it is, as `predict` and `evaluate` run it"""

_WITH_CODE: tuple[GraphFormat, ...] = ("pt2", "torchscript")
"""whose files may run code of whoever wrote them when torch opens them: they have pickles"""

_BLOCK_S = 0.05
"""of a measurement: as many calls as take about that long"""


def open_formats(
    trained: TrainedModel, folder: Path, config: RunConfig | str, threads: int
) -> tuple[dict[str, Run], list[dict[str, Any]]]:
    """Open a model in each format: the run's own export where it has one of these weights.

    The run may be somebody else's, so those of torch are written anew.

    Args:
        folder: where others are written.
        config: of its run, or why there is none.
        threads: of each.

    Returns:
        What runs each format; and of each its `format`, and `bytes` and `accuracy_lost` (None where
        the run does not know it), or why it is `left_out`.
    """
    module = PixelModel(trained).eval().requires_grad_(False)
    runs: dict[str, Run] = {EAGER: torch.inference_mode()(module)}
    rows: list[dict[str, Any]] = [
        {"format": EAGER, "bytes": trained.file.stat().st_size, "accuracy_lost": 0.0}
    ]
    known = record.read(trained.file.parent)
    with progress_bar("formats", len(TIMED)) as progress:
        for form in TIMED:
            run, row = _open(trained, form, known.get(form), folder, config, threads)
            rows.append({"format": form, **row})
            if run:
                runs[form] = run
            progress.update()
    return runs, rows


def _open(
    trained: TrainedModel,
    form: GraphFormat,
    export: Mapping[str, Any] | None,
    folder: Path,
    config: RunConfig | str,
    threads: int,
) -> tuple[Run | None, dict[str, Any]]:
    """Return what runs a format, or None, and what is known of it.

    Args:
        export: what the run knows of its own, if it has one.
        folder, config, threads: as of `open_formats`.
    """
    if missing := find_missing(FORMATS[form].packages):
        return None, {"left_out": f"not installed: {missing}"}
    path, lost = _find(trained, form, export), None
    if path and export:
        lost = (export.get("tested") or {}).get("accuracy_lost")
    try:
        if path is None or form in _WITH_CODE:
            path = folder / Order(form).file_name
            writing.write_graph(trained, Order(form), path, path, config)
        with silence_libraries(), explain_failure("its file cannot be opened"):
            run = torch.inference_mode()(formats.open_file(form, path, threads))
    except UserError as error:
        return None, {"left_out": str(error)}
    size_bytes = sum(file.stat().st_size for file in writing.files_of(form, path))
    return run, {"bytes": size_bytes, "accuracy_lost": lost}


def _find(
    trained: TrainedModel, form: GraphFormat, export: Mapping[str, Any] | None
) -> Path | None:
    """Return the file of an export if it is still what the run knows of it."""
    if export is None or export.get("weights_sha256") != trained.weights_sha256:
        return None
    if export.get("input_type") != "float32":
        return None
    path = trained.file.parent / str(export.get("file"))
    digests = export.get("sha256")
    files = writing.files_of(form, path)
    if not all(file.is_file() for file in files):
        return None
    return path if digests == {file.name: sha256_of(file) for file in files} else None


def measure(
    trained: TrainedModel, runs: Mapping[str, Run], batches: Sequence[int], rounds: int
) -> tuple[dict[str, dict[int, dict[str, float]]], dict[str, str]]:
    """Return milliseconds for an image: `median`, `low` and `high` of the rounds.

    In each round all formats come in turn, so that whatever else the machine does meets them alike.

    Args:
        batches: sizes, in images.

    Returns:
        The times by format and size of the batch; and why a format does not run, such as for a lack
        of memory, by its name: it has none then of the larger batch.
    """
    failures: dict[str, str] = {}
    times: dict[str, dict[int, dict[str, float]]] = {name: {} for name in runs}
    with progress_bar("rounds", rounds * len(batches)) as progress:
        for size in batches:
            pixels = torch.full((size, trained.channels, *trained.image_size), 127.0)
            calls: dict[str, int] = {}
            for name, run in runs.items():
                if name in failures:
                    continue
                try:
                    calls[name] = _calls(run, pixels)
                except Exception as error:  # each library has errors of its own
                    if name == EAGER:
                        raise
                    failures[name] = describe_failure(error)
            found: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(rounds):
                for name, count in calls.items():
                    seconds = _time(runs[name], pixels, count)
                    found[name].append(1000 * seconds / (count * size))
                progress.update()
            for name, values in found.items():
                times[name][size] = {
                    "median": statistics.median(values), "low": min(values), "high": max(values)
                }  # fmt: skip
    return times, failures


def _calls(run: Run, pixels: torch.Tensor) -> int:
    """Return how many calls take about `_BLOCK_S`; the first ones warm up."""
    _time(run, pixels, 2)
    return max(1, round(_BLOCK_S / _time(run, pixels, 2) * 2))


def _time(run: Run, pixels: torch.Tensor, calls: int) -> float:
    """Return the seconds that some calls take."""
    begin_s = time.perf_counter()
    for _ in range(calls):
        run(pixels)
    return time.perf_counter() - begin_s
