"""Try rising learning rates on the first steps of a run, and suggest one.

A learning-rate range test (Smith, 2017, arXiv 1506.01186), with a rate that grows exponentially
from step to step. The steps are those of a run, without its schedule. No run is changed: the
weights are thrown away, and only a picture is written. The arguments of a run follow, as for
train.py.

example: python -m trainer lr-find --config configs/digits.yaml
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import StoppedOnRequest, UserError
from trainer.base.terminal import print_report, progress_bar
from trainer.commands.options import add_json_option, report_write_errors
from trainer.config import command_line
from trainer.config.schema import folder_of
from trainer.ranks import collectives, processes

if TYPE_CHECKING:
    from trainer.run.session import Session

SMOOTHING = 0.9
DIVERGED = 4.0
"""the smoothed loss has diverged at this multiple of its lowest"""
FEWEST_STEPS = 20

RULE = (
    f"a tenth of the rate at which the smoothed loss (exponential average, {SMOOTHING}) is lowest"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; the others are the run's."""
    parser.add_argument(
        "--lowest", type=_positive, default=1e-6, metavar="LR", help="of the first step; 1e-6"
    )
    parser.add_argument(
        "--highest", type=_positive, default=10.0, metavar="LR", help="of the last step; 10"
    )
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="at most; default: 100")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="default: OUTPUT_DIR-lr_find.png"
    )
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Do the test, draw it, and print what it suggests.

    Raises:
        UserError: the configuration or the range is wrong, or the picture cannot be written.
        StoppedOnRequest: by a signal or `train.max_seconds`; nothing is saved.
    """
    config = command_line.parse(arguments.configuration)
    _check_range(arguments)
    folder = folder_of(config)
    plot: Path = arguments.plot or folder.with_name(f"{folder.name}-lr_find.png")
    processes.check_launch(config)
    from trainer.ranks import local_processes
    from trainer.run.session import Session

    local_processes.run(config, lambda: _find(Session(config), arguments, plot))


def _find(entered: Session, arguments: argparse.Namespace, plot: Path) -> None:
    """Do the test, and print on rank 0 what was found; a collective."""
    with entered as session:  # which never opens its folder
        collectives.run_on_main_rank(session.accelerator, lambda: _check_writable(plot))
        rates = learning_rates(arguments.lowest, arguments.highest, arguments.steps)
        losses = _train(session, rates)
        if session.is_main:
            found = suggest(rates, losses) | {"plot": str(plot)}
            _draw(found)
            print_report(found, _lines(found), as_json=arguments.json)


def learning_rates(lowest: float, highest: float, steps: int) -> list[float]:
    """Return the rate of each step: each the same multiple of the one before."""
    return [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]


def smooth(losses: Sequence[float]) -> list[float]:
    """Return the exponential average up to each loss, without a bias towards zero."""
    smoothed, average = [], 0.0
    for number, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING**number))
    return smoothed


def has_diverged(losses: Sequence[float]) -> bool:
    """Tell whether the last loss is not finite, or the smoothed one far above its lowest."""
    if not math.isfinite(losses[-1]):
        return True
    smoothed = smooth(losses)
    return smoothed[-1] > DIVERGED * min(smoothed)


def suggest(rates: Sequence[float], losses: Sequence[float]) -> dict[str, Any]:
    """Suggest a learning rate from the losses.

    Args:
        rates: of each step, at least as many as there are losses.
        losses: of the steps that were done; the last may be the first that is not finite.

    Returns:
        `suggestion` (None if the loss never fell), the `rule` behind it, `lowest_loss_lr`,
        `diverged`, and `lr`, `loss` and `smoothed_loss` of every step with a finite loss.
    """
    diverged = has_diverged(losses)
    finite = [loss for loss in losses if math.isfinite(loss)]
    smoothed = smooth(finite)
    best = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    # The average of the first steps still depends on their batches.
    fell = best >= FEWEST_STEPS // 2
    return {
        "suggestion": float(f"{rates[best] / 10:.2g}") if fell else None,
        "rule": RULE,
        "lowest_loss_lr": rates[best] if fell else None,
        "diverged": diverged,
        "lr": list(rates[: len(finite)]),
        "loss": finite,
        "smoothed_loss": smoothed,
    }


def _train(session: Session, rates: Sequence[float]) -> list[float]:
    """Train one step at each rate until the loss diverges; return the losses. A collective."""
    from trainer.run.engine_builder import build_unsaved_engine
    from trainer.training.parameter_groups import set_learning_rate
    from trainer.training.stopping import AskedToStop

    engine = build_unsaved_engine(session.accelerator, session.config, session.stop)
    losses: list[float] = []
    try:
        engine.start_epoch(session.config.train.epochs)  # with all that is trained in the end
        batches = (batch for epoch in count(1) for batch in engine.batches.iter_epoch(epoch, 0))
        with progress_bar("lr-find", len(rates), enabled=session.is_main) as progress:
            for lr, batch in zip(rates, batches, strict=False):
                set_learning_rate(engine.optimizer, lr)
                step = len(losses) + 1
                result = engine.train_step(
                    step, batch.images, batch.targets, batch.microbatch_sizes
                )
                losses.append(float(result.loss))
                progress.update()
                if has_diverged(losses):
                    break
                engine.stop_check()
    except AskedToStop as asked:
        raise StoppedOnRequest(
            f"stopped at step {len(losses)} ({asked}); nothing is saved, the same command starts "
            f"again"
        ) from None
    return losses


def _draw(found: dict[str, Any]) -> None:
    from trainer.run.report import curves, plots

    figure = curves.draw_range_test(
        found["lr"], found["loss"], found["smoothed_loss"], found["suggestion"]
    )
    plots.save(figure, Path(found["plot"]))


def _lines(found: dict[str, Any]) -> list[str]:
    steps, last = len(found["lr"]), found["lr"][-1] if found["lr"] else 0.0
    end = "where the loss diverged" if found["diverged"] else "the end of the range"
    lines = [f"{steps} steps, up to a learning rate of {last:.2g}, {end}"]
    if found["suggestion"] is None:
        lines.append("no suggestion: the loss never fell; begin at a smaller --lowest")
    else:
        lines += [
            f"suggestion  --optimizer.lr {found['suggestion']:g}",
            f"rule        {found['rule']}, which is {found['lowest_loss_lr']:.2g}",
        ]
    return [*lines, f"plot        {found['plot']}"]


def _check_range(arguments: argparse.Namespace) -> None:
    if not arguments.lowest < arguments.highest:
        raise UserError(
            f"--lowest: must be below --highest, found {arguments.lowest:g} and "
            f"{arguments.highest:g}"
        )
    if arguments.steps < FEWEST_STEPS:
        raise UserError(f"--steps: must be at least {FEWEST_STEPS}, found {arguments.steps}")
    if arguments.plot and arguments.plot.suffix != ".png":
        raise UserError(f"--plot: must be a name that ends in .png, found {arguments.plot}")


def _check_writable(plot: Path) -> None:
    with report_write_errors("--plot", plot):
        plot.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=plot.parent).close()


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
