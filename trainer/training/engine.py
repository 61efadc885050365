"""The engine: trains a model on a data set, and tests it."""

from __future__ import annotations

import itertools
import logging

from accelerate import Accelerator
from torch import nn

from trainer.base import numerics, out_of_memory
from trainer.base.errors import NonFiniteLossError, StoppedOnRequest
from trainer.checkpoint import sharing
from trainer.checkpoint.reading import Checkpoint
from trainer.checkpoint.run_state import RunState
from trainer.checkpoint.writing import Checkpoints
from trainer.config import plugins
from trainer.config.schema import RunConfig
from trainer.data.batches import Batch, Batches
from trainer.data.dataset import Dataset
from trainer.network import model_state
from trainer.network.pass_effects import TrainedParameters
from trainer.ranks import collectives
from trainer.ranks.preemption import StopRequest
from trainer.training import evaluation_size, optimizers
from trainer.training.metrics import Predictions
from trainer.training.observer import Observer
from trainer.training.schedules import learning_rate
from trainer.training.snapshot import Snapshot
from trainer.training.step import StepResult, TrainStep
from trainer.training.step_log import StepLog, means
from trainer.training.stopping import Agreement, AskedToStop
from trainer.training.weight_selection import Selection

LOG_SECONDS = 1.0

MOST_SKIPPED = 10
"""so many steps in a row without a finite loss are no accident of one batch"""

log = logging.getLogger("lockstep")


