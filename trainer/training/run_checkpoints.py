"""Save a run at a step, and go back to a checkpoint: on all ranks together."""

from __future__ import annotations

from accelerate import Accelerator

from trainer.base.tensor_files import Tensors
from trainer.checkpoint import sharing
from trainer.checkpoint.reading import Checkpoint
from trainer.checkpoint.writing import Checkpoints
from trainer.ranks import collectives
from trainer.training.observer import Observer
from trainer.training.run_state import RunState
from trainer.training.snapshot import Snapshot


class RunCheckpoints:
    """Connects the parts of a run with its folder of checkpoints; every method is a collective.

    Attributes:
        saved_step: the step of the last checkpoint of this run, None if there is none yet.
    """

    def __init__(
        self, accelerator: Accelerator, snapshot: Snapshot, checkpoints: Checkpoints
    ) -> None:
        self.accelerator = accelerator
        self.snapshot = snapshot
        self.checkpoints = checkpoints
        self.saved_step: int | None = None

    def save(self, state: RunState, best_weights: Tensors, observer: Observer | None) -> None:
        """Begin to save a checkpoint on rank 0, unless this step has one."""
        if self.saved_step == state.step or not self.checkpoints.saves_any:
            return
        self.saved_step = state.step
        self.finish()  # the previous one
        if observer:
            state.observer = observer.position()
        if self.accelerator.is_main_process:
            files, small = self.snapshot.collect(state, best_weights)
            self.checkpoints.save(
                state.step,
                files,
                small,
                best_step=state.best_step,
                first=observer.sync if observer else None,
            )

    def finish(self, *, needed: bool = False) -> None:
        """Wait until the last save is on the disk.

        Args:
            needed: a failure is an error even if `checkpoint.on_error` is continue.

        Raises:
            UserError: it could not be written.
        """
        collectives.run_on_main_rank(self.accelerator, lambda: self.checkpoints.wait(needed=needed))

    def newest(self) -> Checkpoint | None:
        """Finish the last save and return the newest checkpoint."""
        self.finish()
        return collectives.run_on_main_rank(self.accelerator, self.checkpoints.newest)

    def load(self, saved: Checkpoint) -> tuple[RunState, Tensors]:
        """Put the tensors of a checkpoint back.

        Returns:
            The state of the run, and the best weights.

        Raises:
            UserError: it belongs to other data or another model.
        """
        specs = sharing.share_specs(self.accelerator, saved)
        collectives.run_on_all_ranks(self.accelerator, lambda: self.snapshot.check(saved, specs))
        files = sharing.share_tensors(self.accelerator, saved)
        state, best_weights = self.snapshot.restore(saved, files)
        # Other ranks may see another folder, or none, and all must agree on when to save.
        is_ours = collectives.run_on_main_rank(
            self.accelerator, lambda: self.checkpoints.contains(saved)
        )
        self.saved_step = state.step if is_ours else None
        return state, best_weights
