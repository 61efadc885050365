"""Add to an exported graph what the page shows beside the probabilities.

The graph takes a picture and gives probabilities. It gets another input, whether black and white
are swapped, and two outputs: the image as the network sees it, and where that is exact, how much
each place adds to each class. It is exact in networks that end with one linear layer over the last
maps: over their means (class activation maps: Zhou et al. 2016, arXiv 1512.04150; Grad-CAM gives
the same there), over their largest values, or over all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.finished.trained_model import TrainedModel
from trainer.training.attribution import MAP_SHARE, MAP_SIDE

INVERT, IMAGE, MAPS = "invert", "image", "maps"

_PASSED = ("Identity", "Dropout", "Reshape", "Flatten", "Squeeze")
"""operators that leave the numbers as they are"""
_MEANS, _LARGEST = ("ReduceMean", "GlobalAveragePool"), ("ReduceMax", "GlobalMaxPool")
_AFTER_HEAD = ("Softmax", "Sigmoid", "Identity")
_SCALE = ("Div", "Mul")

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Head:
    """The linear layer at the end of a graph, and the maps that it is over.

    Args:
        maps: the name of a value (n, channels, height, width).
        shape: channels, height and width.
        pooled: the name of what the maps are pooled to, where that is their largest values.
        weights: of each class, (classes, channels, 1, 1) or (classes, channels, height, width).
    """

    maps: str
    shape: tuple[int, int, int]
    pooled: str | None
    weights: Weights


def add_ends(proto: Any, trained: TrainedModel) -> bool:
    """Add the input and the outputs to a graph with preprocessing.

    Args:
        proto: ONNX's model, which is changed.

    Returns:
        Whether it gives maps.

    Raises:
        UserError: the graph is of another make.
    """
    from onnx import TensorProto, helper

    graph = _Graph(proto.graph)
    scaling = graph.scaling_of(trained.scaling.mean.numpy())
    if scaling is None:
        raise UserError("--static: the exported graph does not show where the pixels are scaled")
    pixels = scaling.input[0]
    ends = _invert(pixels)
    scaling.input[0] = INVERT + ".pixels"
    shape = [None, trained.channels, *trained.image_size]
    proto.graph.input.append(helper.make_tensor_value_info(INVERT, TensorProto.FLOAT, []))
    proto.graph.output.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape))
    head = graph.find_head()
    if head is not None and _shows_places(head, trained.image_size):
        ends += _add_up(proto.graph, head)
        shape = [None, len(trained.class_names), *head.shape[1:]]
        proto.graph.output.append(helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, shape))
    _insert(proto.graph, scaling, ends)
    return any(MAPS in node.output for node in ends)


def _shows_places(head: _Head, image_size: tuple[int, int]) -> bool:
    """Tell whether maps are large enough to show places, as Grad-CAM has it."""
    return min(head.shape[1:]) >= min(MAP_SIDE, max(min(image_size) // MAP_SHARE, 1))


def _invert(pixels: str) -> list[Any]:
    """Return what swaps black and white: pixels + invert * (255 - 2 * pixels)."""
    from onnx import TensorProto, helper

    name = f"{INVERT}.{{}}".format
    two = helper.make_tensor(name("two"), TensorProto.FLOAT, [], [-2.0])
    white = helper.make_tensor(name("white"), TensorProto.FLOAT, [], [255.0])
    return [
        helper.make_node("Constant", [], [name("two")], value=two),
        helper.make_node("Constant", [], [name("white")], value=white),
        helper.make_node("Mul", [pixels, name("two")], [name("doubled")]),
        helper.make_node("Add", [name("doubled"), name("white")], [name("change")]),
        helper.make_node("Mul", [name("change"), INVERT], [name("wanted")]),
        helper.make_node("Add", [pixels, name("wanted")], [name("pixels")]),
        helper.make_node("Cast", [name("pixels")], [IMAGE], to=TensorProto.UINT8),
    ]


def _add_up(graph: Any, head: _Head) -> list[Any]:
    """Return what gives each place's share of each class's logit."""
    from onnx import TensorProto, helper, numpy_helper

    graph.initializer.append(numpy_helper.from_array(head.weights, f"{MAPS}.weights"))
    nodes, values = [], head.maps
    if head.pooled is not None:
        shape = numpy_helper.from_array(np.array([0, head.shape[0], 1, 1]), f"{MAPS}.shape")
        graph.initializer.append(shape)
        nodes = [
            helper.make_node("Reshape", [head.pooled, f"{MAPS}.shape"], [f"{MAPS}.largest"]),
            helper.make_node("Equal", [head.maps, f"{MAPS}.largest"], [f"{MAPS}.is_largest"]),
            helper.make_node(
                "Cast", [f"{MAPS}.is_largest"], [f"{MAPS}.mask"], to=TensorProto.FLOAT
            ),
            helper.make_node("Mul", [head.maps, f"{MAPS}.mask"], [f"{MAPS}.values"]),
        ]
        values = f"{MAPS}.values"
    given = [values, f"{MAPS}.weights"]
    if head.weights.shape[2:] == (1, 1):
        return [*nodes, helper.make_node("Conv", given, [MAPS])]
    return [*nodes, helper.make_node("Einsum", given, [MAPS], equation="nchw,kchw->nkhw")]


def _insert(graph: Any, scaling: Any, ends: list[Any]) -> None:
    """Put nodes where what they need has been computed: before the scaling, and at the end."""
    place = next(
        number for number, node in enumerate(graph.node) if node is scaling or node == scaling
    )
    nodes = list(graph.node)
    early = [node for node in ends if not any(MAPS in name for name in node.output)]
    late = [node for node in ends if node not in early]
    del graph.node[:]
    graph.node.extend([*nodes[:place], *early, *nodes[place:], *late])


class _Graph:
    """A graph whose values can be looked up by their names."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._nodes = list(graph.node)
        self._output = graph.output[0].name
        self._producers = {name: node for node in graph.node for name in node.output}
        self._constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self._shapes = {
            value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
            for value in graph.value_info
        }

    def scaling_of(self, mean: npt.NDArray[np.float32]) -> Any:
        """Return the node that subtracts the mean from the pixels; None: there is none."""
        for node in self._nodes:
            if node.op_type == "Sub" and node.input[1] in self._constants:
                constant = self._constants[node.input[1]]
                if constant.size == mean.size and np.array_equal(constant.ravel(), mean.ravel()):
                    return node
        return None

    def find_head(self) -> _Head | None:
        """Return the linear layer over the last maps; None: the network ends otherwise."""
        node = self._producers.get(self._output)
        while node is not None and (
            node.op_type in _AFTER_HEAD or (node.op_type in _SCALE and self._is_by_number(node))
        ):
            node = self._producers.get(node.input[0])
        if node is not None and node.op_type == "Add" and node.input[1] in self._constants:  # bias
            node = self._producers.get(node.input[0])
        weights = self._weights_of(node)
        if node is None or weights is None:
            return None
        return self._trace(node.input[0], weights)

    def _is_by_number(self, node: Any) -> bool:
        """Tell whether a product or a quotient is by one number, as by the temperature."""
        number = self._constants.get(node.input[1])
        return number is not None and number.size == 1 and bool(number > 0)

    def _weights_of(self, node: Any) -> Weights | None:
        """Return the weights of a linear layer, (classes, features)."""
        if node is None or node.op_type not in ("Gemm", "MatMul"):
            return None
        weights = self._constants.get(node.input[1])
        if weights is None or weights.ndim != 2:
            return None
        options = {option.name: option.i for option in node.attribute}
        return np.ascontiguousarray(weights if options.get("transB") else weights.T)

    def _trace(self, name: str, weights: Weights) -> _Head | None:
        """Follow the features back to the maps."""
        while (node := self._producers.get(name)) is not None:
            source = node.input[0]
            shape = self._shapes.get(source, ())[1:]
            if len(shape) == 3 and 0 not in shape:
                of_channels = weights.shape[1] == shape[0]
                if node.op_type in (*_MEANS, *_LARGEST) and of_channels:
                    pooled = node.output[0] if node.op_type in _LARGEST else None
                    return _Head(source, shape, pooled, weights[:, :, None, None])
                is_whole = weights.shape[1] == math.prod(shape) and math.prod(shape[1:]) > 1
                if node.op_type in _PASSED and is_whole:
                    return _Head(source, shape, None, weights.reshape(-1, *shape))
            if node.op_type not in _PASSED:
                return None
            name = source
        return None
