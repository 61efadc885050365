"""Go to a step of a run and show it: its samples, the worst first, with losses and gradients.

The run is computed again from the nearest checkpoint before the step, else from its start; nothing
in its folder is changed. Any launcher may start it, on any number of processes that divides the
run's micro-batches. Exit code 3 where a loss on the way is not the one in metrics.jsonl, 2 where
equal bits cannot be promised here.

example: python -m trainer replay runs/digits --step 97 --page step-97.html
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import DifferentRunError, NonFiniteLossError, UserError
from trainer.base.terminal import format_table, percent, print_report, progress_bar
from trainer.commands import recomputing
from trainer.commands.options import report_write_errors

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from trainer.checkpoint.reading import Checkpoint
    from trainer.data.batches import Batch
    from trainer.finished.run_record import RunRecord
    from trainer.training.engine import Engine

MOST_LINES = 20
"""of samples as text; JSON and the page have all"""
STEPS_BEFORE = 20
"""whose mean loss says whether this one is a jump"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    recomputing.add_arguments(parser)
    parser.add_argument(
        "--step", type=int, required=True, metavar="N",
        help="counted over the whole run from 1, as in metrics.jsonl",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write a page with the pictures, HTML"
    )


@dataclass(frozen=True)
class Plan:
    """Which way leads to the step, as rank 0 has found it."""

    run: RunRecord
    start: Checkpoint | None
    following: list[Checkpoint]
    """the next checkpoint, which says what the step was computed on"""


def run(arguments: argparse.Namespace) -> None:
    """Compute, and show the step on rank 0.

    Raises:
        UserError: there is no such run or step, or equal bits cannot be promised.
        DifferentRunError: on rank 0, where a loss is not the recorded one.
    """
    from trainer.finished import recomputation
    from trainer.finished.comparison import Comparison
    from trainer.ranks import collectives

    folder, step, tolerance = arguments.folder, arguments.step, arguments.tolerance
    _check_page(arguments.page, folder)
    config = recomputing.configuration(arguments)
    with recomputation.joined(config) as accelerator, _graphs_kept():
        plan = collectives.run_on_main_rank(accelerator, lambda: make_plan(folder, step))
        obstacles = recomputation.obstacles(
            accelerator, config, plan.run, plan.start, plan.following
        )
        recomputation.refuse(plan.run, obstacles, tolerance)
        engine = recomputation.build(accelerator, config, plan.run, plan.start)
        is_main = accelerator.is_main_process
        way = step - engine.state.step
        with progress_bar(f"to step {step}", way, enabled=is_main) as progress:
            comparison = Comparison(plan.run, tolerance if obstacles else None, progress)
            engine.observer = comparison if is_main else None
            samples, gradient_norm = _look(accelerator, engine, plan.run, step)
    if not is_main:  # rank 0 has the exit code: a launcher ends the others when one fails
        return
    obstacles += [f"{name} has no deterministic form here" for name in engine.inexact_kernels]
    report = {
        "run": str(folder),
        "step": step,
        "epoch": plan.run.steps[step]["epoch"],
        "loss": comparison.last_step.get("loss"),
        "recorded_loss": plan.run.steps[step]["loss"],
        "mean_loss_before": _mean_before(plan.run, step),
        "gradient_norm": gradient_norm,
        "clip_norm": config.train.clip_norm,
        "lr": plan.run.steps[step].get("lr"),
        "agrees": comparison.first_difference is None,
        "in_bits": comparison.first_difference is None and comparison.tolerance is None,
        "first_difference": comparison.first_difference,
        "from_checkpoint": plan.start.folder.name if plan.start else None,
        "steps_computed": way,
        "processes": accelerator.num_processes,
        "threads": config.threads,
        "not_promised": list(dict.fromkeys(obstacles)),
        "tolerance": comparison.tolerance,
        "largest_difference": comparison.largest,
        "skipped_in_run": step in plan.run.skipped_steps,
        "samples": samples,
    }
    _show(_without_nan(report), arguments)


