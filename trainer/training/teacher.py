"""A finished run's network whose answers another one learns: distillation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator

from trainer.base.errors import UserError
from trainer.base.files import sha256_of
from trainer.config.schema import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.pictures.names import join_some, normalize_class_name
from trainer.network import model_state, stored_network
from trainer.network.buffers_in_passes import save_values
from trainer.network.stored_network import StoredNetwork


@dataclass(frozen=True, eq=False)
class LoadedTeacher:
    """A teacher's network, on the CPU, that fits the run.

    Args:
        file_sha256: of its file's bytes.
    """

    network: StoredNetwork
    file_sha256: str


class Teacher:
    """Answers the batches of a run as its own run would have been asked: a network that stays.

    The images that the learning network gets, augmented and mixed, are scaled back to pixels,
    brought to the size that the teacher was trained at and scaled as it was.

    Args:
        loaded: its network and file.
        dataset: of the run, its scaling on the device.
    """

    def __init__(self, accelerator: Accelerator, loaded: LoadedTeacher, dataset: Dataset) -> None:
        device, network = accelerator.device, loaded.network
        module = model_state.move(network.module, device)
        self.module = accelerator.prepare_model(
            module, device_placement=False, evaluation_mode=True
        )
        self.image_size = network.image_size
        self.scaling = dataset.scaling
        self.own_scaling = network.scaling.to(device)
        order = _order(network.class_names, dataset.class_names)
        self.order = torch.tensor(order, device=device)
        self._start = save_values(self.module)

    @torch.no_grad()
    def answer(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images, float32 (n, classes), in the order of the run's classes.

        What it remembers of one call does not reach the next.

        Args:
            images: scaled as the run does it, float32 (n, channels, height, width); not changed.
        """
        pixels = self.scaling.undo(images)
        if pixels.shape[2:] != self.image_size:
            pixels = F.interpolate(
                pixels, self.image_size, mode="bilinear", antialias=True, align_corners=False
            )
        self._start.restore()
        logits: torch.Tensor = self.module(self.own_scaling.apply(pixels)).float()
        return logits.index_select(1, self.order)


def load_teacher(config: RunConfig, dataset: Dataset) -> LoadedTeacher | None:
    """Load the teacher of a run; None if it has none.

    Raises:
        UserError: names the key; there is no such run, it is not the one that this run began with,
            or it cannot answer for this run's images.
    """
    train = config.train
    if train.teacher is None:
        return None
    try:
        file = stored_network.weights_file(Path(train.teacher))
        sha256 = sha256_of(file)
        if train.teacher_sha256 is not None and train.teacher_sha256 != sha256:
            raise UserError(
                f"{file}: is another file than the run's teacher: its SHA-256 is {sha256}, and "
                f"train.teacher_sha256 is {train.teacher_sha256}; put that file back"
            )
        network = stored_network.load(
            file, train.teacher_model, "--train.teacher_model", train.memory_format
        )
        _check_fit(network, dataset)
    except UserError as error:
        raise UserError(f"train.teacher: {error}") from error
    return LoadedTeacher(network, sha256)


def _check_fit(network: StoredNetwork, dataset: Dataset) -> None:
    """Make sure that the teacher can answer for images of a data set.

    Raises:
        UserError: they are of other classes, channels or proportions.
    """
    if "thresholds" in network.facts:
        raise UserError(
            f"{network.file}: was trained on images of several labels (data.multi_label), and "
            "answers for each label by itself; a teacher says which one class an image has"
        )
    _order(network.class_names, dataset.class_names)
    channels, height, width = dataset.train.images.shape[1:]
    if network.facts["in_channels"] != channels:
        raise UserError(
            f"{network.file}: takes images of {network.facts['in_channels']} channels, and this "
            f"run's have {channels}; set data.channels to the teacher's"
        )
    own_height, own_width = network.image_size
    if own_height * width != own_width * height:
        raise UserError(
            f"{network.file}: takes images of {own_height} x {own_width} pixels, and this run's of "
            f"{height} x {width} have other proportions; choose data.image_size in the teacher's"
        )
    if network.grey_range != dataset.grey_range:
        raise UserError(
            f"{network.file}: its pictures had the values {network.grey_range} for black and "
            f"white, and this run's have {dataset.grey_range}; set data.grey_range to the teacher's"
        )


def _order(theirs: tuple[str, ...], ours: tuple[str, ...]) -> list[int]:
    """Return the place of each of our classes among the teacher's.

    Raises:
        UserError: they are not the same.
    """
    for key in (str, normalize_class_name):
        places = {key(name): place for place, name in enumerate(theirs)}
        if sorted(places) == sorted(map(key, ours)):
            return [places[key(name)] for name in ours]
    unknown = [repr(name) for name in ours if name not in theirs]
    others = [repr(name) for name in theirs if name not in ours]
    parts = [
        *([f"does not know {join_some(unknown)}"] if unknown else []),
        *([f"knows {join_some(others)} too"] if others else []),
    ]
    raise UserError(
        f"its classes are not those of this run: it {' and '.join(parts)}; a teacher answers for "
        "the same classes, in any order"
    )
