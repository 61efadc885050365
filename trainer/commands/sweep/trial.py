"""Train a trial as the run that it is, without its test, and read what it has reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainer.base.errors import StoppedOnRequest, UserError
from trainer.commands.sweep.journal import Outcome
from trainer.commands.sweep.search import is_behind, was_pruned
from trainer.config.schema import ChoiceName, RunConfig
from trainer.run import training_run
from trainer.run.metrics_log import by_event, read_records
from trainer.run.session import Session
from trainer.training.averaging import chooses_final_mean


class _LeftUntested(StoppedOnRequest):
    """The trial is trained as far as the sweep wants it; its run is left as if it was stopped."""


def train_trial(config: RunConfig, limits: Mapping[int, float]) -> None:
    """Train what is left of a trial's run, up to its test; a collective.

    Its command can do the rest at any time.

    Args:
        limits: after an epoch in it the trial is given up if its best figure so far is worse.
    """
    try:
        with Session(config) as session:
            if not session.open():
                return
            engine = training_run.start(session)
            for epoch, limit in sorted(limits.items()):
                engine.fit(until=(epoch + 1, epoch * engine.batches.steps))
                state, by = engine.state, session.config.train.choose_by
                best = state.best_accuracy if by == "first_accuracy" else state.best_figure
                if is_behind(best, limit, minimize=by == "loss"):
                    raise _LeftUntested(f"given up after epoch {epoch}")
            engine.fit()
            raise _LeftUntested("trained, and not tested")
    except _LeftUntested:
        pass


def read_outcome(folder: Path, config: RunConfig, limits: Mapping[int, float]) -> Outcome:
    """Return what a trained trial has reached, from its metrics.jsonl.

    Raises:
        UserError: there are no figures to judge by.
    """
    by = config.train.choose_by
    assert by is not None
    epochs = by_event(read_records(folder / "metrics.jsonl"))[1]
    name = figure_name(by, several_labels=config.data.multi_label)
    curve = [record[name] for record in epochs if record.get(name) is not None]
    if not epochs or len(curve) < len(epochs):
        raise UserError(f"{folder}: has no {name} to judge it by; are there validation images?")
    minimize = by == "loss"
    at = len(epochs) - 1
    if not chooses_final_mean(config.train, len(epochs) + 1):
        losses = [record["validation_loss"] * (by != "first_accuracy") for record in epochs]
        ranks = [figure if minimize else -figure for figure in curve]
        at = min(range(len(epochs)), key=lambda place: (ranks[place], losses[place]))
    return Outcome(
        "pruned" if was_pruned(curve, limits, minimize=minimize) else "complete",
        tuple(curve),
        curve[at],
        at + 1,
        epochs[at]["validation_loss"],
        sum(record["seconds"] or 0.0 for record in epochs),
        epochs[-1]["weights_sha256"],
    )


def figure_name(by: ChoiceName, *, several_labels: bool) -> str:
    """Return the name of what judges a run among the figures of an epoch."""
    if by == "loss":
        return "validation_loss"
    if several_labels:
        return "validation_average_precision"
    return f"validation_{by.removeprefix('first_')}"
