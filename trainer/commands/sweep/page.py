"""The page of a sweep, sweep.html."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.base.files import write_text
from trainer.base.terminal import percent
from trainer.commands.sweep import parallel_coordinates as coordinates
from trainer.commands.sweep.definition import Sweep
from trainer.commands.sweep.journal import Trial
from trainer.commands.sweep.parallel_coordinates import Line, Plot
from trainer.commands.sweep.result import (
    BEST_SHOWN,
    classified_by,
    keys_in_words,
    ranked,
    show,
)
from trainer.commands.sweep.space import Choices, word_of
from trainer.config import command_line
from trainer.run.report import pages


def write(sweep: Sweep, found: dict[str, Any], trials: Sequence[Trial]) -> None:
    """Write sweep.html into the folder of a sweep.

    Args:
        found: what sweep.json contains.
    """
    best = ranked(sweep, trials)
    commands = {row["trial"]: row["command"] for row in found["trials"]}
    text = pages.render(
        "sweep.html",
        found=found,
        judged_by=sweep.judged_by.removeprefix("first_").replace("_", " "),
        numbers=_numbers(sweep, found, trials),
        plot=_plot(sweep, trials, best),
        best=[
            {
                "number": trial.number,
                "figure": show(sweep, trial.outcome.figure),
                "tried": keys_in_words(trial.keys),
                "words": _in_options(commands[trial.number]),
            }
            for trial in best[:BEST_SHOWN]
        ],
        keys=list(sweep.space),
        rows=[_row(sweep, trial) for trial in trials],
        failed=[trial for trial in trials if trial.outcome.state == "failed"],
        facts=_facts(sweep, trials),
        config_text=command_line.to_yaml(sweep.base),
    )
    write_text(sweep.folder / "sweep.html", text)


def _in_options(command: str) -> list[str]:
    """Return a command in pieces, of which each keeps an option and its value together."""
    first, *options = command.split(" --")
    return [first, *(f"--{option}" for option in options)]


def _numbers(sweep: Sweep, found: dict[str, Any], trials: Sequence[Trial]) -> dict[str, Any]:
    best, states = found["best"], [trial.outcome.state for trial in trials]
    test = None
    if best:
        (name, figure), samples = next(iter(best["test"].items())), best["test"]["samples"]
        test = {
            "name": name.replace("_", " "),
            "figure": percent(figure),
            "note": f"of {samples:,} images, {classified_by(best)}",
        }
    counts = [f"{states.count(one)} {one}" for one in ("complete", "pruned", "failed")]
    return {
        "best": show(sweep, best["figure"]) if best else "-",
        "number": best["trial"] if best else None,
        "test": test,
        "trials": len(trials),
        "counts": ", ".join(counts),
    }


def _plot(sweep: Sweep, trials: Sequence[Trial], best: Sequence[Trial]) -> Plot | None:
    """Return the plot of the trials with a figure; None: there are none."""
    shown = [trial for trial in trials if trial.outcome.figure is not None]
    if not shown:
        return None
    figures = [trial.outcome.figure or 0.0 for trial in shown]
    low, high = min(figures), max(figures)
    keys = list(sweep.space.items())
    layout = coordinates.Layout(len(keys) + 1)
    axes = [layout.axis_of(key, of, number) for number, (key, of) in enumerate(keys)]
    texts = (show(sweep, low), show(sweep, high))
    name = sweep.judged_by.replace("_", " ")
    axes.append(layout.figure_axis(name, low, high, texts))
    first = {trial.number for trial in best[:BEST_SHOWN]}
    lines = []
    for trial, figure in zip(shown, figures, strict=True):
        places = [
            coordinates.place(of, of.labels[of.values.index(trial.keys[key])])
            if isinstance(of, Choices)
            else coordinates.place(of, trial.keys[key])
            for key, of in keys
        ]
        places.append(coordinates.figure_place(figure, low, high))
        kind = "best" if trial.number in first else trial.outcome.state
        title = f"trial {trial.number}: {show(sweep, figure)}, {keys_in_words(trial.keys)}"
        lines.append(Line(layout.points_of(places), kind, title))
    lines.sort(key=lambda line: ("pruned", "complete", "best").index(line.kind))
    return Plot(
        layout.width,
        coordinates.HEIGHT,
        coordinates.TOP,
        coordinates.BOTTOM,
        tuple(axes),
        tuple(lines),
    )


def _row(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    outcome = trial.outcome
    return {
        "number": trial.number,
        "state": outcome.state,
        "figure": show(sweep, outcome.figure),
        "epochs": len(outcome.curve),
        "duration": pages.duration(outcome.elapsed_s),
        "values": [word_of(trial.keys[key]) for key in sweep.space],
    }


def _facts(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, str]:
    pruning = "no trial was given up"
    if sweep.prunes:
        pruning = "a trial was given up that after an epoch was behind the median of the others"
    return {
        "Sampler": "Optuna's TPE, the first ten trials at random",
        "Seed": f"{sweep.base.seed}, that of the recipe",
        "At once": f"at most {sweep.at_once} trials: each has learnt from those up to "
        f"{sweep.at_once} before it",
        "Pruning": pruning,
        "Training": f"{pages.duration(sum(trial.outcome.elapsed_s for trial in trials))} in all",
    }