@contextmanager
def _graphs_kept() -> Iterator[None]:
    """What torch compiles meanwhile can go backward more than once, as the samples ask for.

    It then uses no memory twice, which is all that changes.
    """
    import torch._functorch.config as functions

    with functions.patch(donated_buffer=False):
        yield


def _check_page(page: Path | None, folder: Path) -> None:
    if page is None:
        return
    if folder.resolve() in page.resolve().parents:
        raise UserError(f"--page: {page} is in {folder}, where nothing is changed; choose another")
    if page.is_dir() or not page.parent.is_dir():
        raise UserError(f"--page: {page} cannot be written: there must be a folder to write it to")


def make_plan(folder: Path, step: int) -> Plan:
    """The way to a step.

    Raises:
        UserError: the run has no such step.
    """
    from trainer.finished import run_record

    run = run_record.read(folder)
    if step not in run.steps:
        raise UserError(f"--step: {step}, but {folder} has the steps 1 to {run.last_step:,} so far")
    following = run_record.oldest_checkpoint(folder, step)
    start = run_record.newest_checkpoint(folder, step - 1)
    return Plan(run, start, [following] if following else [])


# ---------------------------------------------------------------------- the step


def _look(
    accelerator: Accelerator, engine: Engine, run: RunRecord, step: int
) -> tuple[list[dict[str, Any]], float]:
    """Go to the step and do it: its samples, the worst first, and its gradient's norm.

    A collective.

    Returns:
        On rank 0 the samples of all ranks; the same norm on all of them.
    """
    from accelerate.utils import gather_object

    from trainer.training.per_sample import StepSamples

    epoch = run.steps[step]["epoch"]
    # A step that the run has left out is computed here, to show why.
    engine.state.skipped_steps = [other for other in run.skipped_steps if other != step]
    engine.fit((epoch, step - 1))
    in_epoch = step - 1 - (epoch - 1) * engine.batches.steps
    batch = next(engine.batches.iter_epoch(epoch, in_epoch))
    size = len(batch.targets)
    with progress_bar("gradients", size, enabled=accelerator.is_main_process) as progress:
        watch = StepSamples(engine.train_step, batch, progress.update)
        try:
            with watch.watching():
                engine.fit((epoch, step))
        except NonFiniteLossError as error:
            if error.step != step:
                raise DifferentRunError(f"{error}; the run had no such loss") from error
    rows = gather_object(_rows(engine, batch, watch, in_epoch))
    return sorted(rows, key=_badness, reverse=True), watch.gradient_norm()


def _rows(engine: Engine, batch: Batch, watch: Any, in_epoch: int) -> list[dict[str, Any]]:
    """This rank's samples."""
    samples, own = engine.batches.sampler.global_batch(in_epoch)
    names = engine.data.class_names
    pictures = _pictures(engine, batch)
    columns = (samples[own].tolist(), batch.targets.tolist(), watch.figures, pictures)
    return [
        {
            "sample": sample,
            "class": _class_of(target, names),
            "predicted": names[figures.predicted],
            "probability": figures.probability,
            "loss": figures.loss,
            "gradient_norm": figures.gradient_norm,
            "microbatch": figures.microbatch,
            "picture": picture,
        }
        for sample, target, figures, picture in zip(*columns, strict=True)
    ]


def _class_of(target: int | list[float], names: Sequence[str]) -> str:
    """The class; of a mixed sample each with its share, the larger one first."""
    if isinstance(target, int):
        return names[target]
    shares = sorted(((share, name) for share, name in zip(target, names, strict=True) if share))
    return " + ".join(f"{100 * share:.0f} % {name}" for share, name in reversed(shares))


