"""A run of somebody's folder, computed again: the engine as it was, and nothing written there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from models import timm_models
from trainer.base import numerics
from trainer.base.errors import UserError
from trainer.base.tensor_files import weights_sha256
from trainer.checkpoint.reading import Checkpoint
from trainer.checkpoint.writing import NoCheckpoints
from trainer.config import plugins, stored_config
from trainer.config.rules import validate
from trainer.config.schema import RunConfig, replace
from trainer.finished import run_record
from trainer.finished.run_record import RunRecord
from trainer.network import model_state
from trainer.ranks import collectives, process_group, processes
from trainer.ranks.preemption import StopRequest
from trainer.run.engine_builder import build_engine
from trainer.training.engine import Engine


def configuration(folder: Path, changes: Mapping[str, Any]) -> RunConfig:
    """The configuration of the run in a folder, as it is to be computed again.

    Args:
        folder: of the run.
        changes: what is another here, by the keys: data.root, threads, and what runs code of the
            run's own, as the user has named it.

    Raises:
        UserError: there is no run, it would run code that the user has not named or that is not
            at hand, or load weights that timm would unpickle; or a value is out of range.
    """
    config, path = stored_config.read_folder(folder), folder / "config.yaml"
    if config.threads is None or config.train.microbatches is None:
        raise UserError(
            f"{path}: threads or train.microbatches is null; the first start of a run fills them "
            f"in, so this is no file that a run has written"
        )
    plugins.check_known(config, folder)
    plugins.check_named(config, folder, changes, plugins.CODE)
    _check_weights(config, path)
    config = replace(config, {"processes": None, "train.max_seconds": None, **changes})
    validate(config)
    return config


def _check_weights(config: RunConfig, path: Path) -> None:
    """Refuse what would make timm load weights, which may run code where they are a pickle.

    Leaving it out would not do, as the run starts from them.
    """
    for key in timm_models.WEIGHTS_ARGUMENTS:
        if config.model.name.startswith(timm_models.PREFIX) and config.model.args.get(key):
            raise UserError(
                f"{path}: model.args: {key} starts the run from weights that timm would load; a "
                f"run can be computed again where it starts from random ones or model.weights"
            )


@contextlib.contextmanager
def joined(config: RunConfig) -> Iterator[Accelerator]:
    """The processes, for as long as they compute together as those of the run did."""
    with process_group.join_process_group(config) as accelerator:
        processes.apply_pins(config)
        yield accelerator


def obstacles(
    accelerator: Accelerator,
    config: RunConfig,
    run: RunRecord,
    start: Checkpoint | None,
    stops: Sequence[Checkpoint],
) -> list[str]:
    """As `stored_run.obstacles`, and what is in the way between the processes; a collective.

    All ranks get the same: whether there is any decides what they do together.
    """
    here = numerics.describe(accelerator.device, config.train.evaluation_batch_size)
    found = collectives.run_on_main_rank(
        accelerator, lambda: run_record.obstacles(run, start, stops, here)
    )
    found += collectives.check_same_start(accelerator, weights="", images="", environment=here)
    if config.train.reduction == "fast":
        found.append("train.reduction: fast, whose sums depend on the process count")
    return list(dict.fromkeys(found))


def refuse(run: RunRecord, found: Sequence[str], tolerance: float | None) -> None:
    """Promise nothing that cannot be kept.

    Raises:
        UserError: something is in the way, and no tolerance is given.
    """
    if found and tolerance is None:
        raise UserError(
            f"{run.folder}: cannot be computed again in the same bits here (there against here): "
            f"{'; '.join(found)}; use what it was made with, or go on with --tolerance 0.01 to "
            f"compare losses to that relative difference alone"
        )


def build(
    accelerator: Accelerator, config: RunConfig, run: RunRecord, start: Checkpoint | None
) -> Engine:
    """The engine of a run where a checkpoint stands, or at its start; a collective.

    Raises:
        UserError: images or network are not those of the run, or are not at hand.
    """
    engine = build_engine(accelerator, config, NoCheckpoints(), StopRequest())

    def begin() -> None:
        known = run_record.fingerprints(run, start or run_record.oldest_checkpoint(run.folder, 0))
        ours = engine.snapshot.fingerprints
        engine.snapshot.check_fingerprints({**ours, **known}, run.folder)

    collectives.run_on_main_rank(accelerator, begin)  # the others have the same images and code
    if start:
        engine.load(start)
    engine.state.skipped_steps = run.skipped_steps
    collectives.check_same_start(
        accelerator,
        weights=weights_sha256(model_state.to_write(engine.module)),
        images=engine.data.fingerprint,
        environment=engine.environment,
    )
    return engine
