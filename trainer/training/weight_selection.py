"""Choose the weights that a run ends with: the best on validation, or the last."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import nn

from trainer.base import profiler_ranges
from trainer.base.errors import NonFiniteLossError, UserError
from trainer.base.tensor_files import Tensors
from trainer.config.schema import RunConfig
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.scaling import Scaling
from trainer.network import model_state
from trainer.ranks import collectives
from trainer.training import (
    averaging,
    batch_norm_statistics,
    choice,
    evaluation,
    label_evaluation,
)
from trainer.training.calibration import Calibration, fit_temperature
from trainer.training.label_metrics import Floats, LabelPredictions, choose_thresholds
from trainer.training.metrics import Predictions
from trainer.training.run_state import RunState

Logits = npt.NDArray[np.float32]
Found = Predictions | LabelPredictions
"""the latter of images that may have several labels"""


@dataclass(frozen=True)
class TestedWeights:
    """What the chosen weights say of images; probabilities are calibrated if a run asks for it."""

    test: Found
    """with the probabilities of all classes, and the thresholds of labels"""
    augmented: Found | None
    """the same images with `data.test_augment`"""
    validation: Found | None
    """as `test`; None: there are no validation images"""
    calibration: Calibration | None
    """None: probabilities are the network's own"""


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
        if config.train.calibrate and not len(dataset.validation):
            raise UserError(
                "train.calibrate: must be false, as there are no validation images to fit a "
                "temperature to"
            )
        held_out = dataset.validation
        if held_out.has_several_labels and len(held_out) and not held_out.targets.any():
            raise UserError(
                "data.validation_size: none of the validation images has a label, so that there "
                "is nothing to judge by; hold out more of them, or 0"
            )
        self.module = module
        self.config = config
        self.between_blocks = between_blocks
        self.block_samples = block_samples
        self.average = averaging.build(
            config.train, module, self._recompute_statistics, validates=len(dataset.validation) > 0
        )
        self.choose_by = config.train.choose_by or "accuracy"
        choice.check(self.choose_by, dataset)
        self.best: Tensors = {}
        self.use_images(dataset)

    def use_images(self, dataset: Dataset) -> None:
        """Validate and test on these images, by the whole network."""
        self.data = dataset
        self.validate_with(self.module, dataset)

    def validate_with(self, module: nn.Module, dataset: Dataset) -> None:
        """Validate by this network on these images: the whole one, or its head on features."""
        self.validated = (module, dataset)

    def validate(self, state: RunState) -> dict[str, float | None]:
        """Validate the weights at the end of an epoch; a collective.

        If they are the best so far, they are kept and noted in `state`.
        """
        averaged = self.average.swap_in(state.epoch) if self.average else contextlib.nullcontext()
        with profiler_ranges.label("validation"), averaged:
            if not len(self.data.validation):
                return dict(choice.NO_FIGURES)
            module, data = self.validated
            classes = len(data.class_names)
            if data.validation.has_several_labels:
                labels = self._predict_labels(module, data.validation, data.scaling, state.step)
                figures, record = choice.judge_labels(labels)
            else:
                kept = evaluation.kept_probabilities(classes) if self.choose_by == "auc" else None
                found = self._predict(module, data.validation, data.scaling, state.step, kept=kept)
                figures = choice.judge(found, classes)
                record = figures.record()
            if choice.note(state, figures, self.choose_by):
                self.best = model_state.copy_tensors(self.module)
        return record

    def test(self, state: RunState) -> TestedWeights:
        """Load the chosen weights, and classify the test images with them; a collective."""
        chosen = self._chosen(state)
        if chosen:
            model_state.load(self.module, chosen)
        if self.data.test.has_several_labels:
            return self._test_labels(state.step)
        if self.config.train.calibrate:
            return self._test_calibrated(state.step)
        kept = evaluation.kept_probabilities(len(self.data.class_names))

        def classify(images: ImageSet) -> Predictions:
            return self._predict(self.module, images, self.data.scaling, state.step, kept=kept)

        held_out = self.data.validation
        return TestedWeights(
            test=classify(self.data.test),
            augmented=self._mirrored(state.step),
            validation=classify(held_out) if len(held_out) else None,
            calibration=None,
        )

    def _mirrored(self, step: int, temperature: float = 1.0) -> Predictions | None:
        """Test with mirror images, where `data.test_augment` asks for it; a collective."""
        if self.config.data.test_augment != "flip":
            return None
        return self._predict(
            self.module, self.data.test, self.data.scaling, step, mirrored=True,
            temperature=temperature,
        )  # fmt: skip

    def _test_calibrated(self, step: int) -> TestedWeights:
        """Fit the temperature on the validation images, and test with it; a collective.

        The network answers once for each image: what it says at any temperature follows.
        """
        kept = evaluation.kept_probabilities(len(self.data.class_names))[1]
        device = self.accelerator.device

        def classify(
            logits: Logits, images: ImageSet, temperature: float, kept: torch.dtype = kept
        ) -> Predictions:
            found = evaluation.classify_logits(
                logits, images, device, kept, block_samples=self.block_samples,
                temperature=temperature,
            )  # fmt: skip
            _check_finite(found, step)
            return found

        held_out, test = self.data.validation, self.data.test
        logits = self._ask_logits(held_out)
        before = classify(logits, held_out, 1.0, torch.float32)

        def fit() -> float:
            assert before.probabilities is not None
            return fit_temperature(before.target, before.probabilities)

        temperature = collectives.run_on_main_rank(self.accelerator, fit)
        validation = classify(logits, held_out, temperature)
        logits = self._ask_logits(test)
        return TestedWeights(
            test=classify(logits, test, temperature),
            augmented=self._mirrored(step, temperature),
            validation=validation,
            calibration=Calibration(temperature, before, classify(logits, test, 1.0)),
        )

    def _test_labels(self, step: int) -> TestedWeights:
        """Choose the thresholds on the validation images, and test by them; a collective."""
        scaling, held_out = self.data.scaling, self.data.validation
        validation, thresholds = None, None
        if len(held_out):
            validation = self._predict_labels(self.module, held_out, scaling, step)
            thresholds = choose_thresholds(validation.target, validation.probabilities)
            validation = validation.with_thresholds(thresholds)
        asked, augmented = (self.module, self.data.test, scaling, step), None
        if self.config.data.test_augment == "flip":
            augmented = self._predict_labels(*asked, thresholds=thresholds, mirrored=True)
        test = self._predict_labels(*asked, thresholds=thresholds)
        return TestedWeights(test, augmented, validation, calibration=None)

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
        kept: tuple[int, torch.dtype] | None = None,
        temperature: float = 1.0,
    ) -> Predictions:
        found = evaluation.predict(
            self.accelerator, module, images, scaling, self.between_blocks, mirrored,
            block_samples=self.block_samples, seed=self.config.seed,
            prefetch=self.config.data.prefetch, kept=kept, temperature=temperature,
        )  # fmt: skip
        _check_finite(found, step)
        return found

    def _ask_logits(self, images: ImageSet) -> Logits:
        return evaluation.ask_logits(
            self.accelerator, self.module, images, self.data.scaling, self.between_blocks,
            len(self.data.class_names), block_samples=self.block_samples, seed=self.config.seed,
            prefetch=self.config.data.prefetch,
        )  # fmt: skip

    def _predict_labels(
        self,
        module: nn.Module,
        images: ImageSet,
        scaling: Scaling,
        step: int,
        *,
        thresholds: Floats | None = None,
        mirrored: bool = False,
    ) -> LabelPredictions:
        found = label_evaluation.predict(
            self.accelerator, module, images, scaling, self.between_blocks, mirrored,
            thresholds=thresholds, block_samples=self.block_samples, seed=self.config.seed,
            prefetch=self.config.data.prefetch,
        )  # fmt: skip
        _check_finite(found, step)
        return found

    def _recompute_statistics(self) -> None:
        batch_norm_statistics.recompute(
            self.accelerator, self.module, self.data.train, self.data.scaling, self.between_blocks,
            block_samples=self.block_samples, seed=self.config.seed,
            prefetch=self.config.data.prefetch,
        )  # fmt: skip


def _check_finite(found: Found, step: int) -> None:
    if not math.isfinite(found.mean_loss):
        raise NonFiniteLossError(
            f"the loss of the evaluation after step {step} is {found.mean_loss}"
        )
