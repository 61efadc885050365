"""What is to be written, and what the file says of itself: a program needs it to use the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import plugins
from trainer.finished.export.formats import FORMATS, Format
from trainer.finished.export.modules import BATCH_NAME, InputType, PictureModel, PixelModel
from trainer.finished.trained_model import TrainedModel


@dataclass(frozen=True)
class Order:
    """What is to be written.

    Args:
        form: the format.
        input_type: of the pixels that a graph takes; TorchScript takes either.
        with_preprocessing: whether all that is done to a picture is in the graph too.
    """

    form: Format
    input_type: InputType = "float32"
    with_preprocessing: bool = False

    @property
    def file_name(self) -> str:
        """What the file is called next to model.safetensors."""
        words = ["model", *["int8"] * (self.form == "int8")]
        words += ["with_preprocessing"] * self.with_preprocessing
        return "_".join(words) + FORMATS[self.form].suffix


def describe(trained: TrainedModel, order: Order) -> dict[str, Any]:
    """Return the file's metadata, which a program needs to use it."""
    facts: dict[str, Any] = {
        "format": order.form,
        # A file of the user's own without its folder, which is nobody else's business.
        "model": Path(trained.name).name if plugins.is_file(trained.name) else trained.name,
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
    if order.form == "safetensors":
        return facts
    facts["arithmetic"] = "int8" if order.form == "int8" else "float32"
    if order.with_preprocessing:
        return facts | _ends_of_pictures(trained)
    return facts | _ends_of_pixels(trained, order)


def _ends_of_pixels(trained: TrainedModel, order: Order) -> dict[str, Any]:
    return {
        "input": {
            "name": PixelModel.input_name,
            "type": "float32 or uint8" if order.form == "torchscript" else order.input_type,
            "shape": [BATCH_NAME, trained.channels, *trained.image_size],
            "values": "0 to 255; red, green, blue" if trained.channels == 3 else "0 to 255",
        },
        "output": {
            "name": PixelModel.output_name,
            "type": "float32",
            "shape": [BATCH_NAME, len(trained.class_names)],
            "values": _output_values(trained),
        },
    }


def _ends_of_pictures(trained: TrainedModel) -> dict[str, Any]:
    usual = trained.channels in (1, 3)
    several = trained.thresholds is not None
    return {
        "input": {
            "name": PictureModel.input_name,
            "type": "uint8",
            "shape": [BATCH_NAME, "height", "width", "1 or 3" if usual else trained.channels],
            "values": "0 to 255; upright; grey, or red, green, blue" if usual else "0 to 255",
        },
        "output": {
            "name": PictureModel.output_name,
            "type": "float32",
            "shape": [BATCH_NAME, len(trained.class_names)],
            "values": "the probability of each label, which an image has where it reaches the "
            "threshold"
            if several
            else "the probability of each class",
        },
    }


def _output_values(trained: TrainedModel) -> str:
    if trained.thresholds is not None:
        return (
            "logits; their sigmoid is the probability of each label, which an image has where it "
            "reaches the threshold"
        )
    logits = "logits" if trained.temperature == 1 else "logits over the temperature"
    return f"{logits}; their softmax is the probabilities"
