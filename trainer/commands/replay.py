"""Compute a step of a run again and list its samples, the worst first, with losses and gradients.

The run is computed from the nearest checkpoint before the step, or from its start; nothing in its
folder is changed. Like a training it uses the machine's cores or GPUs, and any launcher may start
it. Exit code 3: a loss on the way is not the one in metrics.jsonl; 2: equal bits cannot
be promised here.

example: python -m trainer replay runs/digits --step 97 --page step-97.html
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import DifferentRunError, NonFiniteLossError, UserError
from trainer.base.files import write_json
from trainer.base.strict_json import nan_to_null
from trainer.base.terminal import format_table, percent, progress_bar
from trainer.commands import recompute
from trainer.commands.options import check_output, report_write_errors
from trainer.config import stored_config
from trainer.config.schema import RunConfig
from trainer.ranks import collectives

if TYPE_CHECKING:
    import torch

    from trainer.commands.recompute import Recomputation
    from trainer.data.batches import Batch
    from trainer.finished.recomputation import Plan
    from trainer.finished.run_record import RunRecord
    from trainer.run.report.pages import Picture
    from trainer.training.engine import Engine
    from trainer.training.per_sample import SampleWatch

MOST_LINES = 20
"""of samples as text; JSON and the page have all"""
STEPS_BEFORE = 20
"""whose mean loss says whether this one is a jump"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder")
    recompute.add_arguments(parser)
    parser.add_argument(
        "--step", type=int, required=True, metavar="N",
        help="counted over the whole run from 1, as in metrics.jsonl",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write a page with the pictures, HTML"
    )
    parser.add_argument(
        "--operators", type=Path, metavar="FILE.json",
        help="write a digest of what each operator of the step gives on rank 0; compare "
        "--operators finds the first one where two such files, of two machines, part",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Compute, and show the step on rank 0.

    Raises:
        UserError: there is no such run or step, or equal bits cannot be promised.
        DifferentRunError: on rank 0, if a loss is not the recorded one.
    """
    folder, page = arguments.folder, arguments.page
    check_output("--page", page)
    check_output("--operators", arguments.operators, ".json")
    if page and folder.resolve() in page.resolve().parents:
        raise UserError(f"--page: {page} is in {folder}, where nothing is changed; choose another")
    stored = stored_config.read_folder(folder)
    if arguments.operators and stored.train.compile != "none":
        raise UserError(
            "--operators: the run's steps are compiled (train.compile), and compiled kernels are "
            "not operators that could be compared; leave it out"
        )
    recompute.in_processes(arguments, stored, folder, partial(_run, arguments))


def _run(arguments: argparse.Namespace, config: RunConfig) -> None:
    import torch._functorch.config as compiled_functions

    folder, step, page = arguments.folder, arguments.step, arguments.page
    # A compiled network must be able to go backward more than once, as the samples ask for.
    with (
        compiled_functions.patch(donated_buffer=False),
        recompute.join(config) as accelerator,
    ):
        make = partial(make_plan, folder, step)
        plan = collectives.run_on_main_rank(accelerator, make)
        asked = (accelerator, config, plan, arguments.tolerance)
        with recompute.recompute(*asked, f"to step {step}") as again:
            way = step - again.engine.state.step
            samples, gradient_norm = _compute(again, arguments.operators)
    if not again.accelerator.is_main_process:  # rank 0 has the exit code
        return
    record, start, train = again.plan.run, again.plan.start, again.config.train
    pictures = [row["picture"] for row in samples]
    report = {
        **again.verdict(),
        "step": step,
        "epoch": record.steps[step]["epoch"],
        "loss": again.comparison.last_step.get("loss"),
        "recorded_loss": record.steps[step]["loss"],
        "mean_loss_before": _mean_before(record, step),
        "gradient_norm": gradient_norm,
        "clip_norm": train.clip_norm if train.clip_mode == "norm" else None,
        "lr": record.steps[step].get("lr"),
        "from_checkpoint": start.folder.name if start else None,
        "steps_computed": way,
        "skipped_in_run": step in record.skipped_steps,
        "samples": [row | {"picture": row["picture"].uri} for row in samples],
    }
    report = nan_to_null(report)
    if page:
        _write_page(page, report, pictures)
    recompute.conclude(report, _lines(report), as_json=arguments.json)


def make_plan(folder: Path, step: int) -> Plan:
    """Plan to compute a run up to a step.

    Raises:
        UserError: the run has no such step.
    """
    from trainer.finished import run_record
    from trainer.finished.recomputation import Plan

    run = run_record.read(folder)
    if step not in run.steps:
        raise UserError(f"--step: {step}, but {folder} has the steps 1 to {run.last_step:,} so far")
    following = next(run_record.checkpoints(folder, step), None)
    start = next(run_record.checkpoints(folder, 0, step - 1, newest_first=True), None)
    stops = [following] if following else []
    return Plan(run, start, stops, (run.steps[step]["epoch"], step))


# ---------------------------------------------------------------------- the step


def _compute(again: Recomputation, operators: Path | None) -> tuple[list[dict[str, Any]], float]:
    """Go to the step and do it; a collective.

    Args:
        operators: where rank 0 writes what each operator gave; None: nowhere.

    Returns:
        On rank 0 the samples of all ranks, the worst first; on all ranks the gradient's norm.
    """
    from accelerate.utils import gather_object

    from trainer.base.operators import OperatorRecord
    from trainer.training.per_sample import SampleWatch

    engine, (epoch, step) = again.engine, again.plan.end
    # A step that the run skipped is computed here, to show why.
    skipped = again.plan.run.skipped_steps
    engine.state.skipped_steps = [other for other in skipped if other != step]
    engine.fit((epoch, step - 1))
    engine.start_epoch(epoch)  # if the step is the epoch's first
    in_epoch = step - 1 - (epoch - 1) * engine.batches.steps
    batch = next(engine.batches.iter_epoch(epoch, in_epoch))
    is_main = again.accelerator.is_main_process
    record = OperatorRecord()
    with progress_bar("gradients", len(batch.targets), enabled=is_main) as progress:
        watch = SampleWatch(engine.train_step, batch, progress.update)
        try:
            with watch.observe_step(), record if operators else contextlib.nullcontext():
                engine.fit((epoch, step))
        except NonFiniteLossError as error:
            if error.step != step:
                raise DifferentRunError(f"{error}; the run had no such loss") from error
    if operators and is_main:
        where = {"run": str(again.plan.run.folder), "step": step}
        found = where | {"environment": engine.environment, "operators": record.calls}
        with report_write_errors("--operators", operators):
            write_json(operators, found)
    rows = gather_object(_rows(engine, batch, watch, in_epoch))

    def badness(row: dict[str, Any]) -> tuple[float, int]:
        # Ties go to the first.
        return (row["loss"] if math.isfinite(row["loss"]) else math.inf, -row["sample"])

    return sorted(rows, key=badness, reverse=True), watch.gradient_norm()


def _rows(engine: Engine, batch: Batch, watch: SampleWatch, in_epoch: int) -> list[dict[str, Any]]:
    """Return what is known of this rank's samples."""
    samples, own = engine.batches.sampler.global_batch(in_epoch)
    names = engine.data.class_names
    indices = samples[own] % len(engine.data.train)
    pictures = _pictures(engine, batch, indices)
    columns = (indices.tolist(), batch.targets.tolist(), watch.figures, pictures)
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
    """Name the class; of a mixed sample each with its share, the larger one first."""
    if isinstance(target, int):
        return names[target]
    shares = sorted(((share, name) for share, name in zip(target, names, strict=True) if share))
    if not shares:
        return "no label"
    return " + ".join(f"{100 * share:.0f} % {name}" for share, name in reversed(shares))


def _pictures(engine: Engine, batch: Batch, indices: torch.Tensor) -> list[Picture]:
    """Return the images as the network saw them, with the pixels' scaling undone.

    Args:
        indices: of the training images, int64 (n,).
    """
    import torch

    from trainer.data.dataset import drawable
    from trainer.run.report import pages

    if engine.batches.data is not engine.data:  # a batch has features, of images as they are
        images = engine.data.train.pictures(indices.numpy())
    else:
        pixels = engine.data.scaling.undo(batch.images)
        images = drawable(pixels.round().clamp(0, 255).to(torch.uint8))
    return [pages.picture(image, pages.LARGE) for image in images]


def _mean_before(run: RunRecord, step: int) -> float | None:
    """Return the mean recorded loss of the steps before."""
    earlier = range(max(1, step - STEPS_BEFORE), step)
    losses = [run.steps[other]["loss"] for other in earlier if other in run.steps]
    finite = [loss for loss in losses if loss is not None]
    return sum(finite) / len(finite) if finite else None


# ---------------------------------------------------------------------- what is shown


def _write_page(path: Path, report: dict[str, Any], pictures: Sequence[Picture]) -> None:
    from trainer.base.files import write_text
    from trainer.run.report import pages

    losses = [row["loss"] for row in report["samples"] if row["loss"] is not None]
    page = pages.render(
        "replay.html",
        report=report,
        pictures=pictures,
        steps_before=min(STEPS_BEFORE, report["step"] - 1),
        largest_loss=max(losses, default=0.0) or 1.0,
        figure=_number,
    )
    with report_write_errors("--page", path):
        write_text(path, page)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _check(report: dict[str, Any]) -> str:
    """Say how the loss compares with the recorded one."""
    if report["first_difference"]:
        return f"differs: {report['first_difference']}"
    if report["in_bits"]:
        return "equal to the one in metrics.jsonl, bit for bit, as are those on the way"
    return (
        f"{_number(report['recorded_loss'])} in metrics.jsonl; up to "
        f"{report['largest_difference']:.3g} apart on the way, within {report['tolerance']:g}"
    )


def _lines(report: dict[str, Any]) -> list[str]:
    start = report["from_checkpoint"] or "the start of the run"
    before, clip_norm = report["mean_loss_before"], report["clip_norm"]
    facts = {
        "step": f"{report['step']:,} (epoch {report['epoch']}) of {report['run']}",
        "computed": f"{report['steps_computed']:,} steps from {start}, processes: "
        f"{report['processes']}, threads of each: {report['threads']}",
        "loss": _number(report["loss"])
        + (f"; mean of the steps before {before:.4g}" if before is not None else ""),
        "check": _check(report),
        "gradient": f"norm {_number(report['gradient_norm'])}"
        + (f", clipped to {clip_norm:g}" if clip_norm is not None else ""),
        "rate": f"{report['lr']:g}",
    }
    lines = [f"{name:<9} {text}" for name, text in facts.items()]
    lines += [f"equal at best to rounding: {reason}" for reason in report["not_promised"]]
    if report["skipped_in_run"]:
        lines.append("the run skipped this step, as its loss was not finite")
    rows = [("sample", "loss", "gradient", "class", "predicted")]
    for row in report["samples"][:MOST_LINES]:
        figures = (_number(row["loss"]), _number(row["gradient_norm"]))
        answer = f"{row['predicted']} ({percent(row['probability'])})"
        rows.append((str(row["sample"]), *figures, row["class"], answer))
    lines += ["", *format_table(rows, left=(3, 4))]
    more = len(report["samples"]) - MOST_LINES
    return [*lines, f"and {more:,} samples with smaller losses"] if more > 0 else lines
