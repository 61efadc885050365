"""The test images as the pictures that they come from, of their own sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.sources import reading
from trainer.data.sources.source_data import LabelledImages
from trainer.data.stored.pictures import StoredPictures
from trainer.finished.evaluation_images import EvaluationImages
from trainer.finished.trained_model import TrainedModel

Picture = npt.NDArray[np.uint8]

_ANY_SIZE = 2**30
"""a shorter side that no picture has, so that all are kept at their own size"""


def own_pictures(
    trained: TrainedModel, data: DataConfig, found: EvaluationImages
) -> Callable[[int], Picture]:
    """Return what reads an image's picture as other programs would decode it.

    Of a network for greys it is in colours. Images that come from no pictures are pictures of their
    own size.

    Args:
        data: where the images were read from.

    Returns:
        Takes the number of an image and gives uint8 (height, width, channels).

    Raises:
        UserError: the pictures cannot be read.
    """
    digests = found.labelled.sha256
    if not data.has_pictures or digests is None:

        def of_image(number: int) -> Picture:
            image = found.images.images[number : number + 1][0].cpu()
            return image.permute(1, 2, 0).contiguous().numpy()

        return of_image
    places = _places(trained, data)

    def of_picture(number: int) -> Picture:
        images, position = places[digests[number].tobytes()]
        return images.store.pixels(position)

    return of_picture


def _places(trained: TrainedModel, data: DataConfig) -> dict[bytes, tuple[StoredPictures, int]]:
    """Return where each picture of a source is, by the SHA-256 of its bytes."""
    filled = trained.fill_in(data)
    data = replace(
        filled,
        channels=3 if filled.channels == 1 else filled.channels,
        store_size=_ANY_SIZE,
        store_format="pixels",
        cache="none",
    )
    places = {}
    for part in _read(data):
        images = part.images
        assert isinstance(images, StoredPictures)
        for position, digest in zip(images.positions.tolist(), images.sha256, strict=True):
            places[digest.tobytes()] = images, position
    return places


def _read(data: DataConfig) -> list[LabelledImages]:
    try:
        reading.prepare(data, to_train=False)
        source = reading.read(data)
    except UserError:
        # Such a folder is not enough for a run, but its test pictures may be there.
        split = reading.read_split(data, "test")
        if split is None:
            raise
        return [split.data]
    parts = (source.train, source.validation, source.test)
    return [part for part in parts if part is not None]


def own_answer(trained: TrainedModel, picture: Picture) -> torch.Tensor:
    """Return the probabilities of the classes of a decoded picture, as `predict` finds them.

    Args:
        picture: uint8 (height, width, channels); for a network of 1 or 3 channels in either.
    """
    from PIL import Image

    from trainer.data.pictures import resizing
    from trainer.data.pictures.resizing import Fit
    from trainer.data.stored.form import StoredForm

    if trained.channels == 3 and picture.shape[2] == 1:
        picture = np.repeat(picture, 3, 2)
    if trained.channels == 1 and picture.shape[2] == 3:
        picture = np.array(Image.fromarray(picture).convert("L"))[:, :, None]
    if trained.store_size is not None:
        form = StoredForm(trained.channels, None, trained.store_size, None)
        height, width = form.sizes(np.array([picture.shape[:2]], np.int32))[0].tolist()
        picture = resizing.resize(picture, (height, width), Fit("stretch"))
    fit = Fit(trained.resize, trained.crop_share, trained.interpolation)
    pixels = resizing.resize(picture, trained.image_size, fit)
    return trained.probabilities(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
