"""Build the model of a finished run from its model.safetensors, without the run's other files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

import models
from models import timm_models
from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.base.strict_json import describe_value
from trainer.base.tensor_files import describe_mismatch, read_specs, read_tensors
from trainer.base.terminal import progress_bar
from trainer.config import plugin_checks
from trainer.config.schema import DataConfig, ResizeRule
from trainer.data.dataset import ImageSet
from trainer.data.pictures import decoding, resizing
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.scaling import Scaling, decode_scaling, network_tensors
from trainer.data.stored.form import StoredForm
from trainer.finished import model_metadata
from trainer.network import memory_layout, model_state, new_model
from trainer.network.buffers_in_passes import preserve_state
from trainer.run.run_folder import read_status
from trainer.training import evaluation
from trainer.training.metrics import Predictions

WEIGHTS = "model.safetensors"


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
        store_size, store_quality: what becomes of a picture before that: the shorter side that it
            is shrunk to and the quality of the JPEG that it is encoded as; None: it stays as it is.
        name: of the network, as in model.name.
        evaluation_batch_size: how many images its run classified at once.
        metadata: the text in the file that all this was read from.
        file: where it came from.
        weights_sha256: as in results.json; of what was loaded, before a mode could change it.
        seed: of the run, for a network that draws random numbers.
    """

    module: nn.Module
    class_names: tuple[str, ...]
    scaling: Scaling
    channels: int
    image_size: tuple[int, int]
    grey_range: GreyRange | None
    resize: ResizeRule
    store_size: int | None
    store_quality: int | None
    name: str
    evaluation_batch_size: int
    metadata: str
    file: Path
    weights_sha256: str
    seed: int

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
    ) -> list[Predictions]:
        """Classify a set of images by a prepared model; a collective.

        Args:
            what: the words before the progress bar.
            block_samples: images at once; None: as many as its run.
            prefetch: data.prefetch.

        Returns:
            The plain predictions and, where they are wanted, those with mirror images.

        Raises:
            UserError: the weights give a loss that is not finite.
        """
        block_samples = block_samples or self.evaluation_batch_size
        ways = [False, True] if with_mirrored else [False]
        turns = evaluation.turns_per_rank(accelerator, -(-len(images) // block_samples)) * len(ways)
        with progress_bar(what, turns, enabled=accelerator.is_main_process) as progress:
            found = [
                evaluation.predict(
                    accelerator, self.module, images, self.scaling, progress.update, mirrored,
                    block_samples=block_samples, seed=self.seed, prefetch=prefetch,
                )
                for mirrored in ways
            ]  # fmt: skip
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
        )

    def read(
        self, picture: Path | str, max_megapixels: int = decoding.MOST_MEGAPIXELS
    ) -> torch.Tensor:
        """Read the pixels of a picture file of any size, as the model takes them.

        Args:
            max_megapixels: a picture of more million pixels is refused.

        Returns:
            uint8, (channels, height, width).

        Raises:
            UserError: names the file that is missing, broken or not a picture.
        """
        form = StoredForm(self.channels, self.grey_range, self.store_size, self.store_quality)
        stored = form.read_pixels(Path(picture), max_megapixels)
        pixels = resizing.resize(stored, self.image_size, self.resize)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    @torch.no_grad()
    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """Classify images that go through the model together.

        Args:
            pixels: from 0 to 255, of any type, (n, channels, height, width), on any device.

        Returns:
            The probability of each class, float32, (n, classes), on the CPU.
        """
        inputs = self.scaling.apply(pixels.to(self.scaling.mean.device))
        # What a plug-in remembers and draws must not depend on earlier pictures.
        with preserve_state(self.module), seeding.preserve_generators():
            seeding.seed_all(self.seed, "evaluation", 0)
            return evaluation.log_probabilities(self.module, inputs).exp().cpu()

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
    file = weights_file(path)
    text, found = model_metadata.read(file)
    image_size = (found["image_size"][0], found["image_size"][1])
    name = model or found["name"]
    if model is None and plugin_checks.needs_naming("model", name):
        raise UserError(
            f"{file}: its model is {describe_value(name)}, and code that is not of Lockstep runs "
            f"only where you name it: --model path/to/file.py:ClassName or --model timm:NAME "
            f"(in Python the argument `model`)"
        )
    module = _build(file, name, found, memory_format)
    digest = model_state.digest(module)
    module.eval()  # not chained: a user-defined eval() may return nothing
    return TrainedModel(
        module=module,
        class_names=tuple(found["class_names"]),
        scaling=decode_scaling(found, file, (found["in_channels"], *image_size)),
        channels=found["in_channels"],
        image_size=image_size,
        grey_range=tuple(found["grey_range"]) if found.get("grey_range") else None,
        resize=found["resize"],
        store_size=found["store_size"],
        store_quality=found["store_quality"],
        name=name,
        evaluation_batch_size=found["evaluation_batch_size"],
        metadata=text,
        file=file,
        weights_sha256=digest,
        seed=found.get("seed", 0),
    )


def weights_file(path: Path) -> Path:
    """Return the file of the weights where the run's folder or the file itself is named.

    Raises:
        UserError: it does not exist.
    """
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: there is no such run, neither a folder nor a {WEIGHTS}")
        return path.resolve()  # a link that the user names is followed
    if (path / WEIGHTS).exists():
        return path / WEIGHTS
    if not (path / "config.yaml").exists():
        raise UserError(f"{path}: not a run, there is no {WEIGHTS} and no config.yaml in it")
    status = read_status(path)
    raise UserError(
        f"{path}: has no {WEIGHTS}, its run is {status.state} at step {status.step}; "
        f"let it come to its end (the same command goes on)"
    )


def _build(file: Path, name: str, found: dict[str, Any], memory_format: str) -> nn.Module:
    """Build the network with the weights of the file, in training mode.

    The state of torch's random generators does not change.
    """
    data = {
        "num_classes": found["num_classes"],
        "in_channels": found["in_channels"],
        "image_size": tuple(found["image_size"]),
    }
    arguments = dict(found["args"])
    for key in timm_models.WEIGHTS_ARGUMENTS:
        arguments.pop(key, None)  # the weights come from the file
    specs, seed = network_tensors(read_specs(file)), found.get("seed", 0)
    effects = model_state.effects_from_metadata(found)

    def check_tensors(module: nn.Module) -> None:
        reshaped = found.get("reshaped_buffers", ())
        expected = model_state.expected_specs(module, specs, reshaped)
        difference = describe_mismatch(specs, expected, any_dtype=True)
        if difference:
            raise UserError(
                f"{file}: does not fit the model {describe_value(name)}: it {difference}"
            )

    def check_output(module: nn.Module, backward: bool = True) -> None:
        models.check_output(module, **data, backward=backward)

    try:
        if name in models.names():
            with torch.device("meta"):  # so that a network of another size costs no memory
                sized = models.create(name, arguments, **data)
            check_tensors(sized)
        with seeding.preserve_generators():
            tried = new_model.build_seeded(name, arguments, data, seed)
            names = new_model.names_of(tried)
            check_output(tried, backward=False)
            late = new_model.names_of(tried) != names
            module = new_model.build_seeded(name, arguments, data, seed, first_pass=late)
    except ValueError as error:
        raise UserError(f"{file}: its model cannot be built: {error}") from error
    model_state.remember_effects(module, effects)
    check_tensors(module)
    weights = read_tensors(file, specs)
    memory_layout.set_layout(
        module, memory_layout.choose_layout(tried, memory_format, check_output)
    )  # as trained
    model_state.load(module, weights)
    if found.get("reshaped_buffers"):  # the shapes are only the file's claim
        try:
            model_state.load(tried, weights)
            check_output(tried)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{file}: its buffers do not fit the model: {error}") from error
    return module
