"""What is known of the weights that a run starts from: their file, and how it wants its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Preprocessing:
    """What images were made into when weights were trained; None where nobody says.

    Args:
        mean, deviation: of each channel, of pixels from 0 to 1.
        image_size: height and width in pixels.
        crop_share: in an evaluation the shorter side of a picture is resized to the image's side
            divided by this, and the middle is cut out; 1: nothing is cut off.
        interpolation: bilinear, bicubic, lanczos, nearest, box or hamming, by Pillow's names.
    """

    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    image_size: tuple[int, int] | None = None
    crop_share: float | None = None
    interpolation: str | None = None


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights to start from, in a file of this machine.

    Args:
        source: what model.weights says in a configuration that may be read anywhere: an absolute
            path, a repository of the hub with its commit, or `pretrained`.
        description: of where they come from, for people.
        file: in the format of safetensors.
        sha256: of the file's bytes.
        class_names: in the order of its logits; None where they are not known.
        preprocessing: of the images that it was trained on.
    """

    source: str
    description: str
    file: Path
    sha256: str
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing = Preprocessing()
