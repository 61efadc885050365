"""The result of a sweep: sweep.json, and what is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.base.errors import UserError
from trainer.base.terminal import format_table, percent
from trainer.commands.sweep.definition import Sweep
from trainer.commands.sweep.journal import Outcome, Trial
from trainer.commands.sweep.space import word_of
from trainer.run.main_figure import main_figure
from trainer.run.run_folder import read_results

BEST_SHOWN = 5


def ranked(sweep: Sweep, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that came to their end, the best first; of equal ones the lower loss."""

    def rank(trial: Trial) -> tuple[float, float, int]:
        figure, loss = trial.outcome.figure, trial.outcome.loss
        assert figure is not None and loss is not None
        return (figure if sweep.minimize else -figure, loss, trial.number)

    return sorted((trial for trial in trials if trial.outcome.state == "complete"), key=rank)


def summarise(
    sweep: Sweep, trials: Sequence[Trial], importance: dict[str, float] | None
) -> dict[str, Any]:
    """Return what sweep.json contains.

    Args:
        trials: all, the best of them tested.
        importance: of the keys, if there are enough trials to tell.
    """
    best = ranked(sweep, trials)[:1]
    return {
        "judged_by": sweep.judged_by,
        **{name: value for name, value in sweep.as_plain().items() if name != "configuration"},
        "seed": sweep.base.seed,
        "trials": [_row(sweep, trial) for trial in trials],
        "best": _tested(sweep, best[0]) if best else None,
        "importance": importance,
    }


def _row(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    outcome = trial.outcome
    return {
        "trial": trial.number,
        "keys": trial.keys,
        "state": outcome.state,
        "figure": outcome.figure,
        "epoch": outcome.epoch,
        "epochs": len(outcome.curve),
        "curve": list(outcome.curve),
        "validation_loss": outcome.loss,
        "elapsed_s": outcome.elapsed_s,
        "final_weights_sha256": outcome.final_weights_sha256,
        "reason": outcome.reason,
        "command": sweep.command_of(trial.number, trial.keys),
    }


def _tested(sweep: Sweep, best: Trial) -> dict[str, Any]:
    """Return the figures of the best trial, and which others have been tested too.

    These were the best of another number of trials, or somebody has finished their runs.
    """
    results = read_results(sweep.folder_of(best.number))
    name = main_figure(results["test"])
    names = (path.parent.name for path in sweep.folder.glob("trial-*/results.json"))
    numbers = (name.removeprefix("trial-") for name in names)
    tested = sorted(int(number) for number in numbers if number.isdecimal())
    return {
        "trial": best.number,
        "figure": best.outcome.figure,
        "test": {name: results["test"][name], "samples": results["test"]["samples"]},
        "others_tested": [number for number in tested if number != best.number],
    }


def classified_by(best: Mapping[str, Any]) -> str:
    """Return in words which trials have classified the test images besides the best one."""
    others = best["others_tested"]
    if not others:
        return "which no other trial has classified"
    noun, verb = ("trial", "has") if len(others) == 1 else ("trials", "have")
    return f"which {noun} {', '.join(map(str, others))} {verb} classified too"


def line_of(sweep: Sweep, trial: Trial, outcome: Outcome) -> str:
    """Return what is printed when a trial is over."""
    words = {
        "complete": f"{show(sweep, outcome.figure)} after epoch {outcome.epoch}",
        "pruned": f"given up after epoch {len(outcome.curve)}, at {show(sweep, outcome.figure)}",
        "failed": f"failed: {outcome.reason}",
    }[outcome.state]
    return f"trial {trial.number:>3}  {words}  {keys_in_words(trial.keys)}"


def show(sweep: Sweep, figure: float | None) -> str:
    """Return a figure as people read it."""
    if figure is None:
        return "-"
    return f"{figure:.4f}" if sweep.minimize else percent(figure)


def keys_in_words(keys: dict[str, Any]) -> str:
    """Return the keys of a trial in one line."""
    return ", ".join(f"{key} {word_of(value)}" for key, value in keys.items())


def lines(sweep: Sweep, found: dict[str, Any], trials: Sequence[Trial]) -> list[str]:
    """Return the result for people.

    Raises:
        UserError: no trial came to its end.
    """
    best = found["best"]
    if best is None:
        reasons = [trial.outcome.reason for trial in trials if trial.outcome.reason]
        raise UserError(f"no trial came to its end; the first failed because: {reasons[0]}")
    rows = [("trial", sweep.judged_by, *sweep.space)]
    for trial in ranked(sweep, trials)[:BEST_SHOWN]:
        keys = (word_of(trial.keys[key]) for key in sweep.space)
        rows.append((str(trial.number), show(sweep, trial.outcome.figure), *keys))
    states = [trial.outcome.state for trial in trials]
    counts = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
    (name, figure), samples = next(iter(best["test"].items())), best["test"]["samples"]
    return [
        "",
        f"{len(trials)} trials ({counts}); the best by {sweep.judged_by} on validation images:",
        "",
        *format_table(rows, left=()),
        "",
        f"test {name} of trial {best['trial']}  {percent(figure)} of {samples:,} images, "
        f"{classified_by(best)}",
        f"command  {sweep.command_of(best['trial'], _keys(trials, best['trial']))}",
        f"page     {sweep.folder / 'sweep.html'}",
    ]


def _keys(trials: Sequence[Trial], number: int) -> dict[str, Any]:
    return next(trial.keys for trial in trials if trial.number == number)
