"""Rare classes: what each of the three ways brings, by the balanced accuracy.

    python benchmarks/imbalance.py [--seeds 10 11 ...]

A set of 400 and 20 training pictures of two classes that overlap is drawn for each seed: grey noise
of 16 x 16 pixels, whose mean is a third of its deviation higher in one quarter for the rare class;
for the test there are 200 of each. configs/folder.yaml trains on it for 20 epochs, as it is and
with each way. Runs of one thread train side by side, one on each core.
"""

from __future__ import annotations

import json
import shlex
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apart
import numpy as np
import page
from PIL import Image

from trainer.ranks import processes

COUNTS = {"train": (400, 20), "test": (200, 200)}
CLASSES = ("common", "rare")
SIDE = 16
MEAN, DEVIATION = 128.0, 42.0
WAYS = {
    "as it is": "",
    "class weights": "--train.class_weights auto",
    "balanced sampling": "--data.sampling balanced",
    "logit adjustment": "--train.logit_adjustment 1",
    "a list of weights": "--train.class_weights [1,20]",
    "focal loss": "--train.loss focal",
}
EPOCHS = 20


def write_pictures(root: Path, seed: int) -> None:
    """Write the pictures of a seed as root/PART/CLASS/NUMBER.png."""
    random = np.random.default_rng(seed)
    for part, counts in COUNTS.items():
        for name, count in zip(CLASSES, counts, strict=True):
            folder = root / part / name
            folder.mkdir(parents=True)
            pixels = random.normal(MEAN, DEVIATION, (count, SIDE, SIDE))
            if name == "rare":
                pixels[:, : SIDE // 2, : SIDE // 2] += DEVIATION / 3
            for number, picture in enumerate(pixels.round().clip(0, 255).astype(np.uint8)):
                Image.fromarray(picture).save(folder / f"{number:03}.png")


def train(way: str, seed: int, more: Sequence[str]) -> dict[str, Any]:
    """Train once on the pictures of a seed; return the recalls and the balanced accuracy."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pictures(folder / "pictures", seed)
        words = ["--seed", str(seed), "--threads", "1", "--train.epochs", str(EPOCHS)]
        words += [*shlex.split(WAYS[way]), *more]
        root = str(folder / "pictures")
        apart.run(apart.train_command("folder", folder / "run", *words, root=root))
        results = json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))
    recalls = [row["recall"] for row in results["test"]["per_class"]]
    return {"recalls": recalls, "balanced": statistics.mean(recalls)}


def table(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a row for each way: the means over the seeds, and the least and the most."""
    rows = []
    for way, found in runs.items():
        balanced = [one["balanced"] for one in found]
        common, rare = (statistics.mean(one["recalls"][place] for one in found) for place in (0, 1))
        spread = f"{min(balanced):.3f} to {max(balanced):.3f}"
        cells = [way, f"`{WAYS[way]}`" if WAYS[way] else "", f"{statistics.mean(balanced):.3f}"]
        rows.append([*cells, spread, f"{common:.2f}", f"{rare:.2f}"])
    heads = ["way", "key", "balanced accuracy", "least to most", "recall, common", "recall, rare"]
    return page.table(heads, rows)


def main(words: Sequence[str] | None = None) -> None:
    """Train with each way and seed, and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10, 20)))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--more", default="", metavar="WORDS", help="for every run")
    page.add_output(parser, "imbalance.md")
    arguments = parser.parse_args(words)
    more = shlex.split(arguments.more)
    with ThreadPoolExecutor(processes.usable_cores()) as pool:
        runs = {
            way: list(pool.map(lambda seed, way=way: train(way, seed, more), arguments.seeds))
            for way in arguments.ways
        }
    lines = [
        f"{' '.join(line.strip() for line in (__doc__ or '').splitlines()[4:])}".strip(),
        "",
        f"Means over the seeds {', '.join(map(str, arguments.seeds))}. The best that is possible, "
        "with both means known, is 0.91.",
        "",
        *table(runs),
    ]
    command = page.command_of("imbalance.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "Rare classes", command, lines)


if __name__ == "__main__":
    main()
