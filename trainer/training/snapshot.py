"""What of a run is saved in a checkpoint and restored from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from trainer.base import numerics
from trainer.base.errors import UserError
from trainer.base.numerics import Environment
from trainer.base.tensor_files import Specs, Tensors, weights_sha256
from trainer.checkpoint.reading import Checkpoint
from trainer.network import model_state
from trainer.training import resume_checks
from trainer.training.averaging import WeightAverage
from trainer.training.optimizer_state import load_optimizer_state, optimizer_state
from trainer.training.run_state import RunState
from trainer.training.state_digest import digest_state

Files = dict[str, Tensors]


class Snapshot:
    """The parts of a run that change as it goes on.

    Args:
        accelerator: for the scaler of fp16's gradients.
        module: the model, without DDP's wrapper.
        fingerprints: of what the run is made from, by the key that names it; a checkpoint of
            others is refused.
        environment: what decides how numbers round here.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        optimizer: AcceleratedOptimizer,
        average: WeightAverage | None,
        fingerprints: dict[str, str | None],
        environment: Environment,
    ) -> None:
        self.scaler = accelerator.scaler
        self.module = module
        self.optimizer = optimizer
        self.average = average
        self.fingerprints = fingerprints
        self.environment = environment

    def collect(self, state: RunState, best_weights: Tensors) -> tuple[Files, dict[str, Any]]:
        """Return the tensors by the file that they go into, and the small values, for JSON."""
        optimizer, numbers = optimizer_state(self.optimizer.optimizer)
        files = {"model": model_state.tensors_to_write(self.module), "optimizer": optimizer}
        if best_weights:
            files["best"] = model_state.tensors_to_write(self.module, best_weights)
        if self.average:
            files["average"] = model_state.tensors_to_write(self.module, self.average.tensors)
        small = {
            "run": dataclasses.asdict(state),
            "optimizer": numbers,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "fingerprints": self.fingerprints,
            "environment": self.environment,
        }
        return files, small

    def digests(self, state: RunState, best_weights: Tensors) -> dict[str, str]:
        """Return what metrics.jsonl records of the end of an epoch, of the weights and of all."""
        files, small = self.collect(state, best_weights)
        whole = digest_state(files, small)
        return {
            "weights_sha256": weights_sha256(files["model"]),
            "state_sha256": whole.sha256,
            "state_marks": whole.marks,
        }

    def check_fingerprints(self, fingerprints: dict[str, str | None], where: Path) -> None:
        """Check that a checkpoint or a run was made from what is here.

        Raises:
            UserError: it was made from something else.
        """
        for key, ours in self.fingerprints.items():
            theirs = fingerprints.get(key)
            if ours != theirs:
                images = key == "data.root"
                what = "the images differ from those" if images else "the code differs from that"
                raise UserError(
                    f"{key}: {what} that {where} was trained with "
                    f"(SHA-256 {_short(ours)} against {_short(theirs)}); use the same, or start "
                    f"again in another output_dir"
                )

    def check(self, saved: Checkpoint, specs: Mapping[str, Specs]) -> None:
        """Check that the run can go on from a checkpoint.

        Args:
            specs: of the tensors in each of its files.

        Raises:
            UserError: the checkpoint belongs to other data, or does not fit the model or the
                optimiser.
        """
        self.check_fingerprints(saved.state["fingerprints"], saved.folder)
        averaged = self.average is not None
        resume_checks.check(saved, specs, self.module, self.optimizer.optimizer, averaged)

    def restore(self, saved: Checkpoint, files: Mapping[str, Tensors]) -> tuple[RunState, Tensors]:
        """Restore the tensors of a checkpoint that has been checked.

        Returns:
            The state of the run, and the best weights.
        """
        state = RunState(**saved.state["run"])
        changes = numerics.differences(saved.state["environment"], self.environment)
        if changes and numerics.is_portable(self.environment):
            raise UserError(
                f"{saved.folder}: train.kernels: portable cannot go on here in the same bits: "
                f"{'; '.join(changes)}; go on where these are as they were"
            )
        state.note_rounding(f"from step {state.step}: {change}" for change in changes)
        model_state.load(self.module, files["model"])
        if self.average:
            self.average.load(files["average"])
        load_optimizer_state(self.optimizer.optimizer, files["optimizer"], saved.state["optimizer"])
        if self.scaler and saved.state["scaler"]:
            self.scaler.load_state_dict(saved.state["scaler"])
        return state, files["best"]


def _short(fingerprint: str | None) -> str:
    return fingerprint[:12] if fingerprint else "none"
