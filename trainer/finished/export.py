"""A trained model as one file for other programs, with the scaling inside, checked before use."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from trainer.base.errors import UserError
from trainer.base.files import write_file
from trainer.base.tensor_files import read_tensors, write_tensors
from trainer.data import saved_scaling
from trainer.finished import export_worker, trained_model
from trainer.finished.export_worker import BATCH_NAME, INPUT_NAME, OUTPUT_NAME, PixelModel
from trainer.finished.trained_model import TrainedModel

Format = Literal["onnx", "torchscript", "safetensors"]
InputType = Literal["float32", "uint8"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}

_START = (
    "import json, sys; task = json.loads(sys.argv[1]); sys.path[:] = task['path']; "
    "from trainer.finished import export_worker; export_worker.main(task)"
)


def export(
    stored: TrainedModel, form: Format, target: Path, input_type: InputType = "float32"
) -> dict[str, Any]:
    """Write the model to `target`, whole and checked or not at all.

    Args:
        stored: on the CPU; of a network that any process can build by its name.
        input_type: of the pixels that an ONNX graph takes; TorchScript takes either.

    Returns:
        What was written, for a person or a program: see `describe`; with `checked`, over how many
        images it was compared, the largest difference of a logit, and the tolerance.

    Raises:
        UserError: a package is missing, the network has no such form, what was written does not
            give what the original gives, or the exporter has crashed.
    """
    if target.exists() and target.samefile(stored.file):
        raise UserError(f"{target}: is the run's own file; choose another --output")
    facts = describe(stored, form, input_type)
    checked: dict[str, Any] = {}

    def write(temporary: Path) -> None:
        if form == "safetensors":
            checked.update(_write_safetensors(stored, temporary, target))
            return
        task: dict[str, Any] = {"form": form, "input_type": input_type, "facts": facts}
        task |= {"file": str(stored.file), "model": stored.name}
        checked.update(_run(task | {"temporary": str(temporary), "target": str(target)}))

    try:
        write_file(target, write)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    return {"file": str(target), "bytes": target.stat().st_size, **facts, "checked": checked}


def describe(stored: TrainedModel, form: Format, input_type: InputType) -> dict[str, Any]:
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


def _write_safetensors(stored: TrainedModel, path: Path, target: Path) -> dict[str, Any]:
    numbers, scaling = saved_scaling.encode(stored.scaling)
    metadata = json.dumps(json.loads(stored.metadata) | numbers)
    # As they are in the run's file, which no mode has changed.
    weights = saved_scaling.network_tensors(read_tensors(stored.file))
    write_tensors(path, {**weights, **scaling}, {"model": metadata})
    again = trained_model.load(path, stored.name)
    models = [PixelModel(one.module, one.scaling).eval() for one in (stored, again)]
    example = torch.zeros(2, stored.channels, *stored.image_size)
    return export_worker.check(models[1], models[0], example, target, same_draws=True)


def _run(task: dict[str, Any]) -> dict[str, Any]:
    """Have a file written, and checked, by a process of its own.

    Raises:
        UserError: it could not, or the process has ended without a word.
    """
    words = [sys.executable, "-c", _START, json.dumps(task | {"path": sys.path})]
    done = subprocess.run(words, capture_output=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise UserError(f"--format {task['form']}: {_end_of(done)}; nothing is written") from None
    if "error" in found:
        raise UserError(found["error"])
    checked: dict[str, Any] = found["checked"]
    return checked


def _end_of(done: subprocess.CompletedProcess[bytes]) -> str:
    """How the process has ended, in words, and the last that it said."""
    code = done.returncode
    if code == -signal.SIGKILL:
        how = "was killed (SIGKILL), as a system does where memory runs out"
    elif code < 0:
        how = f"crashed on this network (signal {-code}, {signal.Signals(-code).name})"
    else:
        how = f"ended with exit code {code}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"the process of the exporter {how}" + "".join(f": {line[:200]}" for line in last)
