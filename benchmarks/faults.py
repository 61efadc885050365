"""The fault campaign: what is killed or damaged, and whether anything was ever lost.

    python benchmarks/faults.py kills --data digits --runs 60                      1 hour
    python benchmarks/faults.py kills --data fashion_mnist --runs 20 [--root DIR]  30 minutes
    python benchmarks/faults.py saves                                              1 minute
    python benchmarks/faults.py flips --draws 400                                  1 minute
    python benchmarks/faults.py report                                             the page again

Each puts its figures into benchmarks/results/faults.json and writes faults.md from all that are
there. --seed decides what is drawn. Runs are in the folder for temporary files (TMPDIR); one that
lost something stays there, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import fault_flips
import fault_kills
import fault_saves
import numpy as np
import page
from fault_runs import RECIPES

Found = dict[str, Any]
"""`what` was done; `runs`, the trainings, saves or openings that were disturbed; `faults`, kills or
damaged files; `losses`; and `notes`"""


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
    return {
        "what": f"training on {arguments.data} is killed and started again",
        "runs": len(outcomes),
        "faults": sum(len(outcome.kills) for outcome in outcomes),
        "losses": sum(bool(outcome.problems) for outcome in outcomes),
        "notes": fault_kills.summarise(outcomes),
    }


def saves(arguments: argparse.Namespace, folder: Path) -> Found:
    """Kill saves."""
    generator = np.random.default_rng(arguments.seed)
    without_strace = fault_saves.why_no_strace()
    trials: list[fault_saves.Trial] = []
    for scenario in fault_saves.SCENARIOS:
        trials += fault_saves.kill_by_reports(scenario)
        if without_strace is None:
            trials += fault_saves.kill_by_strace(scenario, arguments.draws, generator)
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
    return {
        "what": "saving a checkpoint is killed",
        "runs": len(trials),
        "faults": len(killed),
        "losses": len(lost),
        "notes": notes,
    }


def flips(arguments: argparse.Namespace, folder: Path) -> Found:
    """Damage checkpoints."""
    draws = list(fault_flips.run(folder, arguments.draws, arguments.seed))
    resumed = list(fault_flips.resume(folder, arguments.seed))
    lost = [draw for draw in [*draws, *resumed] if draw.problem]
    for draw in lost:
        print(f"{draw}: {draw.problem}", flush=True)
    by_damage = Counter(draw.case.damage for draw in draws)
    by_file = Counter(draw.case.file for draw in draws)
    return {
        "what": "a checkpoint's file is damaged",
        "runs": len(draws) + len(resumed),
        "faults": len(draws) + len(resumed),
        "losses": len(lost),
        "notes": [
            "Damage: " + ", ".join(f"{name} {count}" for name, count in by_damage.items()) + ".",
            "Files: " + ", ".join(f"{name} {count}" for name, count in by_file.items()) + ".",
            f"{len(resumed)} more, one a file, were then trained to the end, with the same bits.",
        ],
    }


COMMANDS = {"kills": kills, "saves": saves, "flips": flips}


def build_page(figures: page.Figures) -> list[str]:
    """Return the page of all the figures."""
    measured = [figures[key] for key in sorted(figures)]
    rows = [
        [one["what"], *(f"{one[key]:,}" for key in ("runs", "faults", "losses"))]
        for one in measured
    ]
    lines = [
        "# Faults, and what they cost",
        "",
        "A loss is a run that does not end with the weights and the record of the undisturbed",
        "run, a process that lives on, or a checkpoint that is not there whole.",
        "",
        *page.table(["what", "disturbed", "faults", "losses"], rows),
    ]
    for one in measured:
        title = f"{one['what'][0].upper()}{one['what'][1:]}"
        lines += ["", *page.section(title, one, [f"- {note}" for note in one["notes"]])]
    return lines


def parse() -> argparse.Namespace:
    """Parse the command line."""
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


def main() -> int:
    """Run the command; return 1 if something was lost, 0 otherwise."""
    arguments = parse()
    what, usual = arguments.what, argparse.Namespace(jobs=1)
    figures = page.read_figures(arguments.output)
    losses = 0
    if what in COMMANDS:
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        command = page.command_of(f"faults.py {what}", arguments, usual, "what")
        found = page.measure(command, lambda: COMMANDS[what](arguments, folder))
        losses = found["losses"]
        if not losses:
            shutil.rmtree(folder)
        figures[f"{what} {getattr(arguments, 'data', '')}".strip()] = found
    page.write_figures(arguments.output, figures, build_page(figures))
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
