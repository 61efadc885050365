"""Choose the weights that a run ends with: the best on validation, or the last."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

from accelerate import Accelerator
from torch import nn

from trainer.base import profiler_ranges
from trainer.base.errors import NonFiniteLossError
from trainer.base.tensor_files import Tensors
from trainer.config.schema import RunConfig
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.scaling import Scaling
from trainer.network import model_state
from trainer.training import averaging, batch_norm_statistics, evaluation
from trainer.training.metrics import Predictions
from trainer.training.run_state import RunState


class WeightSelection:
    """Validates the weights of one model, or their average if the configuration asks for one.

    Args:
        module: the model, prepared for autocast, without DDP's wrapper.
        dataset: without validation images the last weights are chosen.
        config: for the average, and for `data.test_augment`.
        between_blocks: called equally often on all ranks; may raise on all of them to give up.

    Attributes:
        average: of the weights, or None.
        best: the weights of the best epoch on validation so far.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        dataset: Dataset,
        config: RunConfig,
        between_blocks: Callable[[], object],
        block_samples: int,
    ) -> None:
        self.accelerator = accelerator
        self.module = module
        self.data = dataset
        self.config = config
        self.between_blocks = between_blocks
        self.block_samples = block_samples
        self.average = averaging.build(
            config.train, module, self._recompute_statistics, validates=len(dataset.validation) > 0
        )
        self.best: Tensors = {}
        self.validate_with(module, dataset)

    def validate_with(self, module: nn.Module, dataset: Dataset) -> None:
        """Validate by this network on these images: the whole one, or its head on features."""
        self.validated = (module, dataset)

    def validate(self, state: RunState) -> dict[str, float | None]:
        """Validate the weights at the end of an epoch; a collective.

        If they are the best so far, they are kept and noted in `state`.
        """
        record: dict[str, float | None] = {"validation_loss": None, "validation_accuracy": None}
        averaged = self.average.swap_in(state.epoch) if self.average else contextlib.nullcontext()
        with profiler_ranges.label("validation"), averaged:
            if not len(self.data.validation):
                return record
            module, data = self.validated
            found = self._predict(module, data.validation, data.scaling, state.step)
            state.last_accuracy = found.accuracy
            if state.best_accuracy is None or found.accuracy > state.best_accuracy:
                state.best_accuracy, state.best_epoch = found.accuracy, state.epoch
                state.best_step = state.step
                self.best = model_state.copy_tensors(self.module)
        return {"validation_loss": found.mean_loss, "validation_accuracy": found.accuracy}

    def test(self, state: RunState) -> tuple[Predictions, Predictions | None]:
        """Load the chosen weights, and classify the test images with them; a collective.

        Returns:
            The plain predictions, and those with `data.test_augment`.
        """
        chosen = self._chosen(state)
        if chosen:
            model_state.load(self.module, chosen)
        asked = (self.module, self.data.test, self.data.scaling, state.step)
        plain, augmented = self._predict(*asked), None
        if self.config.data.test_augment == "flip":
            augmented = self._predict(*asked, mirrored=True)
        return plain, augmented

    def _chosen(self, state: RunState) -> Tensors:
        """Return the best on validation, or the last; nothing if the model has them already."""
        averaged = self.average.tensors if self.average else {}
        if averaging.chooses_final_mean(self.config.train, state.epoch):
            return averaged
        return self.best or averaged

    def _predict(
        self,
        module: nn.Module,
        images: ImageSet,
        scaling: Scaling,
        step: int,
        *,
        mirrored: bool = False,
    ) -> Predictions:
        found = evaluation.predict(
            self.accelerator, module, images, scaling, self.between_blocks, mirrored,
            block_samples=self.block_samples, seed=self.config.seed,
            prefetch=self.config.data.prefetch,
        )  # fmt: skip
        if not math.isfinite(found.mean_loss):
            raise NonFiniteLossError(
                f"the loss of the evaluation after step {step} is {found.mean_loss}"
            )
        return found

    def _recompute_statistics(self) -> None:
        batch_norm_statistics.recompute(
            self.accelerator, self.module, self.data.train, self.data.scaling, self.between_blocks,
            block_samples=self.block_samples, seed=self.config.seed,
            prefetch=self.config.data.prefetch,
        )  # fmt: skip