def _pictures(engine: Engine, batch: Batch) -> list[str]:
    """The images as the network saw them, with the pixels' scaling undone."""
    import torch

    from trainer.run.report.pages import image_uri

    scaling = engine.data.scaling
    pixels: torch.Tensor = batch.images * scaling.deviation + scaling.mean
    drawn = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [image_uri(image[..., 0] if image.shape[2] == 1 else image) for image in drawn]


def _badness(row: dict[str, Any]) -> tuple[float, int]:
    """A loss that is no number is the worst; of equals the first sample comes first."""
    return (row["loss"] if math.isfinite(row["loss"]) else math.inf, -row["sample"])


def _mean_before(run: RunRecord, step: int) -> float | None:
    """The mean recorded loss of the steps before."""
    earlier = range(max(1, step - STEPS_BEFORE), step)
    losses = [run.steps[other]["loss"] for other in earlier if other in run.steps]
    finite = [loss for loss in losses if loss is not None]
    return sum(finite) / len(finite) if finite else None


# ---------------------------------------------------------------------- what is shown


def _show(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.page:
        from trainer.base.files import write_text
        from trainer.run.report import pages

        losses = [row["loss"] for row in report["samples"] if row["loss"] is not None]
        page = pages.render(
            "replay.html",
            report=report,
            steps_before=min(STEPS_BEFORE, report["step"] - 1),
            largest_loss=max(losses, default=0.0) or 1.0,
        )
        with report_write_errors("--page", arguments.page):
            write_text(arguments.page, page)
    print_report(report, _lines(report), as_json=arguments.json)
    if not report["agrees"]:
        raise DifferentRunError(f"{report['run']}: not what was computed here: see the difference")


def _without_nan(value: Any) -> Any:
    """A value with null for the numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float | None) -> str:
    """For reading; what is no number is said."""
    return "not finite" if value is None else f"{value:.4g}"


def verdict(report: dict[str, Any]) -> str:
    """How the loss stands to the recorded one, in words."""
    if report["first_difference"]:
        return f"not the run's: {report['first_difference']}"
    if report["in_bits"]:
        return "equal to the one in metrics.jsonl, bit for bit, as are those on the way"
    return (
        f"{number(report['recorded_loss'])} in metrics.jsonl; up to "
        f"{report['largest_difference']:.3g} apart on the way, within {report['tolerance']:g}"
    )


def _lines(report: dict[str, Any]) -> list[str]:
    start = report["from_checkpoint"] or "the start of the run"
    count, threads = report["processes"], report["threads"]
    before = report["mean_loss_before"]
    facts = {
        "step": f"{report['step']:,} (epoch {report['epoch']}) of {report['run']}",
        "computed": f"{report['steps_computed']:,} steps from {start}, processes: {count}, "
        f"threads of each: {threads}",
        "loss": number(report["loss"])
        + (f"; mean of the steps before {before:.4g}" if before is not None else ""),
        "check": verdict(report),
        "gradient": f"norm {number(report['gradient_norm'])}"
        + (f", clipped to {report['clip_norm']:g}" if report["clip_norm"] is not None else ""),
        "rate": f"{report['lr']:g}",
    }
    lines = [f"{name:<9} {text}" for name, text in facts.items()]
    lines += [f"equal at best to rounding: {reason}" for reason in report["not_promised"]]
    if report["skipped_in_run"]:
        lines.append("the run has left this step out, as its loss was not finite")
    return [*lines, "", *_table(report["samples"])]


def _table(samples: Sequence[dict[str, Any]]) -> list[str]:
    shown = samples[:MOST_LINES]
    rows = [("sample", "loss", "gradient", "class", "predicted")]
    for row in shown:
        figures = (number(row["loss"]), number(row["gradient_norm"]))
        answer = f"{row['predicted']} ({percent(row['probability'])})"
        rows.append((str(row["sample"]), *figures, row["class"], answer))
    lines = format_table(rows, left=(3, 4))
    more = len(samples) - len(shown)
    return [*lines, f"and {more:,} samples with smaller losses"] if more else lines
