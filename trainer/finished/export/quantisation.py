"""Quantise a network in ONNX to whole numbers of 8 bits, by what its values are on images.

Weights become int8, by output channel, and values uint8, between the lowest and the highest that
the images give (static quantisation, QDQ). Weights use 7 bits: with 8, processors without VNNI
would saturate their sums
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainer.finished.export.modules import PictureModel, PixelModel

CALIBRATION_IMAGES = 512
"""at the most"""
_BATCH = 16
_PREFIX = "network_"


def quantise(exact: Path, calibration: torch.Tensor) -> Any:
    """Return a quantised copy of a network, an onnx.ModelProto; its logits stay exact.

    Args:
        exact: the file of the network.
        calibration: images as it takes them.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=exact.parent) as folder:
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "quantised.onnx")
        quant_pre_process(exact, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        last = _last_layer(nodes)
        quantize_static(
            prepared,
            quantised,
            _reader(calibration),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in nodes[last + 1 :]],
        )
        found = onnx.load(quantised)
        _keep_exact(found.graph, nodes[last].name)
        return found


def put_behind(fitting: Path, quantised: Any, module: PictureModel) -> Any:
    """Return a graph from pictures to probabilities, an onnx.ModelProto.

    Args:
        fitting: the file of what is done to pictures.
        quantised: the network behind it.
        module: whose parts they are.
    """
    import onnx

    ends = (module.fitting.output_name, module.pixel_model.input_name)
    merged = onnx.compose.merge_models(
        onnx.load(fitting), quantised, io_map=[ends], prefix2=_PREFIX
    )
    logits = merged.graph.output[0]
    head = onnx.helper.make_node(
        "Sigmoid" if module.has_several_labels else "Softmax",
        [logits.name],
        [module.output_name],
    )
    if not module.has_several_labels:
        head.attribute.append(onnx.helper.make_attribute("axis", 1))
    merged.graph.node.append(head)
    logits.name = module.output_name
    return merged


def _reader(calibration: torch.Tensor) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[npt.NDArray[Any]] = iter(
                np.ascontiguousarray(batch) for batch in torch.split(calibration, _BATCH)
            )

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {PixelModel.input_name: batch}

    return Reader()


def _last_layer(nodes: Any) -> int:
    layers = ("Conv", "Gemm", "MatMul")
    return max((index for index, node in enumerate(nodes) if node.op_type in layers), default=0)


def _keep_exact(graph: Any, layer: str) -> None:
    """Take out what rounds the values that a layer gives to 8 bits.

    Args:
        layer: the name of its node.
    """
    (node,) = (node for node in graph.node if node.name == layer)
    rounding = _reader_of(graph, node.output[0])
    if rounding is None or rounding.op_type != "QuantizeLinear":
        return
    back = _reader_of(graph, rounding.output[0])
    node.output[0] = back.output[0]
    for one in (rounding, back):
        graph.node.remove(one)
    used = {name for one in graph.node for name in one.input}
    for tensor in [one for one in graph.initializer if one.name in rounding.input]:
        if tensor.name not in used:
            graph.initializer.remove(tensor)


def _reader_of(graph: Any, value: str) -> Any:
    return next((node for node in graph.node if value in node.input), None)
