"""The fault campaign: what is killed or damaged, and whether anything was ever lost.

    python benchmarks/faults.py kills --data digits --runs 60                      1 hour
    python benchmarks/faults.py kills --data fashion_mnist --runs 20 [--root DIR]  30 minutes
    python benchmarks/faults.py saves                                              1 minute
    python benchmarks/faults.py flips --draws 400                                  1 minute
    python benchmarks/faults.py report                                             the page again

Each puts its figures into benchmarks/results/faults.json and writes faults.md from all that are
there. What is drawn comes from --seed. Runs are in the folder for temporary files (TMPDIR), where
one that lost something stays; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import fault_flips
import fault_kills
import fault_saves
import numpy as np
import page
from fault_runs import RECIPES


@dataclasses.dataclass(frozen=True)
class Found:
    """What a command found."""

    what: str
    runs: int
    """trainings, saves or openings that were disturbed"""
    faults: int
    """kills, or damaged files"""
    losses: int
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Figures(Found):
    """An entry of faults.json."""

    command: str
    minutes: float
    machine: str


def kills(arguments: argparse.Namespace, folder: Path) -> Found:
    """Kill runs of a recipe."""
    recipe = dataclasses.replace(RECIPES[arguments.data], root=arguments.root)
    campaign = fault_kills.Campaign(
        recipe, folder, arguments.runs, arguments.seed, jobs=arguments.jobs
    )
    outcomes = []
    for outcome in fault_kills.run(campaign):
        outcomes.append(outcome)
        print(outcome, flush=True)
        if outcome.problems:
            print(f"    kept: {outcome.folder}", flush=True)
    return Found(
        f"training on {arguments.data} is killed and started again",
        runs=len(outcomes),
        faults=sum(len(outcome.kills) for outcome in outcomes),
        losses=sum(bool(outcome.problems) for outcome in outcomes),
        notes=fault_kills.summary(outcomes),
    )


def saves(arguments: argparse.Namespace, folder: Path) -> Found:
    """Kill saves."""
    generator = np.random.default_rng(arguments.seed)
    without_strace = fault_saves.why_no_strace()
    trials = []
    for scenario in fault_saves.SCENARIOS:
        trials += list(fault_saves.by_reports(scenario))
        if without_strace is None:
            trials += list(fault_saves.by_strace(scenario, arguments.draws, generator))
    killed = [trial for trial in trials if trial.killed]
    lost = [trial for trial in trials if trial.problem]
    for trial in lost:
        print(f"{trial.scenario}, {trial.how}, at {trial.place}: {trial.problem}", flush=True)
    counts = Counter((trial.scenario, trial.how) for trial in killed)
    notes = [
        f"Saving {scenario}: {count} kills at {how}." for (scenario, how), count in counts.items()
    ]
    if without_strace:
        notes.append(f"Without the system calls: {without_strace}.")
    return Found("saving a checkpoint is killed", len(trials), len(killed), len(lost), notes)


def flips(arguments: argparse.Namespace, folder: Path) -> Found:
    """Damage checkpoints."""
    draws = list(fault_flips.run(folder, arguments.draws, arguments.seed))
    resumed = list(fault_flips.resumed(folder, arguments.seed))
    lost = [draw for draw in [*draws, *resumed] if draw.problem]
    for draw in lost:
        print(f"{draw}: {draw.problem}", flush=True)
    by_damage = Counter(draw.case.damage for draw in draws)
    by_file = Counter(draw.case.file for draw in draws)
    return Found(
        "a checkpoint's file is damaged",
        runs=len(draws) + len(resumed),
        faults=len(draws) + len(resumed),
        losses=len(lost),
        notes=[
            "Damage: " + ", ".join(f"{name} {count}" for name, count in by_damage.items()) + ".",
            "Files: " + ", ".join(f"{name} {count}" for name, count in by_file.items()) + ".",
            f"{len(resumed)} more, one a file, were then trained to the end, with the same bits.",
        ],
    )


COMMANDS = {"kills": kills, "saves": saves, "flips": flips}


def build_page(figures: page.Figures) -> list[str]:
    """The page of all the figures."""
    measured = [Figures(**figures[key]) for key in sorted(figures)]
    lines = [
        "# Faults, and what they cost",
        "",
        "A loss is a run that does not end with the weights and the record of the run that was",
        "left alone, a process that lives on, or a checkpoint that is not there whole.",
        "",
        "| what | disturbed | faults | losses |",
        "| --- | --- | --- | --- |",
        *(f"| {f.what} | {f.runs:,} | {f.faults:,} | {f.losses:,} |" for f in measured),
    ]
    for f in measured:
        title, notes = f"{f.what[0].upper()}{f.what[1:]}", [f"- {note}" for note in f.notes]
        lines += ["", *page.section(title, dataclasses.asdict(f), notes)]
    return lines


def parse() -> argparse.Namespace:
    """The command line."""
    parser = page.parser(__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    one = {name: commands.add_parser(name) for name in [*COMMANDS, "report"]}
    for command in one.values():
        page.add_output(command, "faults.json")
    for name in COMMANDS:
        one[name].add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    one["kills"].add_argument("--data", choices=RECIPES, required=True)
    one["kills"].add_argument("--runs", type=int, required=True)
    one["kills"].add_argument("--root", help="data.root of the runs")
    one["kills"].add_argument("--jobs", type=int, default=1, help="how many side by side")
    one["saves"].add_argument("--draws", type=int, help="of the system calls; all of them")
    one["flips"].add_argument("--draws", type=int, default=400, help="how many damages")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> Figures:
    """Do what a command says; where nothing was lost, nothing stays but its figures."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    start_s = time.monotonic()
    found = COMMANDS[arguments.what](arguments, folder)
    minutes = (time.monotonic() - start_s) / 60
    if not found.losses:
        shutil.rmtree(folder)
    return Figures(
        **dataclasses.asdict(found),
        command=page.command_of(
            f"faults.py {arguments.what}", arguments, argparse.Namespace(jobs=1), "what"
        ),
        minutes=minutes,
        machine=page.machine(),
    )


def main() -> int:
    """The command; 1 where something was lost."""
    arguments = parse()
    figures = page.read_figures(arguments.output)
    losses = 0
    if arguments.what != "report":
        measured = measure(arguments)
        losses = measured.losses
        key = f"{arguments.what} {getattr(arguments, 'data', '')}".strip()
        figures[key] = dataclasses.asdict(measured)
    page.write_figures(arguments.output, figures, build_page(figures))
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
