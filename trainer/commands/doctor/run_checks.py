"""Check what a configured run needs: its folder, its data, its model and the user's own code."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.timeouts import run_with_timeout
from trainer.checkpoint.reading import open_checkpoint
from trainer.commands.doctor import resources
from trainer.commands.doctor.finding import Finding, Findings
from trainer.commands.doctor.resources import ResourceNeeds
from trainer.config.schema import ModelConfig, RunConfig, folder_of, replace
from trainer.data import loading
from trainer.data.augment.policy import Augmentation
from trainer.data.augment.user_augmentations import TRIED
from trainer.data.dataset import Dataset
from trainer.data.sources import reading
from trainer.network import image_settings, model_state, weights_sources
from trainer.network.hub import NotAtHandError
from trainer.network.new_model import build_model
from trainer.network.pretrained import Preprocessing, PretrainedWeights
from trainer.network.trial import trial
from trainer.ranks import processes
from trainer.run.run_folder import OpenedRun, RunFolder
from trainer.run.tracking import trackers

HUB_PREFIXES = ("timm:hf-hub:", "timm:hf_hub:")
"""of networks whose very layers are described by a download"""

FROM_HUB = (
    "a run gets it from the hub if it is not in the cache; where there is no network, get it here "
    "first"
)

NOT_CHECKED = "neither the model nor its needs were checked"


@dataclass(frozen=True)
class LoadedRun:
    """The data and the model with which a rank would start."""

    config: RunConfig
    """without pretrained weights"""
    dataset: Dataset
    model: nn.Module
    weights_sha256: str
    needs: ResourceNeeds


def open_folder(config: RunConfig, count: int) -> OpenedRun:
    """Return the run as its folder has it, for `count` processes; nothing there is changed.

    Raises:
        UserError: the folder cannot be written, is in use, or holds another run; or the checkpoint
            to resume from is damaged.
    """
    folder = RunFolder(folder_of(config))
    folder.check_access()
    opened = folder.inspect(config, processes.default_pins(config, count))
    if config.resume not in ("auto", "none"):
        open_checkpoint(Path(config.resume))
    return opened


def load(config: RunConfig, findings: Findings) -> LoadedRun | None:
    """Read the data and build the model; return None if one of them is not there."""
    start, error = _find_weights(config.model)
    known = start.preprocessing if start else Preprocessing()
    config = dataclasses.replace(config, data=image_settings.fill_in(config.data, known))
    dataset = findings.attempt("data", lambda: _load_data(config, findings))
    if dataset is None:
        return None
    if config.model.name.startswith(HUB_PREFIXES):
        text = f"{config.model.name} is described by a hub, which was not asked"
        findings.append(Finding("model", "warning", text, f"{FROM_HUB}; {NOT_CHECKED}"))
        return None
    pretrained = bool(config.model.args.get("pretrained"))
    if pretrained:
        # Nothing is downloaded here; sizes and memory are the same without.
        config = replace(config, {"model.args": config.model.args | {"pretrained": False}})
    if isinstance(error, NotAtHandError) and weights_sources.may_be_downloaded(config.model):
        text = f"{config.model.weights}: these weights are not in the cache"
        findings.append(Finding("model", "warning", text, f"{FROM_HUB}; {NOT_CHECKED}"))
        return None

    def build() -> nn.Module:
        if error:
            raise error
        return build_model(config, dataset, start)

    model = findings.attempt("model", build)
    if model is None:
        return None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = f"{config.model.name}, {parameters:,} parameters"
    text += "; pretrained weights were not looked for" * pretrained
    findings.append(Finding("model", "ok", text, FROM_HUB * pretrained))
    weights = model_state.digest(model)

    def check_user_code() -> ResourceNeeds:
        trackers.check(config)
        own = Augmentation(config.data.augment, config.seed).user_defined
        own.check(dataset.train.fetch(torch.arange(min(TRIED, len(dataset.train))))[0])
        return resources.estimate(config, dataset, model)

    needs = findings.attempt("user code", check_user_code)
    return LoadedRun(config, dataset, model, weights, needs) if needs else None


def _find_weights(model: ModelConfig) -> tuple[PretrainedWeights | None, UserError | None]:
    """Return the weights to start from as far as this machine has them, and what is wrong."""
    try:
        return weights_sources.find(model, download=False), None
    except UserError as error:
        return None, error


def _load_data(config: RunConfig, findings: Findings) -> Dataset | None:
    if lacking := reading.describe_missing(config.data):
        advice = "a run would download them; where there is no network, get them here first"
        advice += f"; without them {NOT_CHECKED}"
        findings.append(Finding("data", "warning", lacking, advice))
        return None
    if undecoded := reading.describe_undecoded(config.data):
        advice = "the first start does it, or python -m trainer inspect-data"
        findings.append(Finding("data", "ok", undecoded, f"{advice}; without it {NOT_CHECKED}"))
        return None
    dataset = loading.load(config.data, config.seed)
    sizes = (
        f"{len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test"
    )
    findings.append(Finding("data", "ok", f"{dataset.name}, {sizes}, from {dataset.source}"))
    return dataset


def try_network(run: LoadedRun, limit_s: float) -> Finding:
    """Check that the network gives the same bits on other processes, and resumed."""

    def call() -> list[str]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more threads than cores would make it slow
        try:
            return trial.try_network(run.config, run.dataset, run.model, torch.device("cpu"))
        finally:
            torch.set_num_threads(threads)

    try:
        found = run_with_timeout(limit_s, call)
    except UserError as error:
        return Finding("trial", "problem", str(error))
    except TimeoutError:
        text = f"not done within {limit_s:.0f} s; a run does it before its first step"
        return Finding("trial", "ok", text)
    return Finding("trial", "warning" if found else "ok", "; ".join(found) or trial.summary(found))
