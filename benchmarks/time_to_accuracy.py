"""Seconds of training against accuracy, of several ways to train, and when each is at a bar.

    python benchmarks/time_to_accuracy.py [RACE ...] [--mnist DIR] [--fashion_mnist DIR]
        [--cifar10 ROOT]

Nothing else should run. The ways are those of benchmarks/race; they take turns, each run in a
process of its own. Their packages are looked for in folders below --packages
(benchmarks/README.md); what is not installed is left out. Every run is put into
benchmarks/results/time_to_accuracy.json as it ends, and the same command goes on where it was
stopped; time_to_accuracy.md and .png are made from all that are there. One race, on photographs, is
run by finetune.py and shown from its figures. ROOT is CIFAR-10 as pictures in train/CLASS and
test/CLASS, a folder or an archive; without it that race is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import apart
import finetune
import page
import paired
from race import OURS, RACES, WAYS, Race, Task, held_out, picture, summary

from trainer.ranks import processes

LIMIT_S = 900.0
LONGEST_REASON = 160

INTRODUCTION = """
Seconds are those of the training alone: reading, evaluations, checkpoints' tests and reports are
left out. Accuracies are plain, over all test images, each classified once as it is. Every way is
what its documentation shows for small pictures, with its own rates, schedule and batches; those
that augment clothes mirror them, as our recipe does, and move and mirror the pictures of CIFAR-10;
the net is the one that it shows if that is small, else the lab's, on CIFAR-10 a residual net of 20
layers ([benchmarks/race](../race/__init__.py) has a file each, with its source).
All have the images in memory and both cores, ours as a process each, as its command does.
A curve is the mean over the seeds after each epoch of one run; a schedule that falls to nothing
at its end, as most have, makes the points before its end worse than a shorter run would be. The
bar is reached after the first epoch whose mean is there; points within an epoch, which ours has on
MNIST, are only drawn. What the documentation leaves open, the lengths and the rates for the lab's
net, was set once and not tuned. The lab's and Keras' rates are constant: they may reach a bar with
more epochs (Keras' example has 15). Our recipes were chosen by training images that were held out,
with which `--held_out` runs the races. No choice was made by test images.
""".strip()
NOT_HERE = """
Photographs of clothes, by a net that ImageNet has taught, are measured by a program of its own
([finetune](finetune.md)) and shown in the picture from its figures: each point is a run of its own
length.
""".strip()


def search_path(name: str, packages: Path) -> list[Path]:
    """Return where a way's process looks for modules."""
    folders = [packages / folder for folder in WAYS[name].folders]
    return [Path(__file__).parent, *filter(Path.is_dir, folders)]


def is_installed(name: str, packages: Path) -> bool:
    """Return whether a way's process can import its library."""
    places = [*map(str, (apart.REPOSITORY, *search_path(name, packages))), *sys.path]
    return PathFinder.find_spec(WAYS[name].module, places) is not None


def run(name: str, task: Task, packages: Path) -> dict[str, Any]:
    """Train a way in a new process; return its curve, or why there is none."""
    command = [sys.executable, "-m", "race", name, json.dumps(dataclasses.asdict(task))]
    try:
        printed, process_s = apart.run(command, search=search_path(name, packages), limit_s=LIMIT_S)
    except SystemExit as failed:
        lines = str(failed.code).strip().splitlines()
        return {"failed": lines[-1][:LONGEST_REASON]}
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return {**found, "process_s": process_s}


def is_done(found: dict[str, Any] | None, epochs: int | None) -> bool:
    """Return whether a run need not be repeated: it was this code's, on this kind of machine."""
    if found is None or "failed" in found:
        return False
    here = page.machine()
    return bool(found["machine"] == here and found["epochs"] == epochs and "changes" not in here)


def tasks(arguments: argparse.Namespace, folder: Path) -> dict[str, Task]:
    """Return what is trained on in each race, of the first seed and our recipe's length."""
    found = {}
    for key in arguments.races:
        race = RACES[key]
        data, root = arguments.data or race.data, getattr(arguments, key)
        images = arguments.images or race.images
        if arguments.held_out:
            images = held_out.write(race, root, folder / key)
            data, root = "idx", str(folder / key)
        found[key] = Task(
            key, data, root, images, arguments.epochs, 0, arguments.threads, str(folder / "files")
        )
    return found


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not there yet, and write the page after each run."""
    with tempfile.TemporaryDirectory() as place:
        prepared = tasks(arguments, Path(place))
        for seed in arguments.seeds:
            for key, task in prepared.items():
                for name in arguments.ways[:: -1 if seed % 2 else 1]:
                    epochs = arguments.epochs or RACES[key].epochs.get(name)
                    figures = page.read_figures(arguments.output)
                    runs = figures.setdefault(key, {}).setdefault(name, {})
                    if is_done(runs.get(str(seed)), epochs):
                        continue
                    with tempfile.TemporaryDirectory() as files:
                        one = dataclasses.replace(task, seed=seed, epochs=epochs, folder=files)
                        found = run(name, one, arguments.packages)
                    found |= {"epochs": epochs, "machine": page.machine()}
                    runs[str(seed)] = found
                    print(key, name, seed, found.get("failed") or found["points"][-1], flush=True)
                    write(figures, arguments.output)


def write(figures: page.Figures, output: Path) -> None:
    """Write the figures, the page and the picture."""
    picture.draw(panels(figures), output.with_suffix(".png"), WAYS[OURS].short)
    page.write_quietly(output, figures, build_page(figures))


def panels(figures: page.Figures) -> list[picture.Panel]:
    """Return the panels of the picture: the races here, then those that other programs measure."""
    found = [
        picture.Panel(
            race.title,
            {
                WAYS[name].short: one.drawn
                for name, one in summary.summaries(in_order(figures[key])).items()
            },
            bar=race.bar,
            lowest=race.lowest,
        )
        for key, race in RACES.items()
        if key in figures
    ]
    tuned = page.read_figures(page.RESULTS / "finetune.json")
    curves = {
        SHORT[name]: [(point[1], point[3]) for point in finetune.points(tuned[name])]
        for name in SHORT
        if name in tuned
    }
    found.append(picture.Panel("clothing photographs, fine-tuned", curves, whole_runs=True))
    return found


SHORT = {
    OURS: WAYS[OURS].short,
    "plain": "a plain loop",
    "fastai": WAYS["fastai_learner"].short,
    "lightning": WAYS["lightning_trainer"].short,
    "timm": WAYS["timm_script"].short,
    "transformers": WAYS["hf_trainer"].short,
}
"""names of finetune.py's trainings in the picture"""


def in_order(ways: dict[str, Any]) -> dict[str, Any]:
    """Return the ways of a race in the order of the table."""
    return {name: ways[name] for name in WAYS if name in ways}


def overview(figures: page.Figures) -> list[str]:
    """Return a table of the seconds to each bar, for the README too."""
    races = {key: race for key, race in RACES.items() if key in figures}
    found = {key: summary.summaries(in_order(figures[key])) for key in races}
    rows = []
    for name, way in WAYS.items():
        cells = []
        for key, race in races.items():
            if one := found[key].get(name):
                reached = one.seconds_to(race.bar)
                accuracy, whole_s = statistics.mean(one.accuracies), one.curve[-1][0]
                cells.append(f"{reached:.1f}" if reached else f"{accuracy:.4f} after {whole_s:.1f}")
            else:
                cells.append("")
        if any(cells):
            rows.append([way.title, *cells])
    return page.table(["seconds of training to", *(race.goal for race in races.values())], rows)


def section(key: str, race: Race, ways: dict[str, Any]) -> list[str]:
    """Return what the page says of a race."""
    found, rows = summary.summaries(ways), []
    ours = found[OURS].seconds_to(race.bar) if OURS in found else None
    for name, one in found.items():
        reached = one.seconds_to(race.bar)
        seeds = f"{min(one.accuracies):.4f} to {max(one.accuracies):.4f}"
        rows.append(
            [
                WAYS[name].title,
                ", ".join(one.versions),
                str(len(one.train_s)),
                str(_epochs(ways[name])),
                f"{statistics.median(one.train_s):.1f}",
                f"{statistics.mean(one.accuracies):.4f} ({seeds})",
                f"{reached:.1f}" if reached else "not reached",
                f"{reached / ours:.2f}" if reached and ours else "",
            ]
        )
    heads = ["way", "version", "seeds", "epochs", "seconds", "test accuracy"]
    heads += [f"seconds to {race.bar:.0%}", "over ours"]
    lines = [f"## {race.title}", "", *page.table(heads, rows), ""]
    pairs = summary.shared_seeds(ways, "lab")
    if pairs[0]:
        ratio = paired.spread(paired.ratios(*pairs))
        lines += [f"Our whole training over the lab's, seed by seed: {ratio}.", ""]
    for name, reason in summary.failures(ways).items():
        lines += [f"Failed: {WAYS[name].title}: `{reason}`", ""]
    if absent := [WAYS[name].title for name in WAYS if name not in ways]:
        lines += [f"Not measured: {', '.join(absent)}.", ""]
    return lines


def _epochs(runs: dict[str, Any]) -> int | str:
    """Return how long the runs of a way are: those of ours are in the recipe."""
    found = {run["epochs"] for run in runs.values() if "points" in run}
    return ", ".join("recipe" if one is None else str(one) for one in found)


def build_page(figures: page.Figures) -> list[str]:
    """Return the page."""
    lines = [
        "# Time to accuracy", "", "    python benchmarks/time_to_accuracy.py", "", INTRODUCTION,
        "", "![Test accuracy against seconds of training](time_to_accuracy.png)", "",
        *overview(figures), "",
    ]  # fmt: skip
    for key, race in RACES.items():
        if key in figures:
            lines += section(key, race, in_order(figures[key]))
    lines += ["## Photographs", "", NOT_HERE, *missing_on_photographs(), ""]
    machines = {
        run["machine"] for ways in figures.values() for runs in ways.values()
        for run in runs.values()
    }  # fmt: skip
    return [*lines, "Measured on:", "", *(f"- {machine}" for machine in sorted(machines))]


def missing_on_photographs() -> list[str]:
    """Say which ways the race on photographs lacks, and why."""
    tuned = page.read_figures(page.RESULTS / "finetune.json")
    there = {SHORT[name] for name in SHORT if name in tuned}
    absent = [way.short for name, way in WAYS.items() if way.short not in there and name != OURS]
    return [
        f"Not measured on them: {', '.join(absent)}. Keras has no weights of this net;",
        "for the lab's loop, which fine-tunes nothing, stands a plain one.",
    ]


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("races", nargs="*", metavar="RACE", help=", ".join(RACES))
    parser.add_argument("--ways", nargs="+", metavar="NAME", help=", ".join(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for key in RACES:
        parser.add_argument(f"--{key}", metavar="DIR", help="data.root of these images")
    parser.add_argument(
        "--packages", type=Path, default=Path(sys.prefix), metavar="DIR",
        help="where the folders fastai, keras, lightning, timm and transformers are",
    )  # fmt: skip
    parser.add_argument(
        "--held_out", action="store_true", help="training images in the place of the test images"
    )
    parser.add_argument("--threads", type=int, default=processes.usable_cores())
    parser.add_argument("--epochs", type=int, help="of all ways, for a trial")
    parser.add_argument("--images", type=int, help="the first to train on, for a trial")
    parser.add_argument("--data", help="data.name of all races, for a trial")
    page.add_output(parser, "time_to_accuracy.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.races) - RACES.keys():
        parser.error(f"{', '.join(unknown)}: not a race; there are {', '.join(RACES)}")
    if unknown := set(arguments.ways or []) - WAYS.keys():
        parser.error(f"{', '.join(unknown)}: not a way; there are {', '.join(WAYS)}")
    trial = [arguments.held_out, arguments.epochs, arguments.images, arguments.data]
    if any(trial) and arguments.output == parser.get_default("output"):
        parser.error("a trial or --held_out needs an --output of its own")
    if "cifar10" in arguments.races and not (arguments.cifar10 or arguments.data):
        parser.error("--cifar10 must say where the pictures are")
    if "cifar10" in arguments.races and arguments.held_out:
        parser.error("--held_out writes grey images: it is not for cifar10")
    here = [name for name in RACES if name != "cifar10" or arguments.cifar10]
    arguments.races = arguments.races or here
    arguments.ways = [
        name
        for name in WAYS
        if name in (arguments.ways or WAYS) and is_installed(name, arguments.packages)
    ]
    return arguments


def main() -> None:
    """Measure and write the page."""
    arguments = parse()
    measure(arguments)
    print(arguments.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