class Engine:
    """Trains one model on one data set; all ranks make the same calls.

        fit
          for each epoch
            for each step                   TrainStep: forward, backward, reduction, update
              at log points                 losses to the observer, stop if any rank was asked to
              every checkpoint.every_steps  save
            validate                        keep the best weights, stop early
            every checkpoint.every_epochs   save
        test                                with the chosen weights, every sample once

    Args:
        accelerator: the processes and devices.
        config: with `threads` and `train.microbatches` filled in.
        dataset: its images are moved to the device where they fit.
        model: with its first weights.
        checkpoints: where to save.
        stop: the flag that signals set.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: RunConfig,
        dataset: Dataset,
        model: nn.Module,
        checkpoints: Checkpoints,
        stop: StopRequest,
    ) -> None:
        self.accelerator = accelerator
        self.config = config
        self.data = dataset.move_if_it_fits(accelerator.device)
        self.observer: Observer | None = None
        self.checkpoints = checkpoints
        block_samples = evaluation_size.block_samples(config.train, model, dataset.train)
        self.module = model_state.move(model, accelerator.device)
        self.optimizer = accelerator.prepare_optimizer(
            optimizers.build(config.optimizer, self.module)
        )
        wrapped = accelerator.prepare_model(
            self.module, device_placement=False, evaluation_mode=config.train.reduction == "exact"
        )
        self.train_step = TrainStep(accelerator, wrapped, self.optimizer, config.train, config.seed)
        ranks = (accelerator.num_processes, accelerator.process_index)
        self.batches = Batches(self.data, config, accelerator.device, *ranks)
        self.agreement = Agreement(accelerator, stop, checkpoints, config.train.max_seconds)
        self.selection = Selection(
            accelerator, self.module, self.data, config, self.agreement.check, block_samples
        )
        # Once more, as the files of plug-ins have been run since the processes met.
        numerics.choose_precision(config.train.precision)
        self.inexact_kernels = numerics.choose_kernels(config.train.reduction == "exact")
        self.environment = numerics.describe(accelerator.device, config.train.evaluation_batch_size)
        self.snapshot = Snapshot(
            accelerator,
            self.module,
            self.optimizer,
            self.selection.average,
            {"data.root": dataset.fingerprint, **plugins.fingerprints(config)},
            self.environment,
        )
        self.trained = TrainedParameters(self.module)
        self.state = RunState()
        self.until: tuple[int, int] | None = None
        self.step_log = StepLog()
        self.next_log_step = 0
        self.saved_step: int | None = None

    # ------------------------------------------------------------------ training

    def fit(self, until: tuple[int, int] | None = None) -> None:
        """Train to the end of the run from wherever it stands.

        Args:
            until: the position, epoch and step, at which to end instead. At the last step of an
                epoch that epoch is validated only where the position is in the next one.

        Raises:
            StoppedOnRequest: asked to by a signal or by `train.max_seconds`; a checkpoint is saved.
            NonFiniteLossError: names the first step whose loss was not finite.
        """
        self.until = until
        if self.config.train.on_nonfinite == "rollback" and self.saved_step is None:
            self.save()  # to go back to
        try:
            while self._goes_on():
                try:
                    self._train_epoch()
                    if self._goes_on():
                        self._finish_epoch()
                except NonFiniteLossError as error:
                    self._roll_back(error)
            self.save()
            self.agreement.finish_saving()
        except AskedToStop as asked:
            self.save()
            self.agreement.finish_saving(needed=True)
            raise self._stopped(asked) from None

    def _goes_on(self) -> bool:
        if self.until and (self.state.epoch, self.state.step) >= self.until:
            return False
        return self.state.epoch <= self.config.train.epochs and not self._out_of_patience()

    def _train_epoch(self) -> None:
        epoch, done = self.state.epoch, self._steps_done_in_epoch()
        last_epoch, last_step = self.until or (None, 0)
        left = last_step - self.state.step if epoch == last_epoch else None
        if self.observer:
            self.observer.epoch_started(epoch, self.batches.steps, done)
        self.module.train()
        self.step_log.start_clock()
        every_steps = self.config.checkpoint.every_steps
        batches = itertools.islice(self.batches.iter_epoch(epoch, done), left)
        for step_of_epoch, batch in enumerate(batches, start=done + 1):
            self._do_step(batch)
            last = step_of_epoch == self.batches.steps
            if self.state.step >= self.next_log_step or last:
                self._log_point()
            if every_steps and self.state.step % every_steps == 0 and not last:
                self.save()

    def _do_step(self, batch: Batch) -> None:
        self.state.step += 1
        lr = self._set_learning_rate()
        if self.state.step in self.state.skipped_steps:
            result = StepResult.skipped(self.accelerator.device)
        else:
            result = self._train_on(batch)
        self.step_log.add(
            self.state.epoch, self.state.step, lr, sum(batch.microbatch_sizes), result
        )

    def _train_on(self, batch: Batch) -> StepResult:
        with out_of_memory.explain(
            f"train.microbatches: a micro-batch of {max(batch.microbatch_sizes)} samples",
            f"more than {self.config.train.microbatches} micro-batches make them smaller at the "
            f"same train.batch_size",
            self.accelerator.device,
        ):
            result = self.train_step(
                self.state.step, batch.images, batch.targets, batch.microbatch_sizes
            )
        if self.selection.average:
            self.selection.average.step_done(self.state.step)
        return result

    def _set_learning_rate(self) -> float:
        steps, config = self.batches.steps, self.config
        total = config.train.epochs * steps
        lr = learning_rate(config.schedule, config.optimizer.lr, self.state.step, total, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _finish_epoch(self) -> None:
        self.trained.check()
        state, count = self.state, len(self.data.train)
        loss, accuracy = means(state)
        record = {
            "event": "epoch",
            "epoch": state.epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            **self.selection.validate(state),
            "weights_sha256": None,
            "seconds": state.epoch_seconds,
            "samples_per_second": count / state.epoch_seconds,
        }
        if self.observer:
            record["weights_sha256"] = model_state.digest(self.module)
            self.observer.epoch_done(record)
        state.train_seconds += state.epoch_seconds
        state.epoch_seconds = state.loss_sum = state.hits = 0.0
        state.trained_samples = state.epoch_samples = 0
        state.epoch += 1
        every = self.config.checkpoint
        if (every.every_epochs and (state.epoch - 1) % every.every_epochs == 0) or (
            every.every_steps and state.step % every.every_steps == 0
        ):
            self.save()

    def _out_of_patience(self) -> bool:
        patience, best_epoch = self.config.train.patience, self.state.best_epoch
        if patience is None or best_epoch is None:
            return False
        return self.state.epoch - 1 - best_epoch >= patience

    def _steps_done_in_epoch(self) -> int:
        return self.state.step - (self.state.epoch - 1) * self.batches.steps

    # ------------------------------------------------------------------ log points

    def _log_point(self) -> None:
        """Bring the losses to the host, and stop where any rank was asked to."""
        self._flush()
        # Rank 0 says how many steps make about a second; others agree, so that all stop together.
        seconds_per_step = self.state.epoch_seconds / self._steps_done_in_epoch()
        interval = max(1.0, LOG_SECONDS / seconds_per_step)
        interval = self.agreement.check(interval if self.accelerator.is_main_process else 0.0)
        self.next_log_step = self.state.step + int(interval)

    def _flush(self) -> None:
        self.step_log.flush(self.state, self._steps_done_in_epoch(), self.observer)

    def _stopped(self, asked: AskedToStop) -> StoppedOnRequest:
        what = "everything is saved; the same command goes on from there"
        if self.checkpoints.lost:
            what = "but its checkpoint could not be saved; the same command goes on from the newest"
        return StoppedOnRequest(f"stopped at step {self.state.step} ({asked}), {what}")

    # ------------------------------------------------------------------ evaluation

    def test(self) -> tuple[Predictions, Predictions | None]:
        """Predictions of the chosen weights for the test set; everything is saved already.

        Returns:
            The plain ones, and those with `data.test_augment`.

        Raises:
            StoppedOnRequest: asked to by a signal or by `train.max_seconds`.
            NonFiniteLossError: the weights are of no use any more.
        """
        try:
            return self.selection.test(self.state)
        except AskedToStop as asked:
            raise self._stopped(asked) from None

    # ------------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Begin to save a checkpoint of the run as it stands, on rank 0, if there is none."""
        self._flush()
        self.state.note_rounding(
            f"{kernel} has no deterministic form here" for kernel in sorted(self.inexact_kernels)
        )
        if self.saved_step == self.state.step or not self.checkpoints.keeps_any:
            return
        self.saved_step = self.state.step
        self.agreement.finish_saving()  # of the one before
        if self.observer:
            self.state.observer = self.observer.position()
        if self.accelerator.is_main_process:
            files, small = self.snapshot.collect(self.state, self.selection.best)
            self.checkpoints.save(
                self.state.step,
                files,
                small,
                best_step=self.state.best_step,
                first=self.observer.sync if self.observer else None,
            )
        self.step_log.start_clock()

    def load(self, saved: Checkpoint) -> None:
        """Go to where a checkpoint stands; a collective.

        Raises:
            UserError: it belongs to other data or another model.
        """
        steps, epochs = self.batches.steps, self.config.train.epochs
        specs = sharing.share_specs(self.accelerator, saved)
        collectives.run_on_all_ranks(
            self.accelerator, lambda: self.snapshot.check(saved, specs, steps, epochs)
        )
        files = sharing.share_tensors(self.accelerator, saved)
        self.state, self.selection.best = self.snapshot.restore(saved, files)
        # Other ranks may see another folder, or none, and all must agree on when to save.
        held = collectives.run_on_main_rank(self.accelerator, lambda: self.checkpoints.holds(saved))
        self.saved_step = self.state.step if held else None

    def _roll_back(self, error: NonFiniteLossError) -> None:
        """Go back to the newest checkpoint, to leave the step of the error out this time.

        Raises:
            NonFiniteLossError: as it came where that is not wanted, or has not helped.
        """
        step, skipped = error.step, self.state.skipped_steps
        if self.config.train.on_nonfinite == "stop" or step is None:
            raise error
        if skipped[-MOST_SKIPPED:] == list(range(step - MOST_SKIPPED, step)):
            raise error
        self.agreement.finish_saving()
        saved = collectives.run_on_main_rank(self.accelerator, self.checkpoints.newest)
        if saved is None:
            raise error
        self.load(saved)
        self.state.skipped_steps = sorted({*skipped, step})
        self.step_log.drop()
        self.next_log_step = 0
        if self.observer:
            self.observer.go_back(self.state.observer)
        if self.accelerator.is_main_process:
            log.warning(
                "the loss of step %d is not finite: back to step %d, and that step is left out",
                step, self.state.step,
            )  # fmt: skip
