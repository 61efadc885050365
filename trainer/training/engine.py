"""Train a model on a data set, and test it: the loop of a run."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Mapping

from accelerate import Accelerator
from torch import nn

from trainer.base import device_memory, numerics, profiler_ranges
from trainer.base.errors import NonFiniteLossError
from trainer.checkpoint.reading import Checkpoint
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import RunConfig
from trainer.data.batches import Batch, Batches
from trainer.data.dataset import Dataset
from trainer.data.environment import describe_environment
from trainer.network import model_state
from trainer.network.freezing import Freezing
from trainer.network.parameter_names import head_parameters
from trainer.network.pass_effects import TrainedParameters
from trainer.ranks.preemption import StopRequest
from trainer.training import evaluation_size, optimizers
from trainer.training.cached_features import CachedFeatures
from trainer.training.loss import build_loss
from trainer.training.observer import Observer
from trainer.training.parameter_groups import set_learning_rate
from trainer.training.run_checkpoints import RunCheckpoints
from trainer.training.run_state import RunState
from trainer.training.schedules import Schedule
from trainer.training.snapshot import Snapshot
from trainer.training.step import StepResult, TrainStep
from trainer.training.step_log import StepLog, epoch_means
from trainer.training.stopping import AskedToStop, StopCheck
from trainer.training.teacher import LoadedTeacher, Teacher
from trainer.training.weight_selection import TestedWeights, WeightSelection

LOG_SECONDS = 1.0

MOST_SKIPPED = 10
"""this many steps in a row without a finite loss are not an accident of one batch"""

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
        config: with `threads` and `train.microbatches` filled in.
        dataset: its images move to a GPU by `memory_trial`, elsewhere at once.
        code: SHA-256 of users' code, as `plugins.fingerprints` gives it.
        teacher: that fits it, whose answers are learnt too; None: only the labels are.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: RunConfig,
        dataset: Dataset,
        model: nn.Module,
        checkpoints: Checkpoints,
        stop: StopRequest,
        code: Mapping[str, str | None],
        teacher: LoadedTeacher | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.config = config
        self.observer: Observer | None = None
        block_samples = evaluation_size.block_samples(config.train, model, dataset.train)
        self.module = model_state.move(model, accelerator.device)
        self.freezing = Freezing(self.module, config.train, len(dataset.class_names))
        self.freezing.set_epoch(config.train.epochs)  # what is trained in the end
        self.optimizer = accelerator.prepare_optimizer(
            optimizers.build(
                config.optimizer,
                self.module,
                len(dataset.class_names),
                portable=config.train.kernels == "portable",
            ),
            # Else it would move counts of steps to the device, which optimisers read in each step.
            device_placement=False,
        )
        self.freezing.set_epoch(1)
        accelerator.prepare_model(self.module, device_placement=False, evaluation_mode=True)
        room_bytes = device_memory.first_room(config.data.device_memory_gb, accelerator.device)
        self.data = dataset.place(accelerator.device, room_bytes)
        self.train_step = TrainStep(
            accelerator, self.module, self.optimizer, config.train, config.seed,
            self.freezing.frozen_norms(), head_parameters(self.module, len(dataset.class_names)),
            Teacher(accelerator, teacher, self.data) if teacher else None,
            build_loss(config, self.data, accelerator.device),
        )  # fmt: skip
        self.batches = self._make_batches(self.data)
        self.schedule = Schedule(config, self.batches.steps)
        self.stop_check = StopCheck(accelerator, stop, checkpoints, config.train.max_seconds)
        self.selection = WeightSelection(
            accelerator, self.module, self.data, config, self.stop_check, block_samples
        )
        self.cached = None
        if config.train.cache_features:
            self.cached = CachedFeatures(accelerator, self.module, self.data, config, block_samples)
        # Again, because code of plug-ins may have changed it since the processes met.
        numerics.choose_precision(config.train.precision)
        self.inexact_kernels = numerics.choose_kernels(config.train.reduction == "exact")
        self.environment = describe_environment(accelerator.device, config, trains=True)
        self.snapshot = Snapshot(
            accelerator,
            self.module,
            self.optimizer,
            self.selection.average,
            {"data.root": dataset.fingerprint, **code},
            self.environment,
        )
        self.run_checkpoints = RunCheckpoints(accelerator, self.snapshot, checkpoints)
        self.trained = TrainedParameters(self.module)
        self.state = RunState()
        self.until: tuple[int, int] | None = None
        self.step_log = StepLog()
        self.next_log_step = 0

    # ------------------------------------------------------------------ training

    def fit(self, until: tuple[int, int] | None = None) -> None:
        """Train from where the run stands to its end.

        Args:
            until: the position, epoch and step, at which to end instead. At the last step of an
                epoch that epoch is validated only if the position is in the next one.

        Raises:
            StoppedOnRequest: asked to by a signal or by `train.max_seconds`; a checkpoint is saved.
            NonFiniteLossError: names the first step whose loss was not finite.
        """
        self.until = until
        if self.config.train.on_nonfinite == "rollback" and self.run_checkpoints.saved_step is None:
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
            self.run_checkpoints.finish()
        except AskedToStop as asked:
            self.save()
            self.run_checkpoints.finish(needed=True)
            raise self.stop_check.stopped(asked, self.state.step) from None

    def _train_epoch(self) -> None:
        state, done = self.state, self.steps_done_in_epoch()
        last_epoch, last_step = self.until or (None, 0)
        left = last_step - state.step if state.epoch == last_epoch else None
        self.step_log.start_clock()
        self.start_epoch(state.epoch)
        if self.observer:
            self.observer.epoch_started(state.epoch, self.batches.steps, done)
        with contextlib.closing(self.batches.iter_epoch(state.epoch, done)) as batches:
            self._do_steps(itertools.islice(batches, left), done)

    def start_epoch(self, epoch: int) -> None:
        """Put the model into training mode, with what is frozen in an epoch; a collective."""
        changed, module, data = self.freezing.set_epoch(epoch), self.module, self.data
        if self.cached and self.freezing.is_frozen(epoch):
            module, data = self.cached.network, self.cached.dataset(self.stop_check)
        elif self.cached:
            self.cached.forget()
        if changed or module is not self.train_step.module:
            self.train_step.choose_parameters(module, self.freezing.frozen_norms())
            self.selection.validate_with(module, data)
            self.batches = self._make_batches(data)
            self.trained = TrainedParameters(self.module)
        self.freezing.set_training_mode()
        self.optimizer.train()

    def place_images(self, room_bytes: float) -> None:
        """Move images to the device, as many as may take its memory; before the first epoch."""
        self.data = self.data.place(self.accelerator.device, room_bytes)
        self.batches = self._make_batches(self.data)
        self.selection.use_images(self.data)
        if self.cached:
            self.cached.images = self.data

    def _make_batches(self, data: Dataset) -> Batches:
        """Return this rank's batches of a data set."""
        ranks = (self.accelerator.num_processes, self.accelerator.process_index)
        return Batches(data, self.config, self.accelerator.device, *ranks)

    def _do_steps(self, batches: Iterable[Batch], done: int) -> None:
        """Do the steps of an epoch after those that are done."""
        state, every_steps = self.state, self.config.checkpoint.every_steps
        for step_of_epoch, batch in enumerate(batches, start=done + 1):
            state.step += 1
            lr = self.schedule.rate(state.step, state.plateaus)
            set_learning_rate(self.optimizer, lr)
            if state.step in state.skipped_steps:
                result = StepResult.skipped(self.accelerator.device)
            else:
                result = self.train_step(
                    state.step, batch.images, batch.targets, batch.microbatch_sizes, batch.weights
                )
                if self.selection.average:
                    self.selection.average.step_done(state.step)
            self.step_log.add(state.epoch, state.step, lr, sum(batch.microbatch_sizes), result)
            last = step_of_epoch == self.batches.steps
            if state.step >= self.next_log_step or last:
                self._log_point()
            if every_steps and state.step % every_steps == 0 and not last:
                self.save()

    def _finish_epoch(self) -> None:
        self.trained.check()
        self.optimizer.eval()
        state, count = self.state, len(self.data.train)
        loss, accuracy = epoch_means(state)
        record = {
            "event": "epoch",
            "epoch": state.epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            **self.selection.validate(state),
            "seconds": state.epoch_seconds,
            "samples_per_second": count / state.epoch_seconds,
        }
        if self.config.schedule.plateau_epochs is not None:
            state.note_plateau(self.config.schedule.plateau_epochs)
        state.train_seconds += state.epoch_seconds
        state.epoch_seconds = state.loss_sum = state.hits = 0.0
        state.trained_samples = state.epoch_samples = 0
        state.epoch += 1
        if self.observer:
            self.observer.epoch_done(record | self.snapshot.digests(state, self.selection.best))
        every = self.config.checkpoint
        if (every.every_epochs and (state.epoch - 1) % every.every_epochs == 0) or (
            every.every_steps and state.step % every.every_steps == 0
        ):
            self.save()

    def _goes_on(self) -> bool:
        state, patience = self.state, self.config.train.patience
        if self.until and (state.epoch, state.step) >= self.until:
            return False
        if patience and state.best_epoch and state.epoch - 1 - state.best_epoch >= patience:
            return False
        return state.epoch <= self.config.train.epochs

    def steps_done_in_epoch(self) -> int:
        """Return how many steps of the epoch in which the run stands are done."""
        return self.state.step - (self.state.epoch - 1) * self.batches.steps

    def _log_point(self) -> None:
        """Bring the losses to the host, and stop if any rank was asked to."""
        with profiler_ranges.label("logging"):
            self._flush()
            # Rank 0 decides how many steps make about a second, so that all ranks stop together.
            seconds_per_step = self.state.epoch_seconds / self.steps_done_in_epoch()
            interval = max(1.0, LOG_SECONDS / seconds_per_step)
            interval = self.stop_check(interval if self.accelerator.is_main_process else 0.0)
        self.next_log_step = self.state.step + int(interval)

    def _flush(self) -> None:
        self.step_log.flush(self.state, self.steps_done_in_epoch(), self.observer)

    # ------------------------------------------------------------------ test

    def test(self) -> TestedWeights:
        """Classify the test set with the chosen weights; everything is saved already.

        Raises:
            StoppedOnRequest: asked to by a signal or by `train.max_seconds`.
            NonFiniteLossError: the weights cannot be used any more.
        """
        try:
            return self.selection.test(self.state)
        except AskedToStop as asked:
            raise self.stop_check.stopped(asked, self.state.step) from None

    # ------------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Begin to save a checkpoint of the run as it stands, unless this step has one."""
        self._flush()
        self.state.note_rounding(
            f"{kernel} has no deterministic form here" for kernel in sorted(self.inexact_kernels)
        )
        self.run_checkpoints.save(self.state, self.selection.best, self.observer)
        self.step_log.start_clock()

    def load(self, saved: Checkpoint) -> None:
        """Go to the position of a checkpoint; a collective.

        Raises:
            UserError: it belongs to other data or another model.
        """
        self.state, self.selection.best = self.run_checkpoints.load(saved)

    def _roll_back(self, error: NonFiniteLossError) -> None:
        """Go back to the newest checkpoint, to leave the step of the error out this time.

        Raises:
            NonFiniteLossError: the same one, if going back is not wanted or has not helped.
        """
        step, skipped = error.step, self.state.skipped_steps
        if self.config.train.on_nonfinite == "stop" or step is None:
            raise error
        if skipped[-MOST_SKIPPED:] == list(range(step - MOST_SKIPPED, step)):
            raise error
        saved = self.run_checkpoints.newest()
        if saved is None:
            raise error
        self.load(saved)
        self.state.skipped_steps = sorted({*skipped, step})
        self.step_log.clear()
        self.next_log_step = 0
        if self.observer:
            self.observer.go_back(self.state.observer)
        if self.accelerator.is_main_process:
            log.warning(
                "the loss of step %d is not finite: back to step %d, and that step is left out",
                step, self.state.step,
            )  # fmt: skip
