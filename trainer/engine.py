"""The engine: trains a model on a data set, and evaluates it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time

import torch
from accelerate import Accelerator
from torch import nn

from trainer import checkpoint, environment, evaluation, optim, processes
from trainer.averaging import WeightAverage
from trainer.batches import Batch, Batches
from trainer.checkpoint import Checkpoint, Checkpoints, RunState
from trainer.config import RunConfig
from trainer.data import Dataset, ImageSet
from trainer.errors import RankError, StoppedOnRequest, UserError
from trainer.metrics import Predictions
from trainer.observer import Observer, Record
from trainer.preemption import StopRequest
from trainer.schedules import learning_rate
from trainer.step import StepResult, TrainStep

LOG_SECONDS = 1.0

ADVICE = "a lower optimizer.lr, schedule.warmup_epochs or train.clip_norm may help"

log = logging.getLogger("lockstep")


class NonFiniteLossError(RuntimeError):
    """The loss of a step is infinite or not a number."""


class Engine:
    """Trains one model on one data set; all ranks make the same calls.

        fit
          for each epoch
            for each step                   TrainStep: forward, backward, reduction, update
              at log points                 losses to the observer, stop if any rank was asked to
              every checkpoint.every_steps  save
            validate                        keep the best weights, stop early
            every checkpoint.every_epochs   save
        evaluate                            predictions for every sample, once

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
        self.data = dataset.where_it_fits(accelerator.device)
        self.observer: Observer | None = None
        self.checkpoints = checkpoints
        self.stop = stop
        self.module = model.to(accelerator.device)
        self.optimizer = accelerator.prepare_optimizer(optim.build(config.optimizer, self.module))
        wrapped = accelerator.prepare_model(
            self.module, evaluation_mode=config.train.reduction == "exact"
        )
        self.train_step = TrainStep(accelerator, wrapped, self.optimizer, config.train, config.seed)
        self.batches = Batches(
            self.data,
            config,
            accelerator.device,
            accelerator.num_processes,
            accelerator.process_index,
        )
        self.environment = environment.describe(accelerator.device)
        self.inexact_kernels = environment.choose_kernels(config.train.reduction == "exact")
        decay = config.train.ema_decay
        self.average = WeightAverage(self.module, decay) if decay else None
        self.state = RunState()
        self.best_weights: checkpoint.Tensors = {}
        self.started_s = time.monotonic()
        self.pending: list[tuple[int, float, int, StepResult]] = []
        self.next_log_step = 0

    # ------------------------------------------------------------------ training

    def fit(self) -> None:
        """Train to the end of the run from wherever it stands.

        Raises:
            StoppedOnRequest: asked to by a signal or by `train.max_seconds`; a checkpoint is saved.
            NonFiniteLossError: names the first step whose loss was not finite.
        """
        while self.state.epoch <= self.config.train.epochs and not self._out_of_patience():
            self._train_epoch()
            self._finish_epoch()
        if self.checkpoints.saved_step != self.state.step:
            self.save()

    def _train_epoch(self) -> None:
        epoch, done = self.state.epoch, self._steps_done_in_epoch()
        if self.observer:
            self.observer.epoch_started(epoch, self.batches.steps, done)
        self.module.train()
        self.clock_s = time.perf_counter()
        every_steps = self.config.checkpoint.every_steps
        for step_of_epoch, batch in enumerate(self.batches.of_epoch(epoch, done), start=done + 1):
            self._do_step(batch)
            last = step_of_epoch == self.batches.steps
            if self.state.step >= self.next_log_step or last:
                self._log_point()
            if every_steps and self.state.step % every_steps == 0 and not last:
                self.save()

    def _do_step(self, batch: Batch) -> None:
        self.state.step += 1
        lr = self._set_learning_rate()
        try:
            result = self.train_step(self.state.step, batch.images, batch.targets, batch.sizes)
        except torch.cuda.OutOfMemoryError as error:
            raise RankError(
                f"train.microbatches: a micro-batch of {max(batch.sizes)} samples does not fit "
                f"into the GPU's memory; more than {self.config.train.microbatches} micro-batches "
                f"make them smaller at the same train.batch_size"
            ) from error
        if self.average:
            self.average.update(self.state.step)
        self.pending.append((self.state.step, lr, sum(batch.sizes), result))

    def _set_learning_rate(self) -> float:
        steps, config = self.batches.steps, self.config
        total = config.train.epochs * steps
        lr = learning_rate(config.schedule, config.optimizer.lr, self.state.step, total, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _finish_epoch(self) -> None:
        state, count = self.state, len(self.data.train)
        record = {
            "event": "epoch",
            "epoch": state.epoch,
            "train_loss": state.loss_sum / count,
            "train_accuracy": state.hits / count,
            "validation_loss": None,
            "validation_accuracy": None,
            "weights_sha256": None,
            "seconds": state.epoch_seconds,
            "samples_per_second": count / state.epoch_seconds,
        }
        if len(self.data.validation):
            with self.average.in_place() if self.average else contextlib.nullcontext():
                validation = self.evaluate(self.data.validation)
                if state.best_accuracy is None or validation.accuracy > state.best_accuracy:
                    state.best_accuracy, state.best_epoch = validation.accuracy, state.epoch
                    self.best_weights = {k: v.clone() for k, v in self.module.state_dict().items()}
            record["validation_loss"] = validation.mean_loss
            record["validation_accuracy"] = validation.accuracy
        if self.observer:
            record["weights_sha256"] = checkpoint.weights_sha256(self.module.state_dict())
            self.observer.epoch_done(record)
        state.train_seconds += state.epoch_seconds
        state.epoch_seconds = state.loss_sum = state.hits = 0.0
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
        limit_s = self.config.train.max_seconds
        late = limit_s is not None and time.monotonic() - self.started_s > limit_s
        # Rank 0 says how many steps make about a second; others agree, so that all stop together.
        seconds_per_step = self.state.epoch_seconds / self._steps_done_in_epoch()
        interval = max(1.0, LOG_SECONDS / seconds_per_step)
        proposal = interval if self.accelerator.is_main_process else 0.0
        asked = self.stop.signal is not None or late
        stop, interval = processes.agree(self.accelerator, [float(asked), proposal])
        self.next_log_step = self.state.step + int(interval)
        if stop:
            self.save()
            why = self.stop.signal.name if self.stop.signal else "train.max_seconds or another rank"
            raise StoppedOnRequest(
                f"stopped at step {self.state.step} ({why}), everything is saved; "
                f"the same command goes on from there"
            )

    def _flush(self) -> None:
        """Bring the pending losses to the host, which waits for the device."""
        if not self.pending:
            return
        steps, lrs, counts, results = zip(*self.pending, strict=True)
        self.pending = []
        losses = torch.stack([result.loss for result in results]).tolist()
        accuracies = torch.stack([result.accuracy for result in results]).tolist()
        now_s = time.perf_counter()
        self.state.epoch_seconds += now_s - self.clock_s
        self.clock_s = now_s
        for loss, accuracy, count in zip(losses, accuracies, counts, strict=True):
            self.state.loss_sum += loss * count
            self.state.hits += accuracy * count
        if self.observer:
            epoch = self.state.epoch
            self.observer.steps_done(
                [
                    {"event": "step", "epoch": epoch, "step": step, "loss": loss, "lr": lr}
                    for step, loss, lr in zip(steps, losses, lrs, strict=True)
                ],
                self._progress(),
            )
        for step, loss in zip(steps, losses, strict=True):
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss of step {step} is {loss}: training cannot go on; {ADVICE}"
                )

    def _progress(self) -> Record:
        done = self._steps_done_in_epoch()
        samples = min(done * self.config.train.batch_size, len(self.data.train))
        return {
            "steps": done,
            "loss": self.state.loss_sum / samples,
            "accuracy": self.state.hits / samples,
            "samples_per_second": samples / self.state.epoch_seconds,
        }

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, images: ImageSet) -> Predictions:
        """Predictions of the present weights, the same on all ranks; a collective.

        Raises:
            NonFiniteLossError: the weights are of no use any more.
        """
        found = evaluation.predict(self.accelerator, self.module, images, self.data.scaling)
        if not math.isfinite(found.mean_loss):
            raise NonFiniteLossError(
                f"the loss of the evaluation after step {self.state.step} is {found.mean_loss}; "
                f"{ADVICE}"
            )
        return found

    def choose_weights(self) -> None:
        """Load the best weights on validation; without validation the last, averaged if asked."""
        chosen = self.best_weights or (self.average.tensors if self.average else {})
        if chosen:
            self.module.load_state_dict(chosen)

    # ------------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Save a checkpoint of the run as it stands; rank 0 writes."""
        self._flush()
        if self.observer:
            self.state.observer = self.observer.flush()
        self.checkpoints.saved_step = self.state.step
        self.state.note_rounding(
            f"{kernel} has no deterministic form here" for kernel in sorted(self.inexact_kernels)
        )
        if self.accelerator.is_main_process:
            optimizer, numbers = checkpoint.optimizer_state(self.optimizer.optimizer)
            files = {"model": self.module.state_dict(), "optimizer": optimizer}
            if self.best_weights:
                files["best"] = self.best_weights
            if self.average:
                files["ema"] = self.average.tensors
            scaler = self.accelerator.scaler
            small = {
                "run": dataclasses.asdict(self.state),
                "optimizer": numbers,
                "scaler": scaler.state_dict() if scaler else None,
                "data_fingerprint": self.data.fingerprint,
                "environment": self.environment,
            }
            self.checkpoints.save(self.state.step, files, small)
        self.clock_s = time.perf_counter()

    def load(self, saved: Checkpoint) -> None:
        """Go to where a checkpoint stands.

        Raises:
            UserError: it belongs to other data.
        """
        if saved.state["data_fingerprint"] != self.data.fingerprint:
            raise UserError(
                f"data.root: the images differ from those that {saved.folder} was trained on "
                f"(fingerprint {self.data.fingerprint[:12]} against "
                f"{saved.state['data_fingerprint'][:12]}); use the same files"
            )
        self.state = RunState(**saved.state["run"])
        changes = environment.differences(saved.state["environment"], self.environment)
        self.state.note_rounding(f"from step {self.state.step}: {change}" for change in changes)
        self.module.load_state_dict(saved.tensors("model"))
        self.best_weights = saved.tensors("best")
        if self.average:
            self.average.load(saved.tensors("ema"))
        checkpoint.load_optimizer_state(
            self.optimizer.optimizer, saved.tensors("optimizer"), saved.state["optimizer"]
        )
        if self.accelerator.scaler and saved.state["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        self.checkpoints.saved_step = self.state.step
