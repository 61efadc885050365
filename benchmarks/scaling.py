"""How the trainer grows: with processes, batches, images and models; and where its time goes.

    python benchmarks/scaling.py processes            1 and 2 processes, four models; 15 minutes
    python benchmarks/scaling.py batch                batch sizes; 35 minutes
    python benchmarks/scaling.py images [--root DIR]  small sets and one of 2 million; 4 minutes
    python benchmarks/scaling.py profile              the parts of a step; 2 minutes
    python benchmarks/scaling.py exchange             the exchange by itself; 2 minutes
    python benchmarks/scaling.py model                the cost model's tables for clusters
    python benchmarks/scaling.py report               the page again

The first five put their figures into benchmarks/results/scaling.json and write scaling.md from all
that are there. `model` prints what docs/scaling.md shows. The synthetic set is in the folder for
temporary files (TMPDIR) while it is used: 1.6 GB. Nothing else should run.
"""

from __future__ import annotations

import argparse

import cost_model
import page
import scaling_exchange
import scaling_images
import scaling_profile
import scaling_steps

COMMANDS = {
    "processes": (scaling_steps.processes, scaling_steps.processes_page),
    "batch": (scaling_steps.batch, scaling_steps.batch_page),
    "images": (scaling_images.images, scaling_images.images_page),
    "profile": (scaling_profile.profiles, scaling_profile.profiles_page),
    "exchange": (scaling_exchange.exchanges, scaling_exchange.exchanges_page),
}
"""what measures, and what writes its section"""
TITLES = {
    "processes": "One process and two, small models and large",
    "batch": "Batch sizes",
    "images": "Numbers of images",
    "profile": "Where the time of a step goes",
    "exchange": "The exchange by itself",
}


def build_page(figures: page.Figures) -> list[str]:
    """Return the page of all the figures."""
    lines = ["# Growth", ""]
    for name, (_, write_section) in COMMANDS.items():
        if found := figures.get(name):
            lines += [*page.section(TITLES[name], found, write_section(found["figures"])), ""]
    return lines


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = page.parser(__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    one = {name: commands.add_parser(name) for name in [*COMMANDS, "model", "report"]}
    for name in [*COMMANDS, "report"]:
        page.add_output(one[name], "scaling.json")
    for name in ("processes", "batch"):
        one[name].add_argument("--launches", type=int, default=5, help="of each case, in turn")
    for name in ("batch", "profile"):
        one[name].add_argument("--processes", type=int, nargs="+", default=[1, 2])
    for name, known in (("processes", scaling_steps.MODELS), ("profile", scaling_profile.CASES)):
        one[name].add_argument("--models", nargs="+", choices=known, default=list(known))
    one["processes"].add_argument("--batch_size", type=int, default=200)
    one["batch"].add_argument("--sizes", type=int, nargs="+", default=[20, 40, 100, 200, 400, 800])
    one["batch"].add_argument(
        "--block_images", type=int, default=scaling_steps.BATCH_BLOCK_IMAGES, help="of a timing"
    )
    one["images"].add_argument("--sizes", type=int, nargs="*", default=[10_000, 30_000, 60_000])
    one["images"].add_argument("--synthetic", type=int, nargs="*", default=[1_000_000, 2_000_000])
    one["images"].add_argument("--seconds", type=float, default=20.0, help="of training")
    one["images"].add_argument("--root", help="data.root of Fashion-MNIST")
    one["profile"].add_argument("--steps", type=int, default=40, help="of an epoch")
    one["exchange"].add_argument("--processes", type=int, nargs="+", default=[2, 3, 4, 6, 8])
    one["exchange"].add_argument("--floats", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    one["exchange"].add_argument("--rounds", type=int, default=5)
    return parser


def main() -> None:
    """Run the command."""
    arguments = parser().parse_args()
    what = arguments.what
    if what == "model":
        print("\n".join(cost_model.cluster_tables()))
        return
    figures = page.read_figures(arguments.output)
    if what in COMMANDS:
        command = page.command_of(f"scaling.py {what}", arguments, parser().parse_args([what]))
        measure, _ = COMMANDS[what]
        figures[what] = page.measure(command, lambda: {"figures": measure(arguments)})
    page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
