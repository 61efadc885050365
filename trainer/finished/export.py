"""Export a trained model as one file for other programs, with the scaling inside, and check it.

ONNX and TorchScript are written by `export_worker` in a separate process, as torch's exporters
may crash on a network that they do not understand.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from trainer.base.errors import UserError
from trainer.base.files import write_file
from trainer.base.tensor_files import read_tensors, write_tensors
from trainer.data.scaling import encode_scaling, network_tensors
from trainer.finished import trained_model
from trainer.finished.export_worker import (
    BATCH_NAME,
    INPUT_NAME,
    OUTPUT_NAME,
    PixelModel,
    check_output,
)
from trainer.finished.trained_model import TrainedModel

Format = Literal["onnx", "torchscript", "safetensors"]
InputType = Literal["float32", "uint8"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}


def export(
    trained: TrainedModel, form: Format, target: Path, input_type: InputType = "float32"
) -> dict[str, Any]:
    """Write the model to `target`, whole and checked or not at all.

    Args:
        trained: on the CPU; of a network that any process can build by its name.
        input_type: of the pixels that an ONNX graph takes; TorchScript takes either.

    Returns:
        What was written, see `describe`; with `checked`: over how many images it was compared, the
        largest difference of a logit, and the tolerance.

    Raises:
        UserError: a package is missing, the network cannot be written in this format, the file does
            not give what the original gives, or the exporter has crashed.
    """
    if target.exists() and target.samefile(trained.file):
        raise UserError(f"{target}: is the run's own file; choose another --output")
    facts = describe(trained, form, input_type)
    checked: dict[str, Any] = {}

    def write(temporary: Path) -> None:
        if form == "safetensors":
            checked.update(_write_safetensors(trained, temporary, target))
            return
        task: dict[str, Any] = {"form": form, "input_type": input_type, "facts": facts}
        task |= {"file": str(trained.file), "model": trained.name}
        checked.update(_run_worker(task | {"temporary": str(temporary), "target": str(target)}))

    try:
        write_file(target, write)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    return {"file": str(target), "bytes": target.stat().st_size, **facts, "checked": checked}


def describe(trained: TrainedModel, form: Format, input_type: InputType) -> dict[str, Any]:
    """Return the file's metadata, which a program needs to use it."""
    facts: dict[str, Any] = {
        "format": form,
        "model": trained.name,
        "class_names": list(trained.class_names),
        "weights_sha256": trained.weights_sha256,
        "resize": trained.resize,
        "crop_share": trained.crop_share,
        "interpolation": trained.interpolation,
        "store_size": trained.store_size,
        "store_quality": trained.store_quality,
    }
    if trained.thresholds is not None:
        facts["thresholds"] = list(trained.thresholds)
    if trained.temperature != 1:
        facts["temperature"] = trained.temperature
    if trained.grey_range:
        facts["grey_range"] = list(trained.grey_range)
    if form == "safetensors":
        return facts
    return facts | {
        "input": {
            "name": INPUT_NAME,
            "type": input_type if form == "onnx" else "float32 or uint8",
            "shape": [BATCH_NAME, trained.channels, *trained.image_size],
            "values": "0 to 255; red, green, blue" if trained.channels == 3 else "0 to 255",
        },
        "output": {
            "name": OUTPUT_NAME,
            "type": "float32",
            "shape": [BATCH_NAME, len(trained.class_names)],
            "values": _output_values(trained),
        },
        "arithmetic": "float32",
    }


def _output_values(trained: TrainedModel) -> str:
    if trained.thresholds is not None:
        return (
            "logits; their sigmoid is the probability of each label, which an image has where it "
            "reaches the threshold"
        )
    logits = "logits" if trained.temperature == 1 else "logits over the temperature"
    return f"{logits}; their softmax is the probabilities"


def _write_safetensors(trained: TrainedModel, path: Path, target: Path) -> dict[str, Any]:
    numbers, scaling = encode_scaling(trained.scaling)
    metadata = json.dumps(json.loads(trained.metadata) | numbers)
    # From the run's file: the module's tensors may have changed with its mode.
    weights = network_tensors(read_tensors(trained.file))
    write_tensors(path, {**weights, **scaling}, {"model": metadata})
    again = trained_model.load(path, trained.name)
    original, copy = (PixelModel(one).eval() for one in (trained, again))
    example = torch.zeros(2, trained.channels, *trained.image_size)
    return check_output(copy, original, example, target, same_draws=True)


def _run_worker(task: dict[str, Any]) -> dict[str, Any]:
    """Have a file written and checked by a separate process; return what was checked.

    Raises:
        UserError: the file could not be written, or the process has ended without a word.
    """
    # As PYTHONPATH, so that user-defined code is found there too; -P: only there.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "trainer.finished.export_worker", json.dumps(task)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        ending = _describe_ending(done)
        raise UserError(f"--format {task['form']}: {ending}; nothing is written") from None
    if "error" in found:
        raise UserError(found["error"])
    checked: dict[str, Any] = found["checked"]
    return checked


def _describe_ending(done: subprocess.CompletedProcess[bytes]) -> str:
    """Say how the process has ended, with its last line on standard error."""
    code = done.returncode
    if code == -signal.SIGKILL:
        how = "was killed (SIGKILL), as happens where memory runs out"
    elif code < 0:
        how = f"crashed on this network (signal {-code}, {signal.Signals(-code).name})"
    else:
        how = f"ended with exit code {code}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"the process of the exporter {how}" + "".join(f": {line[:200]}" for line in last)
