"""A run from opening its folder to writing its results."""

from __future__ import annotations

import contextlib
import logging
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate.utils import gather_object

from trainer.base import device_memory, output_streams, user_code_errors
from trainer.base.errors import StoppedOnRequest
from trainer.checkpoint.reading import Checkpoint, open_checkpoint
from trainer.checkpoint.writing import Checkpoints
from trainer.config.rules import find_warnings
from trainer.config.run_status import RunStatus, State
from trainer.config.schema import RunConfig, replace
from trainer.data.scaling import choose_scaling
from trainer.network import model_state
from trainer.network.trial import trial
from trainer.ranks import collectives, exit_codes, lost_ranks, process_group, processes
from trainer.ranks.caller_settings import trim_freed_memory
from trainer.ranks.preemption import StopRequest
from trainer.run import console, final_files, final_report, first_pass, header
from trainer.run.metrics_log import MetricsLog
from trainer.run.near_copy_warning import NearCopyWarning
from trainer.run.recorder import Hooks, Recorder
from trainer.run.run_folder import OpenedRun, RunFolder, run_folder_of
from trainer.run.tracking import trackers, weights_and_biases
from trainer.training.engine import Engine

log = logging.getLogger("lockstep")


class Session:
    """The processes, the folder, the screen and the trackers of one run; a context manager.

    An exception that ends the run is noted in status.json and raised again.
    """

    def __init__(self, config: RunConfig, hooks: Hooks | None = None) -> None:
        assert config.output_dir is not None
        self.config = config
        self.path = Path(config.output_dir)
        self.folder = RunFolder(self.path)
        self.stop = StopRequest()
        self.accelerator = process_group.create_accelerator(config)
        lost_ranks.note_host(self.accelerator)
        self.is_main = self.accelerator.is_main_process
        self.progress = console.Progress()
        self.hooks = hooks or Hooks()
        self.engine: Engine | None = None
        self.recorder: Recorder | None = None
        self.opened = False
        self.saved: Checkpoint | None = None
        """the checkpoint to go on from"""
        self.may_divide = False
        """whether the run may begin with more micro-batches, if the memory is too small"""
        self.results: dict[str, Any] | None = None
        """of a finished run"""
        self.status_before = RunStatus()
        self.rounding_reasons_shown = 0
        self.trial_warnings: list[str] | None = None
        self._cleanup = contextlib.ExitStack()

    # ------------------------------------------------------------------ before the training

    def open(self) -> bool:
        """Lock the folder, complete the configuration, and return whether anything is left to do.

        Raises:
            UserError: the folder cannot be used, or holds another run.
        """
        collectives.check_same_configuration(self.accelerator, self.config)
        opened = collectives.run_on_main_rank(self.accelerator, self._open_folder)
        self.opened = not opened.finished
        self.status_before = opened.status
        if not self.opened:
            self._say(f"{self.path} holds this run, finished: nothing is left to do")
            if not (self.path / "report.html").exists():
                self._say(f"it has no report.html: python -m trainer report {self.path} writes it")
            return False
        self.config, self.may_divide = opened.config, opened.may_divide
        processes.apply_pins(self.config)
        self.checkpoints = Checkpoints(self.path / "checkpoints", self.config.checkpoint)
        self.saved = collectives.run_on_main_rank(self.accelerator, self._find_checkpoint)
        return True

    def _open_folder(self) -> OpenedRun:
        trackers.check(self.config)
        pins = processes.default_pins(self.config, self.accelerator.num_processes)
        return self.folder.open(self.config, pins)

    def start(self, engine: Engine) -> None:
        """Resume if there is a checkpoint, write config.yaml, and print what will run.

        Raises:
            UserError: the checkpoint does not fit, or the ranks differ at the start.
        """
        kind = choose_scaling(engine.config.data.scaling, engine.data.train.images.shape[1])
        self.config = replace(engine.config, {"data.scaling": kind})
        saved = self.saved
        if saved:
            self._take_metrics(saved)
            engine.load(saved)
        else:
            self.trial_warnings = collectives.run_on_all_ranks(
                self.accelerator,
                lambda: trial.try_network(
                    self.config,
                    engine.data,
                    engine.module,
                    self.accelerator.device,
                    self.accelerator.autocast,
                    engine.inexact_kernels,
                    engine.train_step.loss.try_mean,
                ),
            )
        differing = collectives.check_same_start(
            self.accelerator,
            weights=model_state.digest(engine.module),
            images=engine.data.fingerprint,
            environment=engine.environment,
        )
        engine.state.note_rounding(differing)
        first_pass.try_first_pass(engine)
        collectives.run_on_main_rank(self.accelerator, lambda: self._begin(engine, saved))

    def _begin(self, engine: Engine, saved: Checkpoint | None) -> None:
        # The id comes from the system: no random stream of the run may be used.
        position = engine.state.observer or {
            "metrics_bytes": 0,
            "wandb_run_id": secrets.token_hex(6),
        }
        run_id = weights_and_biases.run_id(position["wandb_run_id"])
        metrics = MetricsLog(self.path / "metrics.jsonl", position["metrics_bytes"])
        near_copies = NearCopyWarning(self.config, engine.data)
        self._cleanup.callback(near_copies.stop)
        self._cleanup.callback(metrics.close)
        self._cleanup.callback(self.checkpoints.close)
        self.engine = engine
        self._warn_of_rounding(engine)
        for warning in self.trial_warnings or ():
            log.warning("model.name: %s", warning)
        self.folder.remove_leftovers()
        self.folder.write_config(self.config)
        self._write_status("running", None)
        header.show(self.path, self.config, engine, self.trial_warnings, resumes=saved is not None)
        for doubt in (*engine.data.warnings, *find_warnings(self.config)):
            log.warning("%s", doubt)
        self.checkpoints.remove_leftovers()
        self.checkpoints.supersede_after(engine.state.step)
        self.recorder = engine.observer = Recorder(
            self.config.train.epochs,
            self.progress,
            metrics,
            [],
            self.hooks,
            run_id,
            near_copies,
        )
        for tracker in trackers.start(self.config, self.path, run_id, engine.state.step):
            self.recorder.trackers.append(tracker)  # at once, as an interrupt has to end it

    def _warn_of_rounding(self, engine: Engine) -> None:
        """Warn of what breaks the equality in bits, of each reason once."""
        for reason in engine.state.rounding[self.rounding_reasons_shown :]:
            log.warning("equal to rounding, not in bits: %s", reason)
        self.rounding_reasons_shown = len(engine.state.rounding)

    def _find_checkpoint(self) -> Checkpoint | None:
        match self.config.resume:
            case "none":
                return None
            case "auto":
                return self.checkpoints.newest()
            case path:
                is_other_run = run_folder_of(Path(path)) != self.path.resolve()
                if is_other_run and (own := self.checkpoints.newest()):
                    return own  # the same command again: it goes on
                return open_checkpoint(Path(path))

    def _take_metrics(self, saved: Checkpoint) -> None:
        """Begin metrics.jsonl with the records of the run that it goes on from, if in another."""

        def take() -> None:
            length_bytes = saved.state["run"]["observer"]["metrics_bytes"]
            self.folder.take_metrics(saved.folder, length_bytes)

        if run_folder_of(saved.folder) != self.path.resolve():
            collectives.run_on_main_rank(self.accelerator, take)

    # ------------------------------------------------------------------ after the training

    def finish(self, engine: Engine) -> None:
        """Test the chosen weights, once, and write everything.

        Raises:
            StoppedOnRequest: asked to stop meanwhile; the same command tests again.
        """
        final_sha256 = model_state.digest(engine.module)
        tested = engine.test()
        trim_freed_memory()  # which no step needs any more: figures and pictures load libraries
        peaks_bytes = gather_object([device_memory.peak_bytes(self.accelerator.device)])
        if not self.recorder:
            return
        self.recorder.sync()
        self._warn_of_rounding(engine)
        results = final_files.write(
            self.path, self.config, engine, tested, final_sha256, max(peaks_bytes)
        )
        self._write_status("finished", exit_codes.FINISHED)
        self.results = results
        # Whatever goes wrong from here on, the run is finished.
        self.recorder.near_copies.say(wait=True)
        final_report.write_report(self.path, engine, tested.test)
        self.recorder.finish(results)
        console.print_results(results, self.path)

    # ------------------------------------------------------------------ throughout

    def __enter__(self) -> Session:
        # A training goes on when its terminal or its reader has gone.
        self._cleanup.enter_context(
            output_streams.ignore_write_errors(
                (*output_streams.READER_GONE, *output_streams.DISK_FULL)
            )
        )
        self.stop.install()
        self._cleanup.callback(self.stop.restore)
        self._cleanup.callback(self.folder.release)
        self._cleanup.enter_context(self.progress)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        instead: Exception | None = None
        if error is not None and not lost_ranks.is_known_to_all(error):
            lost = lost_ranks.diagnose(self.accelerator, error)
            instead = lost or user_code_errors.as_user_error(error)
        stopped = isinstance(error, StoppedOnRequest)
        # A finished run that could not be given more epochs is still finished.
        refused = self.engine is None and self.status_before.state == "finished"
        if error is not None and self.opened and self.is_main and not refused:
            if self.results is None:
                self._note_end("stopped" if stopped else "failed", exit_codes.exit_code_for(error))
            if self.recorder:
                self.recorder.finish(self.results, stopped=stopped)
        self._cleanup.close()
        if isinstance(error, KeyboardInterrupt) and self.opened and self.results is None:
            self._say("the newest checkpoint is what is saved; the same command goes on from there")
        if error is None or stopped:
            process_group.leave(self.accelerator)
        if instead:
            raise instead from error

    def _note_end(self, state: State, exit_code: int) -> None:
        try:
            self._write_status(state, exit_code)
        except OSError as error:  # the disk is full; the error that ended the run matters more
            log.warning("status.json could not be written: %s", error.strerror)

    def _write_status(self, state: State, exit_code: int | None) -> None:
        step = self.engine.state.step if self.engine else self.status_before.step
        self.folder.write_status(state, exit_code, step)

    def _say(self, text: str) -> None:
        if self.is_main:
            print(text, flush=True)
