"""The state of a sweep: Optuna's journal in its folder, journal.log, which all workers share.

Whoever reads or writes has the sweep's lock. A worker that is killed loses it, and at most leaves
half a line, which the next one cuts off.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from trainer.base import locks
from trainer.base.errors import UserError

NAME = "sweep"
FILE = "journal.log"
AGAIN = "again-"
"""what a study's attribute begins with that has the outcome of a trial that is done again"""

WITHOUT_LOCKS = "so work on this sweep by one command at a time"
"""what there is to do where the file system has none"""

State = Literal["running", "complete", "pruned", "failed"]

_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_OPTUNAS = {state: own for own, state in _STATES.items()}


@dataclass(frozen=True)
class Outcome:
    """What has become of a trial."""

    state: State
    curve: tuple[float, ...] = ()
    """the figure after each epoch"""
    figure: float | None = None
    """that of the weights that the trial would be tested with; None: it failed"""
    epoch: int | None = None
    """the epoch that these are from"""
    loss: float | None = None
    """their validation loss, which decides between equal figures"""
    elapsed_s: float = 0.0
    """time spent training"""
    final_weights_sha256: str | None = None
    """after the last epoch, as results.json of a finished run has it"""
    reason: str | None = None
    """why it failed"""


@dataclass(frozen=True)
class Trial:
    """A trial: the keys that it sets, and its outcome."""

    number: int
    keys: dict[str, Any]
    outcome: Outcome

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.outcome.state != "running"


class Journal:
    """Reads and writes the journal of the sweep in a folder, which exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / FILE
        self._storage: optuna.storages.JournalStorage | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[optuna.Study | None]:
        """Have the journal for this process alone inside the context.

        Yields:
            The study in it; None: there is none yet.

        Raises:
            UserError: the journal is damaged.
        """
        lock = self._folder / ".lock"
        with locks.lock_file(lock, "writes this sweep's journal", WITHOUT_LOCKS):
            self._cut_half_line()
            yield self._read()

    def begin(self, definition: Mapping[str, Any], *, minimize: bool) -> None:
        """Write what the sweep is into an empty journal; inside `locked`."""
        assert self._storage is not None
        study = optuna.create_study(
            storage=self._storage,
            study_name=NAME,
            direction="minimize" if minimize else "maximize",
            load_if_exists=True,  # of a start that was killed before the definition was written
        )
        study.set_user_attr("definition", dict(definition))

    def _read(self) -> optuna.Study | None:
        try:
            if self._storage is None:
                self._storage = _open(self.path)
            known = self._storage.get_all_studies()
            return optuna.load_study(study_name=NAME, storage=self._storage) if known else None
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.path}: is damaged ({type(error).__name__}: {error}); put it back as it "
                f"was, or start again in another output_dir"
            ) from error

    def _cut_half_line(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if file.read() in (b"", b"\n"):
                return
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            os.fsync(file.fileno())


class _HasLock(JournalFileOpenLock):
    """Takes no lock: whoever writes has the sweep's, which the kernel takes from a killed one."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _open(path: Path) -> optuna.storages.JournalStorage:
    lock = _HasLock(str(path))
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def definition_of(study: optuna.Study) -> dict[str, Any] | None:
    """Return what the sweep is; None: its first start was killed before it was written."""
    found: dict[str, Any] | None = study.user_attrs.get("definition")
    return found


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials, by their number; one that is done again as it is now."""
    attributes = study.user_attrs
    found = []
    for trial in study.get_trials(deepcopy=False):
        outcome = attributes.get(f"{AGAIN}{trial.number}")
        found.append(trial if outcome is None else _done_again(trial, outcome))
    return found


def _done_again(trial: FrozenTrial, outcome: Mapping[str, Any]) -> FrozenTrial:
    found = copy.copy(trial)
    found.state = _OPTUNAS[outcome["state"]]
    found.values = None if outcome["figure"] is None else [outcome["figure"]]
    found.intermediate_values = dict(enumerate(outcome["curve"], start=1))
    found.user_attrs = trial.user_attrs | {"outcome": dict(outcome)}
    return found


def read_trial(trial: FrozenTrial, path: Path) -> Trial:
    """Return a trial as Lockstep sees it.

    Args:
        path: of the journal, for a message.
    """
    try:
        keys, outcome = trial.user_attrs["keys"], Outcome("running")
        if trial.state.is_finished():
            outcome = Outcome(**trial.user_attrs["outcome"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: trial {trial.number} was not written by a sweep of this version ({error})"
        ) from error
    return Trial(trial.number, keys, outcome)


def do_again(study: optuna.Study, number: int) -> None:
    """Write that a trial that has failed is to be done again.

    Optuna never changes a trial that is over, so what becomes of it is kept beside the trials.
    """
    study.set_user_attr(f"{AGAIN}{number}", asdict(Outcome("running")))


def add_trial(
    study: optuna.Study,
    params: Mapping[str, Any],
    distributions: Mapping[str, Any],
    keys: Mapping[str, Any],
) -> None:
    """Write that a trial begins, the next by its number."""
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=dict(distributions),
            user_attrs={"keys": dict(keys)},
        )
    )


def end_trial(study: optuna.Study, number: int, outcome: Outcome) -> None:
    """Write what has become of a trial; one that is over already stays as it is."""
    if trials_of(study)[number].state.is_finished():
        return
    trial = study.get_trials(deepcopy=False)[number]
    if trial.state.is_finished():
        study.set_user_attr(f"{AGAIN}{number}", asdict(outcome))
        return
    storage, identity = study._storage, trial._trial_id
    storage.set_trial_user_attr(identity, "outcome", asdict(outcome))
    for epoch, figure in enumerate(outcome.curve, start=1):
        storage.set_trial_intermediate_value(identity, epoch, figure)
    values = None if outcome.figure is None else [outcome.figure]
    storage.set_trial_state_values(identity, _OPTUNAS[outcome.state], values)
