"""Hand out the trials of a sweep, each to one worker, and note what has become of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from trainer.base import locks
from trainer.base.errors import UserError
from trainer.base.locks import Lock
from trainer.commands.sweep import journal, search
from trainer.commands.sweep.definition import Sweep
from trainer.commands.sweep.journal import Journal, Outcome, Trial

LOCKS = ".trials"
"""the folder of the trials' locks"""

FAILED_ALIKE = 5
"""if so many trials fail first, and for one reason, it is not theirs"""


@dataclass(frozen=True)
class Claim:
    """A trial that this process has, and what there is to know for doing it."""

    trial: Trial
    limits: dict[int, float]
    """of `search.thresholds`"""
    lock: Lock
    """which the processes of the trial inherit: nobody else has the trial before all have ended"""


class Claims:
    """The trials of a sweep, which several commands may share.

    Raises:
        UserError: its folder has something else, or another sweep.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._journal = Journal(sweep.folder)
        with self._journal.locked() as study:
            (sweep.folder / LOCKS).mkdir(exist_ok=True)
            stored = journal.definition_of(study) if study else None
            if stored is None:
                if any(sweep.folder.glob("trial-*")):
                    raise UserError(
                        f"{self._journal.path}: has lost what its sweep is, but there are trials; "
                        f"put it back as it was, or start again in another output_dir"
                    )
                self._journal.begin(sweep.as_plain(), minimize=sweep.minimize)
            else:
                sweep.check_same(stored, self._journal.path)

    def trials(self) -> list[Trial]:
        """Return the trials so far, of those that are asked for."""
        with self._journal.locked() as study:
            return self._read(study)

    def importance(self) -> dict[str, float] | None:
        """Return how much each key decides, as `search.importance`."""
        with self._journal.locked() as study:
            assert study is not None
            trials = journal.trials_of(study)[: self.sweep.trials]
        return search.importance(trials, minimize=self.sweep.minimize)

    def retry_failed(self) -> None:
        """Let the trials that have failed be done again, by whoever claims them first."""
        with self._journal.locked() as study:
            assert study is not None
            for trial in self._read(study):
                if trial.outcome.state == "failed":
                    journal.do_again(study, trial.number)

    def are_over(self) -> bool:
        """Tell whether all trials that are asked for are over."""
        known = self.trials()
        return len(known) == self.sweep.trials and all(trial.is_over for trial in known)

    def claim(self) -> Claim | None:
        """Take a trial that nobody does now; None: there is none, at the moment or at all.

        Raises:
            UserError: the first trials have all failed, for the same reason.
        """
        with self._journal.locked() as study:
            known = self._read(study)
            _check_reasons(known)
            for trial in known:
                if not trial.is_over and (claim := self._take(trial, known)):
                    return claim
            number = len(known)
            seen = known[: max(number - self.sweep.at_once + 1, 0)]
            if number >= self.sweep.trials or not all(trial.is_over for trial in seen):
                return None
            self._add(study)
            known = self._read(study)
            return self._take(known[number], known)

    def end(self, claim: Claim, outcome: Outcome) -> None:
        """Note what has become of a trial, and give it up."""
        with self._journal.locked() as study:
            assert study is not None
            journal.end_trial(study, claim.trial.number, outcome)
        claim.lock.release()

    def take_test(self) -> Lock | None:
        """Take the test of the best trial; None: another command does it now."""
        return self._lock("test")

    def _read(self, study: optuna.Study | None) -> list[Trial]:
        assert study is not None
        found = journal.trials_of(study)[: self.sweep.trials]
        return [journal.read_trial(trial, self._journal.path) for trial in found]

    def _add(self, study: optuna.Study | None) -> None:
        assert study is not None
        sweep, trials = self.sweep, journal.trials_of(study)
        labels = search.suggest(
            sweep.space, sweep.base.seed, trials, sweep.at_once, minimize=sweep.minimize
        )
        distributions = {key: of.distribution() for key, of in sweep.space.items()}
        keys = {key: of.value(labels[key]) for key, of in sweep.space.items()}
        journal.add_trial(study, labels, distributions, keys)

    def _take(self, trial: Trial, known: Sequence[Trial]) -> Claim | None:
        lock = self._lock(f"{trial.number:04d}")
        if lock is None:
            return None
        sweep, limits = self.sweep, dict[int, float]()
        if sweep.prunes:
            seen = known[: max(trial.number - sweep.at_once + 1, 0)]
            curves = [each.outcome.curve for each in seen if each.outcome.state != "failed"]
            epochs = trial.keys.get("train.epochs", sweep.base.train.epochs)
            limits = search.thresholds(curves, epochs, minimize=sweep.minimize)
        return Claim(trial, limits, lock)

    def _lock(self, name: str) -> Lock | None:
        return locks.try_lock(self.sweep.folder / LOCKS / name, journal.WITHOUT_LOCKS)


def _check_reasons(trials: Sequence[Trial]) -> None:
    first = trials[:FAILED_ALIKE]
    reasons = {trial.outcome.reason for trial in first if trial.outcome.state == "failed"}
    if len(first) == FAILED_ALIKE and len(reasons) == 1 and all(
        trial.outcome.state == "failed" for trial in first
    ):  # fmt: skip
        raise UserError(
            f"the first {FAILED_ALIKE} trials failed alike, so the others were left out; put it "
            f"right, and start again with --retry_failed, or with another recipe or space in "
            f"another output_dir: {reasons.pop()}"
        )
