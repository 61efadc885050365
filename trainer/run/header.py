"""The header of a run on the screen: what will be trained, on what and how."""

from __future__ import annotations

from pathlib import Path

from trainer.base import terminal
from trainer.config.schema import DataConfig, RunConfig, TrainConfig
from trainer.data.pictures.resizing import MIDDLE, fit_of
from trainer.data.stored.pictures import StoredPictures
from trainer.network import new_model
from trainer.network.memory_layout import describe_layout
from trainer.network.trial import trial
from trainer.training import parameter_groups
from trainer.training.engine import Engine

DIGITS_SHOWN = 12
"""of a SHA-256"""


def show(
    path: Path,
    config: RunConfig,
    engine: Engine,
    trial_warnings: list[str] | None,
    *,
    resumes: bool,
) -> None:
    """Print it.

    Args:
        path: of the run's folder.
        engine: at the position from which the run goes on.
        trial_warnings: of the trial of the network; None: there was none.
        resumes: whether a checkpoint was loaded.
    """
    terminal.print_facts(_facts(path, config, engine, trial_warnings, resumes=resumes))
    if (fit := new_model.fit_of(engine.module)) and not resumes:
        for line in terminal.format_table(fit.describe()):
            terminal.print_line(line)
        terminal.print_line("")
    if config.optimizer.layer_decay is not None or config.optimizer.groups:
        for line in parameter_groups.describe(engine.optimizer.optimizer, engine.module):
            terminal.print_line(line)


def _facts(
    path: Path,
    config: RunConfig,
    engine: Engine,
    trial_warnings: list[str] | None,
    *,
    resumes: bool,
) -> dict[str, str]:
    train, dataset = config.train, engine.data
    parameters = sum(p.numel() for p in engine.module.parameters())
    count = engine.accelerator.num_processes
    images = " x ".join(map(str, dataset.train.images.shape[1:]))
    facts = {
        "run": str(path) + (f", going on after step {engine.state.step}" if resumes else ""),
        "device": engine.environment["device"],
        "processes": f"{count}, of {config.threads} thread{'s' * (config.threads != 1)} each",
        "precision": train.precision,
        "kernels": f"{describe_layout(engine.module)}, "
        + ("deterministic" if train.reduction == "exact" else "whichever is fastest")
        + ", portable" * (train.kernels == "portable")
        + ", compiled" * (train.compile != "none"),
        "model": f"{config.model.name}, {parameters:,} parameters",
        **_describe_weights(config, engine),
        **_describe_teacher(train),
        "data": f"{dataset.name}, {images}, from {dataset.source}",
        **_describe_preprocessing(config.data),
        "samples": f"{len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test",
        **_describe_pictures(engine),
        "global batch": f"{train.batch_size} samples, {train.microbatches} micro-batches, "
        f"{train.reduction} reduction",
        "optimiser": f"{config.optimizer.name}, learning rate {config.optimizer.lr:g}, "
        f"{config.schedule.name} schedule, {train.epochs} epochs",
    }
    if frozen := engine.freezing.describe():
        facts["frozen"] = frozen
    if computed_again := engine.train_step.forward_pass.describe():
        facts["activations"] = computed_again
    if trial_warnings is not None:
        facts["trial"] = trial.summary(trial_warnings)
    return facts


def _describe_weights(config: RunConfig, engine: Engine) -> dict[str, str]:
    """Return what the network starts from, and what of it is not as in its file."""
    if config.model.weights is None:
        return {}
    fit = new_model.fit_of(engine.module)
    digest = _shorten(config.model.weights_sha256)
    return {
        "weights": "; ".join([f"{config.model.weights}, {digest}", *(fit.notes if fit else ())])
    }


def _describe_teacher(train: TrainConfig) -> dict[str, str]:
    """Return whose answers are learnt beside the labels."""
    if train.teacher is None:
        return {}
    return {
        "teacher": f"{train.teacher}, {_shorten(train.teacher_sha256)}; {train.teacher_weight:g} "
        f"of the loss, at temperature {train.temperature:g}"
    }


def _shorten(sha256: str | None) -> str:
    return f"SHA-256 {(sha256 or 'unknown')[:DIGITS_SHOWN]}"


def _describe_preprocessing(data: DataConfig) -> dict[str, str]:
    """Return what is unusual in how images are cut and scaled, as weights may want it."""
    parts = []
    if data.has_pictures and (fit := fit_of(data)) != MIDDLE:
        parts.append(str(fit))
    if data.scaling == "pretrained":
        mean, deviation = (
            " ".join(f"{one:.4g}" for one in value or ()) for value in (data.mean, data.deviation)
        )
        parts.append(f"mean {mean} and deviation {deviation} of pixels from 0 to 1")
    return {"images": "; ".join(parts)} if parts else {}


def _describe_pictures(engine: Engine) -> dict[str, str]:
    """Return where pictures are kept and why, if each batch is cut out of them."""
    images = engine.data.train.images
    if not isinstance(images, StoredPictures):
        return {}
    choice = images.store.choice
    return {"pictures": f"{images.store.form}, {choice.describe()}"}
