"""Compute a run again: the engine as it was, and nothing written to the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from models import timm_models
from trainer.base.errors import UserError
from trainer.checkpoint.reading import Checkpoint
from trainer.checkpoint.writing import NoCheckpoints
from trainer.config import plugin_checks, plugins
from trainer.config.rules import validate
from trainer.config.schema import RunConfig, flatten, replace
from trainer.data.environment import describe_environment
from trainer.finished import run_record
from trainer.finished.run_record import Position, RunRecord
from trainer.network import model_state
from trainer.ranks import collectives
from trainer.ranks.preemption import StopRequest
from trainer.run.engine_builder import build_engine
from trainer.run.receipt import ANY_PLACE
from trainer.training.engine import Engine


@dataclass(frozen=True)
class Plan:
    """Which part of a run to compute again."""

    run: RunRecord
    start: Checkpoint | None
    """None: the start of the run"""
    stops: list[Checkpoint]
    """those on the way or, where there are none, the next one: they say how the run rounded"""
    end: Position


def configuration(config: RunConfig, where: Path, changes: Mapping[str, Any]) -> RunConfig:
    """Return the configuration of a run with which it can be computed again here.

    Args:
        config: that of the run.
        where: the run's folder or receipt, which somebody may have sent.
        changes: what is different here, by the keys: data.root, model.weights, threads, and the
            names of user-defined code, as the user has given them.

    Raises:
        UserError: it would run code that the user has not named or that is not at hand, or load
            weights that timm would unpickle or whose file is not named; or a value is out of range.
    """
    if config.threads is None or config.train.microbatches is None:
        raise UserError(
            f"{where}: threads or train.microbatches is null; the first start of a run fills them "
            f"in, so no run has written this configuration"
        )
    plugin_checks.check_code(config, where, changes, plugins.CODE)
    # Leaving the argument out would not do, as the run starts from these weights.
    for key in timm_models.WEIGHTS_ARGUMENTS:
        if config.model.name.startswith(timm_models.PREFIX) and config.model.args.get(key):
            raise UserError(
                f"{where}: model.args: {key} starts the run from weights that timm would load; a "
                f"run can be computed again where it starts from random ones or model.weights"
            )
    values = flatten(config)
    for key in ("model.weights", "train.teacher"):
        if values[key] == ANY_PLACE and key not in changes:
            raise UserError(
                f"{key}: {where} is of a run that was made with a file of the SHA-256 "
                f"{values[f'{key}_sha256']}; say where it is here: --{key} FILE"
            )
    config = replace(config, {"processes": None, "train.max_seconds": None, **changes})
    validate(config)
    return config


def build(
    accelerator: Accelerator, config: RunConfig, plan: Plan, tolerance: float | None
) -> tuple[Engine, list[str]]:
    """Build the engine of a run where the plan starts; a collective.

    Returns:
        The engine, and why equal bits cannot be promised here, the same on all ranks.

    Raises:
        UserError: they cannot be promised and there is no tolerance; or images or network are not
            those of the run, or not at hand.
    """
    run, start = plan.run, plan.start
    here = describe_environment(accelerator.device, config, trains=True)
    not_promised = collectives.run_on_main_rank(
        accelerator, lambda: run_record.rounding_differences(run, start, plan.stops, here)
    )
    not_promised += collectives.check_same_start(
        accelerator, weights="", images="", environment=here
    )
    if config.train.reduction == "fast":
        not_promised.append("train.reduction: fast, whose sums depend on the process count")
    not_promised = list(dict.fromkeys(not_promised))
    if not_promised and tolerance is None:
        raise UserError(
            f"{run.folder}: cannot be computed again in the same bits here (there against here): "
            f"{'; '.join(not_promised)}; use what it was made with, or add --tolerance 0.01 to "
            f"compare only losses, to that relative difference"
        )
    engine = build_engine(
        accelerator, config, NoCheckpoints(), StopRequest(), resumes=start is not None
    )

    def check_images_and_code() -> None:
        saved = start or next(run_record.checkpoints(run.folder), None)
        known = {"data.root": run.results["data"]["fingerprint"]} if run.results else {}
        ours = engine.snapshot.fingerprints
        if run.receipt:
            known = dict.fromkeys(ours) | run.receipt["fingerprints"]
        known = saved.state["fingerprints"] if saved else known
        engine.snapshot.check_fingerprints({**ours, **known}, run.folder)

    # The other ranks have the same.
    collectives.run_on_main_rank(accelerator, check_images_and_code)
    if start:
        engine.load(start)
    engine.state.skipped_steps = run.skipped_steps
    collectives.check_same_start(
        accelerator,
        weights=model_state.digest(engine.module),
        images=engine.data.fingerprint,
        environment=engine.environment,
    )
    return engine, not_promised
