"""Train a head on features that the frozen backbone has computed once: `train.cache_features`.

While nothing but the head is trained, the features of an image are the same in every epoch. They
take the place of the images, and the head alone that of the network, so that batches, steps and
validation go on as usual. They are a function of weights that every checkpoint has, so none has
the features: a run that goes on computes them again, in the same blocks and the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import nn

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.base.terminal import progress_bar
from trainer.config.schema import RunConfig
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.scaling import Scaling
from trainer.network import model_state
from trainer.network.buffers_in_passes import preserve_state
from trainer.ranks import collectives, memory
from trainer.training import evaluation, features

KEY = "train.cache_features"
TRIED = 2
"""images whose passes show whether the network ends with its head"""


class HeadNetwork(nn.Module):
    """The head of a network as a network by itself.

    Args:
        head: a linear layer or a 1x1 convolution; it stays part of the whole network too.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) of features (n, features, 1, 1)."""
        inputs = images.flatten(1) if isinstance(self.head, nn.Linear) else images
        logits: torch.Tensor = self.head(inputs)
        return logits.flatten(1)


class CachedFeatures:
    """The head of one network, and what its backbone makes of a data set; made on all ranks.

    Args:
        module: the whole network, prepared for autocast, without DDP's wrapper.
        dataset: its scaling is on the device.
        block_samples: images at once, as in an evaluation.

    Attributes:
        network: the head, prepared for autocast.

    Raises:
        UserError: the head cannot be trained by itself, or the features do not fit into the
            memory.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        dataset: Dataset,
        config: RunConfig,
        block_samples: int,
    ) -> None:
        self.accelerator = accelerator
        self.module = module
        self.images = dataset
        self.config = config
        self.block_samples = block_samples
        self._dataset: Dataset | None = None
        try:
            self.head = features.find_head(module, len(dataset.class_names))
            self.width = self._try()
        except UserError as error:
            raise UserError(f"{KEY}: {config.model.name}: {error}; leave {KEY} out") from error
        collectives.run_on_all_ranks(accelerator, self._check_memory)
        self.network: nn.Module = accelerator.prepare_model(
            HeadNetwork(module.get_submodule(self.head)),
            device_placement=False,
            evaluation_mode=True,
        )

    def dataset(self, between_blocks: Callable[[], object]) -> Dataset:
        """Return features in the place of the images to train and validate on; a collective.

        Args:
            between_blocks: as for `evaluation.iter_rank_blocks`.
        """
        if self._dataset is None:
            one = torch.ones(1, 1, 1, device=self.accelerator.device)
            self._dataset = replace(
                self.images,
                train=self._compute(self.images.train, between_blocks),
                validation=self._compute(self.images.validation, between_blocks),
                scaling=Scaling(torch.zeros_like(one), one),
            )
        return self._dataset

    def forget(self) -> None:
        """Free the memory of the features."""
        self._dataset = None

    def _compute(self, images: ImageSet, between_blocks: Callable[[], object]) -> ImageSet:
        found = torch.empty(0, self.width)
        turns = evaluation.turns_per_rank(self.accelerator, -(-len(images) // self.block_samples))
        is_main = self.accelerator.is_main_process
        with progress_bar("features", turns, enabled=is_main) as progress:

            def begin_turn() -> None:
                between_blocks()
                progress.update()

            if len(images):
                found = features.compute(
                    self.accelerator, self.module, self.head, images, self.images.scaling,
                    begin_turn, block_samples=self.block_samples, seed=self.config.seed,
                    prefetch=self.config.data.prefetch,
                )  # fmt: skip
        device = self.accelerator.device
        return ImageSet(found[:, :, None, None], images.targets.cpu()).move_if_it_fits(device)

    def _check_memory(self) -> None:
        count = len(self.images.train) + len(self.images.validation)
        needed_bytes = 4 * count * self.width
        limit_bytes = memory.image_limit_bytes(self.config.data.memory_limit_mb)
        if needed_bytes > limit_bytes:
            raise UserError(
                f"{KEY}: {self.width:,} features of each of {count:,} images take "
                f"{needed_bytes / 1e6:,.1f} MB, more than the {limit_bytes / 1e6:,.1f} MB of "
                f"data.memory_limit_mb; raise it, or leave {KEY} out"
            )

    @torch.no_grad()
    def _try(self) -> int:
        """Return how many features an image has, if its logits are what the head gives.

        Raises:
            UserError: they are not, as where a network scales them.
        """
        effects = model_state.effects_of(self.module)
        if any(name.startswith(f"{self.head}.") for name in effects.set_in_training):
            raise UserError(f"a pass of the network itself sets weights of its head, {self.head}")
        head, given = self.module.get_submodule(self.head), list[torch.Tensor]()

        def give_other_logits(_: nn.Module, __: object, logits: torch.Tensor) -> torch.Tensor:
            values = torch.arange(1, logits.numel() + 1, device=logits.device) / logits.numel()
            given.append(values.to(logits.dtype).view(logits.shape))
            return given[-1].clone()

        train = self.images.train
        first = torch.arange(min(TRIED, len(train)), device=train.images.device)
        pixels = train.fetch(first)[0].to(self.accelerator.device)
        with preserve_state(self.module), seeding.preserve_generators():
            self.module.eval()
            with features.HeadInputs(self.module, self.head) as head_inputs:
                width = head_inputs.of(self.images.scaling.apply(pixels)).shape[1]
            hook = head.register_forward_hook(give_other_logits)
            try:
                logits = self.module(self.images.scaling.apply(pixels))
            finally:
                hook.remove()
        expected = head.in_features if isinstance(head, nn.Linear) else head.in_channels
        if width != expected or not torch.equal(logits.float(), given[0].flatten(1).float()):
            raise UserError(
                f"its logits are not what its head, {self.head}, makes of a vector for each image, "
                f"as something follows the head"
            )
        return width
