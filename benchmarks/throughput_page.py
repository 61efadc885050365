"""The page of throughput.py."""

from __future__ import annotations

import dataclasses
import statistics

import page
import paired
from contenders import BOUNDS, CONTENDERS, ONE_PROCESS, OURS, PEERS
from throughput_cases import CASES, Figures

TITLE = "Images per second, compared with other trainers"
INTRODUCTION = """
Only training: no evaluation, no checkpoints, no progress bars. All have the same model, the same
images, batch size, Adam at a constant 1e-3, float32 and cores. Each trainer trains an epoch when it
is its turn; the order turns round each round, the first round of a process is not counted, and
ratios are formed within a round: their median, and the quartiles in brackets. A process keeps about
the speed that it starts with, one a tenth more than another, so each trainer may be started several
times; the rounds of all its processes count.

Ours is the engine as `train.py` builds it, with its log and its digests, in two forms: as the
command runs where a batch has as many pieces as there are cores, which is a process of one thread
for each; and as one process of all threads, with the whole batch in one piece. The others are one
process of all threads, written as their documentation shows it (`benchmarks/contenders/`, with the
sources), without what an argument turns off: log files, clipping, schedules. The compute bound is
forward, backward and step on one batch in memory, with channels_last, fused Adam and the allocator
set, and nothing else, in both forms: processes of one thread have their part of the batch and
exchange nothing. It augments nothing and reads no files.

Images are in memory. Augmentation is a horizontal flip and a shift of up to 2 pixels. The others do
it image by image as torchvision's RandomHorizontalFlip and RandomCrop with padding do, written only
with torch, as torchvision cannot be imported next to a CPU build of torch. Photographs are JPEG
files that all read again in each epoch, crop at random and mirror: ours by its threads, the others
by torchvision's or timm's transforms in two worker processes, which stay from epoch to epoch.
""".strip()


def build_page(figures: page.Figures) -> list[str]:
    """Return the page of all cases so far."""
    measured = [Figures(**figures[name]) for name in CASES if name in figures]
    rows = [
        [CASES[one.case].title if form == one.forms()[0] else "", *cells(one, form)]
        for one in measured
        for form in one.forms()
    ]
    heads = ["case", "Lockstep", "images/s", "over the best of the others", "over its bound"]
    lines = [f"# {TITLE}", "", "    python benchmarks/throughput.py", "", INTRODUCTION, ""]
    lines += [*page.table([*heads, "one process's bound over the best"], rows), ""]
    lines += overview(measured)
    return [*lines, *(line for one in measured for line in section(one))]


def cells(figures: Figures, form: str) -> list[str]:
    """Return what a row says of one of our forms."""
    best, bound = figures.best_peer(), figures.bound_of(form)
    of_one = figures.bound_of(ONE_PROCESS)
    return [
        "default" if form == OURS else "one process",
        f"{statistics.median(figures.images_per_second(form)):,.0f}",
        f"{paired.spread(figures.ratios(best, form))}, {CONTENDERS[best].title}",
        paired.spread(figures.ratios(bound, form)) if bound else "",
        f"{statistics.median(figures.ratios(best, of_one)):.3f}" if of_one else "",
    ]


def overview(measured: list[Figures]) -> list[str]:
    """Compare our throughput with each of the others, in all cases; the README has it too."""
    rows = [
        [
            CONTENDERS[name].title,
            *(
                f"{statistics.median(one.ratios(name, one.forms()[0])):.2f}"
                if name in one.seconds
                else ""
                for one in measured
            ),
        ]
        for name in PEERS
    ]
    titles = [CASES[one.case].title for one in measured]
    return page.table(["Lockstep's images/s over those of", *titles], rows)


def section(figures: Figures) -> list[str]:
    """Return the section of one case."""
    case = CASES[figures.case]
    lines = [
        f"{figures.threads} threads, "
        f"`{case.model}`, {figures.images:,} images an epoch in batches of {figures.batch_size}.",
        f"Each trainer was started {'once' if figures.groups == 1 else f'{figures.groups} times'}.",
        f"With {', '.join(f'{name} {number}' for name, number in figures.versions.items())}.",
    ]
    if figures.left_out:
        titles = ", ".join(CONTENDERS[name].title for name in figures.left_out)
        lines += [f"Left out, as not installed: {titles}."]
    forms, rows = figures.forms(), []
    for name in (name for name in CONTENDERS if name in figures.seconds):
        speeds = figures.images_per_second(name)
        numbers = (min(speeds), statistics.median(speeds), max(speeds))
        against = [
            paired.spread(figures.ratios(name, form)) if _is_compared(name, form) else ""
            for form in forms
        ]
        rows.append([CONTENDERS[name].title, *(f"{number:,.0f}" for number in numbers), *against])
    overs = {OURS: "ours over it", ONE_PROCESS: "our one process over it"}
    heads = ["trainer", "images/s: least", "median", "most", *(overs[form] for form in forms)]
    lines += ["", *page.table(heads, rows)]
    return ["", *page.section(case.title, dataclasses.asdict(figures), lines)]


def _is_compared(name: str, form: str) -> bool:
    """Return whether a ratio says something: our forms are compared with their own bounds."""
    return name != form and (name not in BOUNDS.values() or name == BOUNDS[form])
