"""The formats of files for other programs: how one is written, and how it is opened again."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from trainer.base.errors import UserError
from trainer.finished.export import quantisation, source_paths
from trainer.finished.export.failures import find_missing
from trainer.finished.export.modules import ExportedModule, PictureModel

Format = Literal["onnx", "torchscript", "safetensors", "pt2", "openvino", "int8"]
GraphFormat = Literal["onnx", "torchscript", "pt2", "openvino", "int8"]
Run = Callable[[torch.Tensor], torch.Tensor]
Facts = dict[str, Any]

OPSET = 20
"""of ONNX: the first with GELU"""
EXTRA_FILE = "lockstep.json"
"""the file inside a TorchScript file, or one of torch.export, that describes it"""
_IN_OPENVINO = "lockstep"
"""what OpenVINO's rt_info has it under"""


@dataclass(frozen=True)
class FormatFacts:
    """What is known of a format.

    Args:
        suffix: of its files.
        packages: that write and open it, besides torch.
        is_exact: whether it computes in float32, as the original does.
    """

    suffix: str
    packages: tuple[str, ...] = ()
    is_exact: bool = True


_ONNX = ("onnx", "onnxruntime", "onnxscript")
FORMATS: dict[Format, FormatFacts] = {
    "onnx": FormatFacts(".onnx", _ONNX),
    "torchscript": FormatFacts(".pt"),
    "safetensors": FormatFacts(".safetensors"),
    "pt2": FormatFacts(".pt2"),
    "openvino": FormatFacts(".xml", (*_ONNX, "openvino")),
    "int8": FormatFacts(".onnx", _ONNX, is_exact=False),
}


def require(form: Format) -> None:
    """Make sure that a format's packages are there.

    Raises:
        UserError: names the package and its extra.
    """
    if missing := find_missing(FORMATS[form].packages):
        raise UserError(f"--format {form}: {missing}")


def write(
    form: GraphFormat,
    module: ExportedModule,
    facts: Facts,
    path: Path,
    calibration: torch.Tensor | None = None,
) -> None:
    """Write a module as a file; OpenVINO's has its weights beside it, in a file named .bin.

    Args:
        facts: what the file says of itself.
        calibration: of int8, images as the network takes them.

    Raises:
        Exception: whatever the libraries raise on a module that they do not understand.
    """
    if form == "torchscript":
        _write_torchscript(module, facts, path)
    elif form == "pt2":
        _write_pt2(module, facts, path)
    elif form == "onnx":
        _write_onnx(module, facts, path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            exact = Path(folder, "model.onnx")
            if form == "openvino":
                _write_onnx(module, facts, exact)
                _write_openvino(exact, facts, path)
                return
            assert calibration is not None
            _write_onnx(getattr(module, "pixel_model", module), {}, exact)
            quantised = quantisation.quantise(exact, calibration)
            if isinstance(module, PictureModel):
                fitting = Path(folder, "fitting.onnx")
                _write_onnx(module.fitting, {}, fitting)
                quantised = quantisation.put_behind(fitting, quantised, module)
            _save_onnx(quantised, facts, path)


def _write_onnx(module: ExportedModule, facts: Facts, path: Path) -> None:
    program = torch.onnx.export(
        module,
        (module.example(),),
        dynamo=True,
        opset_version=OPSET,
        input_names=[module.input_name],
        output_names=[module.output_name],
        dynamic_shapes=module.dynamic_shapes(),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    _save_onnx(program.model_proto, facts, path)


def _save_onnx(proto: Any, facts: Facts, path: Path) -> None:
    import onnx

    _remove_source_paths(proto.graph)
    proto.producer_name = "Lockstep"
    texts = {key: value if isinstance(value, str) else _json(value) for key, value in facts.items()}
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _remove_source_paths(graph: Any) -> None:
    """Remove the path of the network's code on this machine."""
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for part in (graph, *(one for some in parts for one in some)):
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _remove_source_paths(attribute.g)


def _write_torchscript(module: ExportedModule, facts: Facts, path: Path) -> None:
    # Recorded with integers, so that the conversion is in the graph.
    example = module.example().to(torch.uint8)
    traced = torch.jit.trace(module, (example,), check_trace=False)  # type: ignore[no-untyped-call]
    text = json.dumps(facts, ensure_ascii=False, indent=2)
    stream = io.BytesIO()  # so that a full disk is an OSError
    torch.jit.save(traced, stream, _extra_files={EXTRA_FILE: text.encode()})
    path.write_bytes(source_paths.remove_from_torchscript(stream.getvalue()))


def _write_pt2(module: ExportedModule, facts: Facts, path: Path) -> None:
    program = torch.export.export(
        module, (module.example(),), dynamic_shapes=module.dynamic_shapes()
    )
    source_paths.remove_from_program(program)
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={EXTRA_FILE: json.dumps(facts, indent=2)})
    path.write_bytes(stream.getvalue())


def _write_openvino(exact: Path, facts: Facts, path: Path) -> None:
    import openvino

    model = openvino.Core().read_model(exact)
    for key, value in facts.items():
        model.set_rt_info(value if isinstance(value, str) else _json(value), [_IN_OPENVINO, key])
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "model.xml")
        openvino.save_model(model, saved, compress_to_fp16=False)
        for suffix in (".xml", ".bin"):  # copied, so that a full disk is an OSError
            shutil.copyfile(saved.with_suffix(suffix), path.with_suffix(suffix))


def open_file(form: GraphFormat, path: Path, threads: int = 0) -> Run:
    """Return what runs a file on the CPU.

    Args:
        threads: of it; 0: as many as the library likes. Torch's are those of the process.
    """
    if form in ("onnx", "int8"):
        return _open_onnx(path, threads)
    if form == "openvino":
        return _open_openvino(path, threads)
    if form == "torchscript":
        script: Run = torch.jit.load(path)  # type: ignore[no-untyped-call]
        return script
    module: Run = torch.export.load(path).module()
    return module


def _open_onnx(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(batch: torch.Tensor) -> torch.Tensor:
        (found,) = session.run(None, {given.name: batch.numpy()})
        return torch.from_numpy(np.asarray(found))

    return run


def _open_openvino(path: Path, threads: int) -> Run:
    import openvino

    # Processors with bfloat16 would compute in it.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.array(compiled(batch.numpy())[0]))

    return run
