"""A trained model as one file for other programs, with the scaling inside, checked before use.

The arithmetic of the graph is float32, whatever precision the run was trained in.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from trainer import stored_model, stored_scaling
from trainer.data.scaling import Scaling
from trainer.errors import UserError
from trainer.files import write_file
from trainer.stored_model import StoredModel
from trainer.tensor_files import write_tensors

Format = Literal["onnx", "torchscript", "safetensors"]
InputType = Literal["float32", "uint8"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}

INPUT_NAME, OUTPUT_NAME, BATCH_NAME = "pixels", "logits", "batch"
OPSET = 20
"""of ONNX: the first with GELU"""
EXTRA_FILE = "lockstep.json"
"""what a TorchScript file says of itself"""

TOLERANCE = 1e-4
"""of a logit, as a share of the largest of its batch where that is above 1"""
CHECKED_BATCHES = (1, 2, 3)
"""images; the graph was recorded with two, and more could take more memory than the training"""

Run = Callable[[torch.Tensor], torch.Tensor]


class PixelModel(nn.Module):
    """The network with its scaling before it.

    Args:
        module: takes scaled images.
        scaling: what it was trained with.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, module: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", scaling.mean)
        self.register_buffer("deviation", scaling.deviation)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) of pixels from 0 to 255, (n, channels, height, width)."""
        logits: torch.Tensor = self.module((pixels.to(torch.float32) - self.mean) / self.deviation)
        return logits


def export(
    stored: StoredModel, form: Format, target: Path, input_type: InputType = "float32"
) -> dict[str, Any]:
    """Write the model to `target`, whole and checked or not at all.

    Args:
        stored: on the CPU.
        input_type: of the pixels that an ONNX graph takes; TorchScript takes either.

    Returns:
        What was written, for a person or a program: see `describe`; with `checked`, over how many
        images it was compared, the largest difference of a logit, and the tolerance.

    Raises:
        UserError: a package is missing, the network has no such form, or what was written does not
            give what the original gives.
    """
    if target.exists() and target.samefile(stored.file):
        raise UserError(f"{target}: is the run's own file; choose another --output")
    if form == "onnx":
        _require_onnx()
    model = PixelModel(stored.module, stored.scaling).eval().requires_grad_(False)
    facts = describe(stored, form, input_type)
    example = torch.zeros(2, stored.channels, *stored.image_size, dtype=getattr(torch, input_type))
    checked: dict[str, Any] = {}

    def write(temporary: Path) -> None:
        with _quiet():
            if form == "onnx":
                run = _write_onnx(model, example, facts, temporary)
            elif form == "torchscript":
                run = _write_torchscript(model, example, facts, temporary)
            else:
                run = _write_safetensors(stored, temporary)
            checked.update(_check(run, model, example, target))

    try:
        write_file(target, write)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    return {"file": str(target), "bytes": target.stat().st_size, **facts, "checked": checked}


def describe(stored: StoredModel, form: Format, input_type: InputType) -> dict[str, Any]:
    """What stands in the file, and what a program needs to know to use it."""
    shape = [BATCH_NAME, stored.channels, *stored.image_size]
    facts: dict[str, Any] = {
        "format": form,
        "model": stored.name,
        "class_names": list(stored.class_names),
        "weights_sha256": stored.weights_sha256,
    }
    if stored.grey_range:
        facts["grey_range"] = list(stored.grey_range)
    if form == "safetensors":
        return facts
    return facts | {
        "input": {
            "name": INPUT_NAME,
            "type": input_type if form == "onnx" else "float32 or uint8",
            "shape": shape,
            "values": "0 to 255; red, green, blue" if stored.channels == 3 else "0 to 255",
        },
        "output": {
            "name": OUTPUT_NAME,
            "type": "float32",
            "shape": [BATCH_NAME, len(stored.class_names)],
            "values": "logits; their softmax is the probabilities",
        },
        "arithmetic": "float32",
    }


def _write_onnx(model: PixelModel, example: torch.Tensor, facts: dict[str, Any], path: Path) -> Run:
    import numpy as np
    import onnx
    import onnxruntime

    with _mendable("onnx"):
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
        _forget_sources(proto.graph)
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


def _forget_sources(graph: Any) -> None:
    """Leave out where on this machine the network's code lies."""
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for part in (graph, *(one for some in parts for one in some)):
        del part.metadata_props[:]


def _write_torchscript(
    model: PixelModel, example: torch.Tensor, facts: dict[str, Any], path: Path
) -> Run:
    # Recorded with whole numbers, so that the conversion is in the graph.
    with _mendable("torchscript"):
        traced = torch.jit.trace(model, (example.to(torch.uint8),), check_trace=False)  # type: ignore[no-untyped-call]
        text = json.dumps(facts, ensure_ascii=False, indent=2)
        torch.jit.save(traced, path, _extra_files={EXTRA_FILE: text.encode()})
        loaded: Run = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return loaded


def _write_safetensors(stored: StoredModel, path: Path) -> Run:
    numbers, scaling = stored_scaling.to_file(stored.scaling)
    metadata = json.dumps(json.loads(stored.metadata) | numbers)
    write_tensors(path, {**stored.module.state_dict(), **scaling}, {"model": metadata})
    again = stored_model.load(path, stored.name)
    return PixelModel(again.module, again.scaling).eval()


def _check(run: Run, model: PixelModel, example: torch.Tensor, target: Path) -> dict[str, Any]:
    """Compare with the original on black, white and patterned images, in batches of several sizes.

    Raises:
        UserError: a difference is above the tolerance.
    """
    largest, count = 0.0, 0
    for size in CHECKED_BATCHES:
        pixels = _images(size, example)
        with torch.inference_mode():
            expected = model(pixels)
        with _mendable("check"), torch.inference_mode():
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


def _images(count: int, example: torch.Tensor) -> torch.Tensor:
    """Waves of several lengths and shades of grey, from 0 to 255, of the example's type."""
    places = torch.arange(count * example[0].numel(), dtype=torch.float64)
    lengths = 3.0 + (places / example[0].numel()).floor()
    waves = 127.5 + 127.5 * torch.sin(places / lengths)
    waves = waves.round().view(count, *example.shape[1:])
    if count > 2:
        waves[0], waves[1] = 0, 255
    return waves.to(example.dtype)


@contextlib.contextmanager
def _mendable(what: str) -> Iterator[None]:
    """Whatever the exporters raise on a network that they do not understand becomes one message."""
    try:
        yield
    except (UserError, OSError, KeyboardInterrupt):
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        doing = "what was written does not run" if what == "check" else f"has no form as {what}"
        raise UserError(
            f"--format: the network {doing} ({type(error).__name__}: {words}); nothing is written"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' notes on their own future and on packages that nobody needs.

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
