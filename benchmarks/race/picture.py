"""The picture of all races: accuracy against seconds of training, a panel each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = list[tuple[float, float]]

COLUMNS = 2


@dataclass(frozen=True)
class Panel:
    """Curves by the short name of their way.

    Attributes:
        whole_runs: each point is a run of its own.
        bar: accuracy to be reached; None: there is none, and all points are shown.
        lowest: how far below the bar points are shown.
    """

    title: str
    curves: Mapping[str, Points]
    whole_runs: bool = False
    bar: float | None = None
    lowest: float = 0.0


def draw(panels: list[Panel], path: Path, ours: str) -> None:
    """Draw the panels into a file.

    Args:
        ours: the short name of our way, whose curve is thick and black.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(9.5, 3.6 * rows + 0.5), layout="constrained")
    all_axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    others = [name for name in names if name != ours]
    colours = {name: colormaps["tab10"](index) for index, name in enumerate(others)}
    styles: dict[str, dict[str, Any]] = {
        name: {"color": colours[name], "linewidth": 1.3, "zorder": 2} for name in others
    } | {ours: {"color": "black", "linewidth": 2.6, "zorder": 3}}
    handles: dict[str, Any] = {}
    for panel, axes in zip(panels, all_axes, strict=False):
        for name, curve in panel.curves.items():
            seconds, accuracies = zip(*curve, strict=True)
            marker = "o" if panel.whole_runs else None
            handles[name] = axes.plot(
                seconds, accuracies, label=name, marker=marker, markersize=4, **styles[name]
            )[0]
            axes.plot(seconds[-1], accuracies[-1], "o", markersize=5, **styles[name])
        if panel.bar is not None:
            axes.axhline(panel.bar, color="grey", linewidth=0.9, linestyle="--")
            top = max(one for curve in panel.curves.values() for _, one in curve)
            low = panel.bar - panel.lowest
            axes.set_ylim(low, max(top, panel.bar) + (panel.bar - low) / 8)
        if panel.whole_runs:
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=0)
        axes.set_title(panel.title, fontsize="medium")
        axes.set_xlabel("seconds of training")
        axes.set_ylabel("test accuracy")
        axes.grid(alpha=0.3)
    ordered = [name for name in [ours, *others] if name in handles]
    legend = [handles[name] for name in ordered], ordered
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    if len(panels) < len(all_axes):
        all_axes[-1].legend(*legend, loc="center")
    else:
        figure.legend(*legend, fontsize="small", loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)
