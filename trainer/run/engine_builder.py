"""Build an engine from a configuration, on all ranks together."""

from __future__ import annotations

from accelerate import Accelerator

from trainer.checkpoint.writing import Checkpoints, NoCheckpoints
from trainer.config import plugins
from trainer.config.schema import RunConfig
from trainer.data import loading
from trainer.data.sources import reading
from trainer.network.new_model import build_model
from trainer.ranks import collectives, processes
from trainer.ranks.preemption import StopRequest
from trainer.run.run_folder import fill_pinned
from trainer.training.engine import Engine


def build_engine(
    accelerator: Accelerator,
    config: RunConfig,
    checkpoints: Checkpoints,
    stop: StopRequest,
) -> Engine:
    """Load the images, build the model, and return the engine at the start of a run; a collective.

    The files are found or downloaded by one process of each machine first, and then read by all.

    Args:
        config: with `threads` and `train.microbatches` filled in.

    Raises:
        UserError: the data or the model is wrong.
    """
    data, seed = config.data, config.seed
    collectives.run_on_all_ranks(accelerator, lambda: reading.prepare(data), one_first=True)
    dataset = collectives.run_on_all_ranks(accelerator, lambda: loading.load(data, seed))
    model = collectives.run_on_all_ranks(accelerator, lambda: build_model(config, dataset))
    # Before anything that is done together: how often it is done depends on them.
    code = collectives.run_on_all_ranks(accelerator, lambda: plugins.fingerprints(config))
    collectives.check_same_parts(accelerator, {"data.root": dataset.fingerprint, **code})
    return Engine(accelerator, config, dataset, model, checkpoints, stop)


def build_unsaved_engine(accelerator: Accelerator, config: RunConfig, stop: StopRequest) -> Engine:
    """Return the engine at the start of a run that has no folder and saves nothing; a collective.

    Raises:
        UserError: as `build_engine`.
    """
    config = fill_pinned(config, processes.default_pins(config, accelerator.num_processes))
    processes.apply_pins(config)
    return build_engine(accelerator, config, NoCheckpoints(), stop)
