"""Build the model of a finished run from its model.safetensors, without the run's other files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.base.terminal import progress_bar
from trainer.config.schema import DataConfig, Interpolation, ResizeRule
from trainer.data.dataset import ImageSet
from trainer.data.pictures import decoding, resizing
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.places import Place
from trainer.data.pictures.resizing import Fit
from trainer.data.scaling import Scaling
from trainer.data.stored.form import StoredForm
from trainer.network import model_state, stored_network
from trainer.network.buffers_in_passes import preserve_state
from trainer.training import evaluation, label_evaluation
from trainer.training.weight_selection import Found


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model and what it takes to use it.

    Args:
        module: in evaluation mode; takes scaled images, float32 (n, channels, height, width), and
            returns one logit for each class, (n, classes).
        class_names: one for each class, in the order of the logits.
        scaling: of the pixels, which it takes as integers or floats from 0 to 255.
        channels: of an image, 1 (grey) or 3 (red, green, blue) for pictures.
        image_size: height and width in pixels.
        grey_range: of pictures of more than 8 bits a channel, the values that become black and
            white; None if it was not trained on such pictures.
        resize: how pictures of another shape are made to fit, as data.resize.
        crop_share, interpolation: likewise, as these keys of the data.
        store_size, store_quality: what becomes of a picture before that: the shorter side that it
            is shrunk to and the quality of the JPEG that it is encoded as; None: it stays as it is.
        name: of the network, as in model.name.
        evaluation_batch_size: how many images its run classified at once.
        metadata: the text in the file that all this was read from.
        file: where it came from.
        weights_sha256: as in results.json; of what was loaded, before a mode could change it.
        seed: of the run, for a network that draws random numbers.
        temperature: by which its logits are divided, so that its probabilities can be believed; 1
            where the run has not calibrated it.
        thresholds: of images that may have several labels, from which probability on each label is
            predicted, (classes,); None: each image has one class.
    """

    module: nn.Module
    class_names: tuple[str, ...]
    scaling: Scaling
    channels: int
    image_size: tuple[int, int]
    grey_range: GreyRange | None
    resize: ResizeRule
    crop_share: float
    interpolation: Interpolation
    store_size: int | None
    store_quality: int | None
    name: str
    evaluation_batch_size: int
    metadata: str
    file: Path
    weights_sha256: str
    seed: int
    temperature: float
    thresholds: tuple[float, ...] | None = None

    def to(self, device: torch.device | str) -> TrainedModel:
        """Return the same model on `device`."""
        module = model_state.move(self.module, torch.device(device))
        return replace(self, module=module, scaling=self.scaling.to(device))

    def prepare(self, accelerator: Accelerator) -> TrainedModel:
        """Return the same model on the device of a process and in its precision."""
        moved = self.to(accelerator.device)
        module = accelerator.prepare_model(
            moved.module, device_placement=False, evaluation_mode=True
        )
        return replace(moved, module=module)

    def predict_set(
        self,
        accelerator: Accelerator,
        images: ImageSet,
        what: str,
        block_samples: int | None = None,
        with_mirrored: bool = False,
        prefetch: int = 0,
    ) -> list[Found]:
        """Classify a set of images by a prepared model; a collective.

        Args:
            what: the words before the progress bar.
            block_samples: images at once; None: as many as its run.
            prefetch: data.prefetch.

        Returns:
            The plain predictions, with all probabilities, and, where they are wanted, those with
            mirror images.

        Raises:
            UserError: the weights give a loss that is not finite.
        """
        block_samples = block_samples or self.evaluation_batch_size
        ways = [False, True] if with_mirrored else [False]
        kept = evaluation.kept_probabilities(len(self.class_names))
        turns = evaluation.turns_per_rank(accelerator, -(-len(images) // block_samples)) * len(ways)
        with progress_bar(what, turns, enabled=accelerator.is_main_process) as progress:

            def predict(mirrored: bool) -> Found:
                asked = (accelerator, self.module, images, self.scaling, progress.update, mirrored)
                if self.thresholds is not None:
                    return label_evaluation.predict(
                        *asked, thresholds=np.array(self.thresholds), block_samples=block_samples,
                        seed=self.seed, prefetch=prefetch,
                    )  # fmt: skip
                return evaluation.predict(
                    *asked, block_samples=block_samples, seed=self.seed, prefetch=prefetch,
                    kept=None if mirrored else kept, temperature=self.temperature,
                )  # fmt: skip

            found = [predict(mirrored) for mirrored in ways]
        if not math.isfinite(found[0].mean_loss):
            raise UserError(f"{self.file}: its weights give a loss that is {found[0].mean_loss}")
        return found

    def fill_in(self, data: DataConfig) -> DataConfig:
        """Fill in what a folder's pictures are made into for this model, if that is not set.

        Otherwise that folder's own training pictures would decide.
        """
        if not data.has_pictures:
            return data
        return replace(
            data,
            image_size=data.image_size or list(self.image_size),
            channels=data.channels or self.channels,
            grey_range=data.grey_range or list(self.grey_range or ()),  # empty: none are taken
            crop_share=data.crop_share or (self.crop_share if data.resize == "crop" else 1.0),
            interpolation=data.interpolation or self.interpolation,
        )

    def read(
        self, picture: Place | Path | str, max_megapixels: int = decoding.MOST_MEGAPIXELS
    ) -> torch.Tensor:
        """Read the pixels of a picture file of any size, as the model takes them.

        Args:
            picture: a file, or a place whose bytes may be in memory.
            max_megapixels: a picture of more million pixels is refused.

        Returns:
            uint8, (channels, height, width).

        Raises:
            UserError: names the file that is missing, broken or not a picture.
        """
        form = StoredForm(self.channels, self.grey_range, self.store_size, self.store_quality)
        fit = Fit(self.resize, self.crop_share, self.interpolation)
        place = Path(picture) if isinstance(picture, str) else picture
        stored = form.read_pixels(place, max_megapixels)
        pixels = resizing.resize(stored, self.image_size, fit)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    @torch.no_grad()
    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """Classify images that go through the model together.

        Args:
            pixels: from 0 to 255, of any type, (n, channels, height, width), on any device.

        Returns:
            The probability of each class, float32, (n, classes), on the CPU; they add up to 1, but
            those of labels, of which an image may have several.
        """
        # What a plug-in remembers and draws must not depend on earlier pictures.
        with preserve_state(self.module), seeding.preserve_generators():
            seeding.seed_all(self.seed, "evaluation", 0)
            return self.answer(pixels)

    @torch.no_grad()
    def answer(self, pixels: torch.Tensor) -> torch.Tensor:
        """Do what `probabilities` does, by a network that neither remembers nor draws anything."""
        inputs = self.scaling.apply(pixels.to(self.scaling.mean.device))
        if self.thresholds is not None:
            return label_evaluation.log_probabilities(self.module, inputs)[0].exp().cpu()
        found = evaluation.log_probabilities(self.module, inputs, temperature=self.temperature)
        return found.exp().cpu()

    def classify(self, picture: Path | str) -> dict[str, float]:
        """Return the probability of each class, by its name, for a picture file of any size.

        Raises:
            UserError: as `read`.
        """
        found = self.probabilities(self.read(picture)[None])[0]
        return dict(zip(self.class_names, found.tolist(), strict=True))


def load(path: Path, model: str | None = None, memory_format: str = "auto") -> TrainedModel:
    """Load the model of a finished run, on the CPU.

    Args:
        path: the run's folder, or its model.safetensors.
        model: the network's name where it is not a registered one: its code runs only where the
            user names it.
        memory_format: train.memory_format of the run; rounding may depend on it.

    Raises:
        UserError: there is no such file, it is damaged, or it does not fit the model.
    """
    network = stored_network.load(path, model, "--model", memory_format)
    found = network.facts
    return TrainedModel(
        module=network.module,
        class_names=network.class_names,
        scaling=network.scaling,
        channels=found["in_channels"],
        image_size=network.image_size,
        grey_range=network.grey_range,
        resize=found["resize"],
        crop_share=found["crop_share"],
        interpolation=found["interpolation"],
        store_size=found["store_size"],
        store_quality=found["store_quality"],
        name=network.name,
        evaluation_batch_size=found["evaluation_batch_size"],
        metadata=network.metadata,
        file=network.file,
        weights_sha256=network.weights_sha256,
        seed=found.get("seed", 0),
        temperature=found.get("temperature", 1.0),
        thresholds=tuple(found["thresholds"]) if "thresholds" in found else None,
    )
