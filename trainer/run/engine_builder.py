"""Build an engine from a configuration, on all ranks together."""

from __future__ import annotations

import dataclasses
import logging

from accelerate import Accelerator

from trainer.base import compiler
from trainer.base.device_memory import memory_of
from trainer.checkpoint.writing import Checkpoints, NoCheckpoints
from trainer.config import plugins
from trainer.config.schema import DataConfig, ModelConfig, RunConfig, replace
from trainer.data import class_balance, few_steps, loading, shared_images, slices
from trainer.data.sources import reading
from trainer.network import creation, image_settings, weights_sources
from trainer.network.hub import NotAtHandError
from trainer.network.new_model import build_model
from trainer.network.pretrained import Preprocessing, PretrainedWeights
from trainer.ranks import collectives, mailboxes, processes
from trainer.ranks.preemption import StopRequest
from trainer.run.run_folder import fill_pinned
from trainer.training.engine import Engine
from trainer.training.memory_trial import divide_to_fit, place_images
from trainer.training.teacher import load_teacher

log = logging.getLogger("lockstep")


def build_engine(
    accelerator: Accelerator,
    config: RunConfig,
    checkpoints: Checkpoints,
    stop: StopRequest,
    *,
    resumes: bool = False,
    may_divide: bool = False,
) -> Engine:
    """Load the images, build the model, and return the engine at the start of a run; a collective.

    The files are found or downloaded by one process of each machine first. It also reads the
    images, unless they stay in files: those all open.

    Args:
        config: with `threads` and `train.microbatches` filled in.
        resumes: whether a checkpoint will be loaded, which has all that model.weights gave; so
            these may be gone.
        may_divide: whether the run has more micro-batches where the memory is too small for a step.

    Raises:
        UserError: the data, the model or the weights are wrong, or the memory is too small.
    """
    # Before the data are read, which may take minutes.
    compile_mode, device = config.train.compile, accelerator.device
    if compile_mode != "none":
        collectives.run_on_all_ranks(accelerator, lambda: compiler.describe(compile_mode, device))
    collectives.run_on_all_ranks(accelerator, lambda: creation.check(config.model))
    code = collectives.run_on_all_ranks(accelerator, lambda: plugins.fingerprints(config))
    weights = collectives.run_on_all_ranks(
        accelerator, lambda: _find_weights(config.model, resumes), one_first=True
    )
    config = weights_sources.pin(config, weights)
    known = weights.preprocessing if weights else Preprocessing()
    if not resumes:
        config = dataclasses.replace(config, data=image_settings.fill_in(config.data, known))
    data, seed = config.data, config.seed
    collectives.run_on_all_ranks(accelerator, lambda: _prepare(data), one_first=True)
    # Pictures are mostly left in files, which all can open at the same time.
    dataset = shared_images.load_once(
        accelerator, lambda: loading.load(data, seed), at_once=data.has_pictures
    )
    doubts = image_settings.find_doubts(data, dataset.train.images.shape[2:], known)
    rare = class_balance.find_warnings(config, dataset)
    short = few_steps.find_warnings(config, len(dataset.train))
    dataset = dataclasses.replace(dataset, warnings=(*dataset.warnings, *doubts, *rare, *short))
    teacher = collectives.run_on_all_ranks(accelerator, lambda: load_teacher(config, dataset))
    if teacher:
        config = replace(config, {"train.teacher_sha256": teacher.file_sha256})
    # Before anything that is done together: how often it is done depends on them.
    parts = {
        "data.root": dataset.fingerprint,
        "model.weights": config.model.weights_sha256,
        "train.teacher": config.train.teacher_sha256,
    }
    collectives.check_same_parts(accelerator, {**parts, **code})

    mailboxes.open_for_all(accelerator, config.timeout_seconds)

    def build(config: RunConfig) -> Engine:
        model = collectives.run_on_all_ranks(
            accelerator, lambda: build_model(config, dataset, weights)
        )
        return Engine(accelerator, config, dataset, model, checkpoints, stop, code, teacher)

    engine = divide_to_fit(accelerator, config, build) if may_divide else build(config)
    place_images(engine, memory_of(accelerator.device))
    return engine


def _prepare(data: DataConfig) -> None:
    reading.prepare(data)
    slices.check(data)


def _find_weights(model: ModelConfig, resumes: bool) -> PretrainedWeights | None:
    # The first process of each machine has put into the cache what the others find there.
    download = processes.launched_local_rank() == 0 and not resumes
    try:
        return weights_sources.find(model, download=download)
    except NotAtHandError as error:
        if not resumes:
            raise
        if processes.launched_rank() == 0:
            log.warning("%s; the run goes on from its checkpoint, which has all weights", error)
        return None


def build_unsaved_engine(accelerator: Accelerator, config: RunConfig, stop: StopRequest) -> Engine:
    """Return the engine at the start of a run that has no folder and saves nothing; a collective.

    Raises:
        UserError: as `build_engine`.
    """
    may_divide = config.train.microbatches is None
    # As in a run: by keys that may differ, too, ranks decide what they do together.
    config = collectives.run_on_main_rank(accelerator, lambda: config)
    config = fill_pinned(config, processes.default_pins(config, accelerator.num_processes))
    processes.apply_pins(config)
    return build_engine(accelerator, config, NoCheckpoints(), stop, may_divide=may_divide)
