"""What each choice of a recipe brings, measured only on validation images.

    python benchmarks/ablations.py STUDY [VARIANT ...] [--seeds 0 1 ...] [--root DIR]

ablations.yaml has the studies: a recipe, and variants of it that change a few keys. Runs of one
thread train side by side, one on each core. Every run is put into benchmarks/results/ablations.json
as it ends; ablations.md is written from all that are there.
"""

from __future__ import annotations

import json
import shlex
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import apart
import page
import yaml

from trainer.ranks import processes
from trainer.run.metrics_log import read_records

STUDIES: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
BASE = "base"

INTRODUCTION = """
Accuracy on held-out training images at the end of the run; no test image is looked at. Where a
study says nothing else, 10,000 of the first 20,000 training images of Fashion-MNIST train, as
many as in the lab's protocol, and the other 10,000, drawn by the seed, validate. Their number
gives an accuracy a standard error of 0.003, but variants of one seed share the images, and differ
by less.
""".strip()


def format_changes(changes: dict[str, Any]) -> str:
    """Format dotted keys and values for people."""
    return ", ".join(
        f"`{key}: {value if isinstance(value, str) else json.dumps(value)}`"
        for key, value in changes.items()
    )


def recipe(study: str, variant: str) -> str:
    """Return the YAML file of a run."""
    sections: dict[str, Any] = {}
    changes = STUDIES[study]["base"] | STUDIES[study]["variants"].get(variant, {})
    for key, value in changes.items():
        section, name = key.split(".", 1)
        sections.setdefault(section, {})[name] = value
    return yaml.safe_dump(sections)


def run(study: str, variant: str, seed: int, root: str | None) -> dict[str, Any]:
    """Train once."""
    with tempfile.TemporaryDirectory() as folder:
        file, output = Path(folder, "recipe.yaml"), Path(folder, "run")
        file.write_text(recipe(study, variant), encoding="utf-8")
        words = ["--seed", str(seed), "--threads", "1", "--checkpoint.every_epochs", "null"]
        apart.run(apart.train_command(file, output, *words, root=root))
        records = list(read_records(output / "metrics.jsonl"))
    last = [record for record in records if record["event"] == "epoch"][-1]
    return {
        "accuracy": last["validation_accuracy"],
        "loss": last["validation_loss"],
        "train_accuracy": last["train_accuracy"],
        "commit": page.commit(),
    }


def table(study: str, figures: dict[str, Any]) -> list[str]:
    """Write a row for each variant, the best first."""
    base = figures.get(BASE, {})
    rows = []
    for variant, runs in figures.items():
        changes = format_changes(STUDIES[study]["variants"].get(variant, {}))
        gains = [runs[seed]["accuracy"] - base[seed]["accuracy"] for seed in runs if seed in base]
        mean = statistics.mean(one["accuracy"] for one in runs.values())
        trained = statistics.mean(one["train_accuracy"] for one in runs.values())
        cells = [variant, changes, str(len(runs)), f"{mean:.4f}"]
        cells += [f"{statistics.mean(gains):+.4f}" if gains else "", f"{trained:.4f}"]
        rows.append((-mean, cells))
    heads = ["variant", "changes", "seeds", "accuracy", "over the base", "training accuracy"]
    return page.table(heads, (cells for _, cells in sorted(rows)))


def build_page(figures: page.Figures) -> list[str]:
    """Return the page of all studies."""
    runs = [one for found in figures.values() for each in found.values() for one in each.values()]
    commits = ", ".join(dict.fromkeys(one["commit"] for one in runs))
    lines = ["# Ablations", "", INTRODUCTION, "", f"Measured at the commits {commits}.", ""]
    for study, found in ((study, figures[study]) for study in STUDIES if study in figures):
        base = STUDIES[study]["base"]
        lines += [f"## {study}", "", f"    python benchmarks/ablations.py {shlex.quote(study)}", ""]
        lines += [f"{STUDIES[study]['about']} The base: {format_changes(base)}.", ""]
        lines += [*table(study, found), ""]
    return lines


def main(words: Sequence[str] | None = None) -> None:
    """Train, and write the page after each run."""
    parser = page.parser(__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="without any: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--root", help="data.root")
    page.add_output(parser, "ablations.json")
    arguments = parser.parse_args(words)
    study, known = arguments.study, [BASE, *STUDIES[arguments.study]["variants"]]
    if unknown := set(arguments.variants) - set(known):
        parser.error(f"{', '.join(unknown)}: not a variant; there are {', '.join(known)}")
    with ThreadPoolExecutor(processes.usable_cores()) as pool:
        runs = {
            pool.submit(run, study, variant, seed, arguments.root): (variant, seed)
            for variant in arguments.variants or known
            for seed in arguments.seeds
        }
        for done in as_completed(runs):
            variant, seed = runs[done]
            figures = page.read_figures(arguments.output)
            figures.setdefault(study, {}).setdefault(variant, {})[str(seed)] = done.result()
            page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
