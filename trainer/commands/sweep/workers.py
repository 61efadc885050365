"""Do the trials of a sweep, some at the same time, and test the best."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial

from trainer.base import output_streams
from trainer.base.errors import UserError
from trainer.commands.sweep.claims import Claim, Claims
from trainer.commands.sweep.definition import ChangedError
from trainer.commands.sweep.jobs import Job, Jobs
from trainer.commands.sweep.journal import Outcome, Trial
from trainer.commands.sweep.trial import read_outcome, train_trial
from trainer.config.run_status import read_status
from trainer.config.schema import folder_of
from trainer.run.training_run import run_training

MOST_KILLED = 3
"""a trial whose process was killed so often, as where memory is short, has failed"""

Say = Callable[[Trial, Outcome], object]


def do_trials(claims: Claims, jobs: Jobs, count: int, say: Say) -> None:
    """Do trials until all are over, also those that other commands do.

    Args:
        count: how many at the same time.
        say: prints what has become of a trial.

    Raises:
        StoppedOnRequest: asked to; what was done is saved.
        UserError: the sweep cannot go on, whichever trials it has.
    """
    begun: dict[str | None, Claim] = {}
    killed: Counter[int] = Counter()

    def end(claim: Claim, outcome: Outcome) -> None:
        claims.end(claim, outcome)
        say(claim.trial, outcome)

    while True:
        while not jobs.is_asked() and len(jobs.running) < count and (claim := claims.claim()):
            trial = claim.trial
            try:
                config = claims.sweep.config_of(trial.number, trial.keys)
            except ChangedError:
                raise
            except UserError as error:
                end(claim, Outcome("failed", reason=str(error)))
                continue
            begun[config.output_dir] = claim
            jobs.start(config, partial(train_trial, config, claim.limits), claim.lock)
        if not jobs.running and claims.are_over():
            return
        for job in jobs.wait():
            claim = begun.pop(job.config.output_dir)
            killed[claim.trial.number] += (job.exit_code or 0) < 0
            if (job.exit_code or 0) < 0 and killed[claim.trial.number] < MOST_KILLED:
                claim.lock.release()  # to be claimed again when its last process has ended
            else:
                end(claim, _outcome_of(job, claim))


def test(claims: Claims, jobs: Jobs, best: Trial) -> None:
    """Do the rest of the best trial's run, its test; nothing if it is done.

    Raises:
        StoppedOnRequest: asked to, perhaps when the last trial had just ended.
        UserError: the test failed.
    """
    config = claims.sweep.config_of(best.number, best.keys)
    if read_status(folder_of(config)).state == "finished":
        return
    while jobs.is_asked() or (lock := claims.take_test()) is None:  # another command does it
        jobs.wait()
    if read_status(folder_of(config)).state != "finished":
        jobs.start(config, partial(run_training, config), lock)
    while jobs.running:
        for job in jobs.wait():
            if job.exit_code:
                raise UserError(
                    f"{folder_of(config)}: testing the best trial failed: {job.reason()}"
                )
    lock.release()


def _outcome_of(job: Job, claim: Claim) -> Outcome:
    """Return what has become of a trial whose process has ended.

    Raises:
        UserError: the disk is full, which is no fault of the trial.
    """
    if job.exit_code:
        reason = job.reason()
        if any(os.strerror(number) in reason for number in output_streams.DISK_FULL):
            raise UserError(reason)
        return Outcome("failed", reason=reason)
    try:
        return read_outcome(folder_of(job.config), job.config, claim.limits)
    except UserError as error:
        return Outcome("failed", reason=str(error))
