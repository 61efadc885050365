"""Write a trained model as ONNX or TorchScript and check what was written.

Run by `export` as `python -m trainer.finished.export_worker TASK`: torch's exporters may crash on a
network that they do not understand. The arithmetic of the graph is float32, whatever precision the
run was trained in.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.construct import place_of
from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.finished import trained_model
from trainer.finished.trained_model import TrainedModel

INPUT_NAME, OUTPUT_NAME, BATCH_NAME = "pixels", "logits", "batch"
OPSET = 20
"""of ONNX: the first with GELU"""
EXTRA_FILE = "lockstep.json"
"""the file inside a TorchScript file that describes it"""

TOLERANCE = 1e-4
"""of a logit, as a share of the largest of its batch where that is above 1"""
CHECKED_BATCHES = (1, 2, 3)
"""images; the graph was recorded with two, and more could take more memory than the training"""

Run = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    """Do the task in the first argument; print `checked` or `error` as JSON."""
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where the libraries print
    try:
        found: dict[str, Any] = {"checked": write_and_check(json.loads(sys.argv[1]))}
    except UserError as error:
        found = {"error": str(error)}
    with os.fdopen(output, "w", encoding="utf-8") as stream:
        json.dump(found, stream)


def write_and_check(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do a task in this process, which an exporter may end.

    Args:
        task: `file` of the weights, `model` its name, `form` to write, `input_type` of the pixels,
            `facts` that the file says of itself, `temporary` to write to, and `target`, for
            messages.

    Returns:
        What `check_output` returns.

    Raises:
        UserError: the network cannot be written in this format, or the file does not give the same.
    """
    form, path = task["form"], Path(task["temporary"])
    if form == "onnx":
        _require_onnx()
    trained = trained_model.load(Path(task["file"]), task["model"])
    model = PixelModel(trained).eval().requires_grad_(False)
    shape = (2, trained.channels, *trained.image_size)
    example = torch.zeros(shape, dtype=getattr(torch, task["input_type"]))
    write = _write_onnx if form == "onnx" else _write_torchscript
    with _silence_libraries():
        run = write(model, example, task["facts"], path)
        return check_output(run, model, example, Path(task["target"]))


class PixelModel(nn.Module):
    """The network after its scaling.

    Its logits are divided by the temperature, where there is one.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.module = trained.module
        self.temperature = trained.temperature
        self.register_buffer("mean", trained.scaling.mean)
        self.register_buffer("deviation", trained.scaling.deviation)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) of pixels from 0 to 255, (n, channels, height, width)."""
        logits: torch.Tensor = self.module((pixels.to(torch.float32) - self.mean) / self.deviation)
        return logits if self.temperature == 1 else logits / self.temperature


def _write_onnx(model: PixelModel, example: torch.Tensor, facts: dict[str, Any], path: Path) -> Run:
    import numpy as np
    import onnx
    import onnxruntime

    with _explain_failure("cannot be written as onnx"):
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes={INPUT_NAME: {0: torch.export.Dim(BATCH_NAME)}},
            external_data=False,
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
        _remove_source_paths(proto.graph)
        proto.producer_name = "Lockstep"
        texts = {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in facts.items()
        }
        onnx.helper.set_model_props(proto, texts)
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(pixels: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: pixels.numpy()})
        return torch.from_numpy(np.asarray(logits))

    return run


def _remove_source_paths(graph: Any) -> None:
    """Remove the path of the network's code on this machine."""
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for part in (graph, *(one for some in parts for one in some)):
        del part.metadata_props[:]


def _write_torchscript(
    model: PixelModel, example: torch.Tensor, facts: dict[str, Any], path: Path
) -> Run:
    # Recorded with integers, so that the conversion is in the graph.
    with _explain_failure("cannot be written as torchscript"):
        traced = torch.jit.trace(model, (example.to(torch.uint8),), check_trace=False)  # type: ignore[no-untyped-call]
        text = json.dumps(facts, ensure_ascii=False, indent=2)
        torch.jit.save(traced, path, _extra_files={EXTRA_FILE: text.encode()})
        loaded: Run = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return loaded


def check_output(
    run: Run, model: PixelModel, example: torch.Tensor, target: Path, *, same_draws: bool = False
) -> dict[str, Any]:
    """Compare what was written with the original, on patterned images in batches of several sizes.

    Args:
        run: gives the logits of what was written.
        same_draws: whether both draw the same random numbers, as the same code with the same
            weights does; in another format nobody could repeat what the file gives.

    Returns:
        `images` compared, `largest_difference` of a logit, and the `tolerance`.

    Raises:
        UserError: a difference is above the tolerance.
    """
    largest, count = 0.0, 0
    for size in CHECKED_BATCHES:
        pixels = _draw_patterns(size, example)
        with seeding.preserve_generators(), torch.inference_mode():
            seeding.seed_all(0, "evaluation", 0)
            expected = model(pixels)
            seeding.seed_all(0, "evaluation", 0 if same_draws else 1)
            with _explain_failure("what was written does not run"):
                found = run(pixels)
        if found.shape != expected.shape or not bool(expected.isfinite().all()):
            raise UserError(
                f"{target}: not written, as for {size} images the file gives logits of shape "
                f"{tuple(found.shape)}, the original {tuple(expected.shape)}, or infinite ones"
            )
        scale = max(1.0, float(expected.abs().max()))
        difference = float((found - expected).abs().max()) / scale
        if not difference <= TOLERANCE:
            raise UserError(
                f"{target}: not written, as for {size} images its logits differ from the "
                f"original's by {difference:.2g} of the largest, where {TOLERANCE:g} is allowed; "
                f"does the network do other things with other batches, or draw numbers?"
            )
        largest, count = max(largest, difference), count + size
    return {"images": count, "largest_difference": largest, "tolerance": TOLERANCE}


def _draw_patterns(count: int, example: torch.Tensor) -> torch.Tensor:
    """Draw waves of several lengths, black and white, from 0 to 255, of the example's type."""
    places = torch.arange(count * example[0].numel(), dtype=torch.float64)
    lengths = 3.0 + (places / example[0].numel()).floor()
    waves = 127.5 + 127.5 * torch.sin(places / lengths)
    waves = waves.round().view(count, *example.shape[1:])
    if count > 2:
        waves[0], waves[1] = 0, 255
    return waves.to(example.dtype)


@contextlib.contextmanager
def _explain_failure(what: str) -> Iterator[None]:
    """Turn what the exporters raise on a network that they do not understand into one message."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(
            f"--format: the network {what} ({_first_cause(error)}); nothing is written"
        ) from error


def _first_cause(error: BaseException) -> str:
    """Describe what went wrong first: what was raised on top of it advises on exporters."""
    place = place_of(error)
    while (first := error.__cause__ or error.__context__) is not None:
        error = first
        place = place_of(error) or place
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    # After an empty line torch tells how to debug itself.
    words = " ".join(text.partition("\n\n")[0].split())[:300]
    return f"{type(error).__name__}: {words}" + (f"; {place}" if place else "")


@contextlib.contextmanager
def _silence_libraries() -> Iterator[None]:
    """Drop the libraries' notes on their own future and on unneeded packages.

    Before it raises, torch prints the whole program that it does not understand.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _require_onnx() -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"--format onnx: {package} cannot be imported ({error}); "
                f"pip install 'lockstep-trainer[onnx]', or pip install -e '.[onnx]' in its folder"
            ) from error


if __name__ == "__main__":
    main()
