"""Time optimiser steps: on one process and on two, of small nets and large, by batch size."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import apart
import page
import paired
from cost_model import GRADIENT_BYTES, fit_link, ideal_step_s
from lockstep import STEP_TIMES
from quicknet_case import QUICKNET

Figures = dict[str, Any]

MODELS: dict[str, dict[str, Any]] = {
    "lab net": {"model": "lab_cnn", "model_args": {}, "optimizer": "adam", "steps": 40},
    "quicknet": {"steps": 20},
    "VGG of 1 M": {
        "model": "vgg_small",
        "model_args": {"widths": [16, 32, 128, 256]},
        "optimizer": "sgd",
        "steps": 10,
    },
    "VGG of 10 M": {
        "model": "vgg_small",
        "model_args": {"widths": [16, 32, 256, 896]},
        "optimizer": "sgd",
        "steps": 3,
    },
}
"""what differs from `QUICKNET`, and how many steps make a block"""

ROUNDS = 3
"""blocks of a launch, of which the fastest counts"""
BATCH_BLOCK_IMAGES = 4000


def fastest_step_s(processes: int, case: dict[str, Any]) -> tuple[dict[str, float], int]:
    """Launch once; return each trainer's time of a step, and the model's number of parameters."""
    found = apart.measure(STEP_TIMES, case | {"rounds": ROUNDS}, processes)
    seconds = {name: min(blocks) / case["steps"] for name, blocks in found["seconds"].items()}
    return seconds, found["parameters"]


def processes(arguments: argparse.Namespace) -> Figures:
    """Time one process, one with a rank's part of two, and two, launched in turn."""
    figures: Figures = {name: {"steps_s": []} for name in arguments.models}
    for _ in range(arguments.launches):
        for name in arguments.models:
            case = QUICKNET | MODELS[name] | {"batch_size": arguments.batch_size}
            half = {key: case[key] // 2 for key in ("batch_size", "microbatches")}
            one, parameters = fastest_step_s(1, case | {"trainers": ["exact", "optimiser only"]})
            part, _ = fastest_step_s(1, case | half | {"trainers": ["exact"]})
            two, _ = fastest_step_s(2, case | {"trainers": ["exact", "reduction only"]})
            figures[name]["parameters"] = parameters
            figures[name]["steps_s"].append(
                {
                    "one": one["exact"],
                    "optimiser": one["optimiser only"],
                    "part": part["exact"],
                    "two": two["exact"],
                    "reduction": two["reduction only"],
                }
            )
            print(name, figures[name]["steps_s"][-1], flush=True)
    return {"batch_size": arguments.batch_size, "models": figures}


def processes_page(figures: Figures) -> list[str]:
    """Write a row for each model: medians of the launches, and ratios of neighbouring ones."""
    rows = []
    for name, found in figures["models"].items():
        ratios = [times["one"] / times["two"] for times in found["steps_s"]]
        one, two, exchange, optimiser = (
            _milliseconds(found, key) for key in ("one", "two", "reduction", "optimiser")
        )
        parameters, faster = f"{found['parameters']:,}", paired.spread(ratios)
        rows.append([name, parameters, one, two, faster, exchange, optimiser])
    heads = ["model", "parameters", "one process", "two", "times as fast", "exchange", "optimiser"]
    lines = [
        "Processes of one thread, launched in turn; a step of the global batch of "
        f"{figures['batch_size']} in four pieces.",
        "",
        *page.table(heads, rows),
    ]
    if len(figures["models"]) > 1:
        lines += ["", *prediction(figures["models"])]
    return lines


def prediction(models: Figures) -> list[str]:
    """Compare the cost model, fitted only to the exchanges, with what was measured."""
    sizes = {name: GRADIENT_BYTES * found["parameters"] for name, found in models.items()}
    exchanges = [_median(found, "reduction") for found in models.values()]
    link = fit_link(list(sizes.values()), exchanges)
    rows = []
    for name, found in models.items():
        exchange_s = link.message_s(sizes[name])
        two_s = _median(found, "two")
        divided_s = ideal_step_s(
            _median(found, "one"), _median(found, "optimiser"), exchange_s, processes=2
        )
        part_s = _median(found, "part") + exchange_s
        cells = [name, f"{exchange_s * 1e3:.1f} ms", _milliseconds(found, "reduction")]
        cells += [f"{s * 1e3:.1f} ms ({s / two_s:.2f})" for s in (divided_s, part_s)]
        rows.append([*cells, _milliseconds(found, "two")])
    heads = ["model", "exchange: model", "measured"]
    heads += ["step of two: divided", "its part", "measured"]
    return [
        "The cost model of [docs/scaling.md](../../docs/scaling.md), fitted to the exchanges:",
        f"latency {link.latency_s * 1e3:.2f} ms, bandwidth {link.bytes_per_s / 1e9:.2f} GB/s.",
        "*Divided* takes all but the optimiser of one process's step by two, *its part* is the",
        "measured step of one process with one rank's pieces; the exchange is added to both.",
        "",
        *page.table(heads, rows),
        "",
        "In brackets: over what was measured.",
    ]


def batch(arguments: argparse.Namespace) -> Figures:
    """Time QuickNet by batch size, each size on one process and on two, in turn."""
    rates: dict[str, dict[str, list[float]]] = {
        str(count): {str(size): [] for size in arguments.sizes} for count in arguments.processes
    }
    for _ in range(arguments.launches):
        for size in arguments.sizes:
            steps = max(1, arguments.block_images // size)
            case = QUICKNET | {"batch_size": size, "steps": steps, "trainers": ["exact"]}
            for count in arguments.processes:
                seconds, _ = fastest_step_s(count, case)
                rates[str(count)][str(size)].append(size / seconds["exact"])
                print(size, count, rates[str(count)][str(size)][-1], flush=True)
    return {"images_per_s": rates}


def batch_page(figures: Figures) -> list[str]:
    """Write a row for each batch size."""
    rates = figures["images_per_s"]
    rows = [
        [size, *(f"{statistics.median(found[size]):,.0f}" for found in rates.values())]
        for size in next(iter(rates.values()))
    ]
    return [
        "Images per second of quicknet's steps in four pieces; processes of one thread.",
        "",
        *page.table(["batch size", *(f"processes: {count}" for count in rates)], rows),
    ]


def _median(found: Figures, key: str) -> float:
    return float(statistics.median(times[key] for times in found["steps_s"]))


def _milliseconds(found: Figures, key: str) -> str:
    return f"{_median(found, key) * 1e3:.1f} ms"
