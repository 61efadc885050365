"""Steps and whole runs on a device that is not the CPU: nothing of the CPU meets it, nobody waits.

The device is an imitation (tests/second_device.py), which computes the CPU's bits.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from tests.distributed.matrix import FAMILIES
from tests.second_device import DEVICE, SecondDevice, accelerator_of, second_device
from tests.training.test_step import Net
from trainer.checkpoint.writing import NoCheckpoints
from trainer.config import augmentations
from trainer.config.plugins import register_dataset
from trainer.config.schema import OptimizerConfig, RunConfig, replace
from trainer.data.augment.list_transforms import TABLE
from trainer.data.augment.policy import Augmentation
from trainer.data.batches import Batch
from trainer.data.dataset import Dataset
from trainer.data.loading import load
from trainer.data.sources.user_dataset import OwnImages
from trainer.network import model_state
from trainer.network.new_model import build_model
from trainer.network.stored_network import StoredNetwork
from trainer.ranks.preemption import StopRequest
from trainer.training import evaluation, optimizers, optimizers_on_gpus
from trainer.training.engine import Engine
from trainer.training.step import TrainStep
from trainer.training.teacher import LoadedTeacher

SIDE = 12
COMMON: dict[str, Any] = {
    "data.name": "twelve_pixels",
    "data.validation_size": 6,
    "model.name": "quicknet",
    "model.args": {"widths": [8]},
    "optimizer.name": "adamw",
    "optimizer.lr": 0.01,
    "train.batch_size": 12,
    "train.microbatches": 2,
    "train.epochs": 1,
    "threads": 1,
}

RUNS: dict[str, dict[str, Any]] = {
    "averaged": {
        "data.mixup": 0.4,
        "data.augment": "shift_rotate_erase",
        "train.ema_decay": 0.9,
        "train.clip_norm": 0.1,
        "train.on_nonfinite": "rollback",
        "train.label_smoothing": 0.1,
        "train.calibrate": True,
    },
    "unequal": {
        "data.cutmix": 1.0,
        "data.augment": ["crop", "colour_jitter", "rand_augment", "erase"],
        "data.sampling": "balanced",
        "optimizer.name": "muon",
        "train.microbatches": 1,
        "train.average_epochs": 1,
        "train.clip_mode": "agc",
        "train.clip_norm": 0.01,
        "train.class_weights": "auto",
        "train.loss": "focal",
        "train.loss_args": {"gamma": 1.5},
    },
    "thawed": {
        "data.test_augment": "flip",
        "optimizer.name": "sgd",
        "train.epochs": 2,
        "train.freeze": "backbone",
        "train.unfreeze_epoch": 2,
        "train.logit_adjustment": 1.0,
        "train.sam_rho": 0.05,
        "train.clip_mode": "value",
        "train.clip_norm": 0.01,
    },
    "labels": {
        "data.name": "twelve_pixels_of_labels",
        "data.multi_label": True,
        "optimizer.name": "rmsprop",
        "train.class_weights": "auto",
        "train.loss": "asymmetric",
    },
    "features": {
        "optimizer.name": "torch:Adagrad",
        "train.freeze": "backbone",
        "train.cache_features": True,
        "train.loss": "bce",
    },
}


def pixels(count: int) -> Any:
    generator = np.random.Generator(np.random.Philox(key=count))
    return generator.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


@register_dataset("twelve_pixels")
def _images(_: str | None) -> OwnImages:
    return OwnImages(pixels(28), np.arange(28) % 7 % 3, pixels(9), np.arange(9) % 3)


@register_dataset("twelve_pixels_of_labels")
def _labelled_images(_: str | None) -> OwnImages:
    labels = [(np.arange(count)[:, None] % (2, 3, 4) == 0).astype(np.uint8) for count in (28, 9)]
    return OwnImages(pixels(28), labels[0], pixels(9), labels[1])


class Watched(Engine):
    """A run in which the host may wait for the device only where it is to."""

    device: SecondDevice

    def _do_steps(self, batches: Iterable[Batch], done: int) -> None:
        with self.device.without_waiting():
            super()._do_steps(batches, done)

    def _log_point(self) -> None:
        with self.device.without_waiting(forbidden=False):
            super()._log_point()


def make_teacher(dataset: Dataset) -> LoadedTeacher:
    """Return a network that answers for these images at another size and in another order."""
    torch.manual_seed(1)
    size, names = (8, 8), dataset.class_names[::-1]
    module = models.create(
        "quicknet", {"widths": [8]}, num_classes=3, in_channels=3, image_size=size
    )
    facts = {"class_names": names, "image_size": size}
    network = StoredNetwork(module.eval(), "quicknet", facts, "", dataset.scaling, Path(), "")
    return LoadedTeacher(network, file_sha256="")


def train(
    changes: dict[str, Any], device: SecondDevice | None, *, taught: bool
) -> tuple[str, list[float]]:
    """Return the digest of the chosen weights, and the probabilities of the test images."""
    config = replace(RunConfig(), COMMON | changes)
    accelerator = accelerator_of(config, second=device is not None)
    dataset = load(config.data, config.seed)
    model = build_model(config, dataset)
    kind = Engine
    if device:
        kind, Watched.device = Watched, device
    engine = kind(
        accelerator, config, dataset, model, NoCheckpoints(), StopRequest(), code={},
        teacher=make_teacher(dataset) if taught else None,
    )  # fmt: skip
    engine.fit()
    tested = engine.test().test
    return model_state.digest(engine.module), tested.probabilities.ravel().tolist()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_waits_at_log_points_only_and_has_the_same_bits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the images to the figures of the test; the last step of an epoch is a short one."""
    taught = name == "averaged"
    expected = train(RUNS[name], None, taught=taught)
    with second_device(monkeypatch) as device:
        assert train(RUNS[name], device, taught=taught) == expected


def test_an_evaluation_of_many_blocks_waits_as_often_as_one_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = []
    config = replace(RunConfig(), COMMON)
    dataset = load(config.data, config.seed)
    for block_samples in (22, 4):
        with second_device(monkeypatch) as device:
            accelerator = accelerator_of(config, second=True)
            model = model_state.move(build_model(config, dataset), accelerator.device)
            there = dataset.to(accelerator.device)
            device.waits.clear()
            evaluation.predict(
                accelerator, model, there.train, there.scaling, block_samples=block_samples
            )
            waits.append(device.waits)
    assert waits[0] == waits[1]


def do_steps(
    model: torch.nn.Module,
    optimizer: str,
    device: SecondDevice | None,
    *,
    scale: float | None = None,
    first_may_wait: bool = False,
    **train: Any,
) -> list[Any]:
    """Do a step and one with empty micro-batches; return what they lead to.

    Args:
        scale: of the losses, as fp16 has it.
        first_may_wait: whether the first step may, as it makes the optimiser's state.
    """
    config = replace(RunConfig(), {f"train.{key}": value for key, value in train.items()})
    accelerator = accelerator_of(config, second=device is not None)
    if scale:
        accelerator.scaler = torch.amp.GradScaler(accelerator.device.type, init_scale=scale)
    model = model_state.move(model, accelerator.device).train()
    built = optimizers.build(OptimizerConfig(optimizer, lr=0.01), model, 3)
    prepared = accelerator.prepare_optimizer(built, device_placement=False)
    step = TrainStep(accelerator, model, prepared, config.train, seed=0)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(11, 1, SIDE, SIDE, generator=generator).to(accelerator.device)
    targets = (torch.arange(11) % 3).to(accelerator.device)
    results = []
    for number, (count, sizes) in enumerate([(11, (3, 3, 3, 2)), (5, (3, 2, 0, 0))], start=1):
        forbidden = number > 1 or not first_may_wait
        with device.without_waiting(forbidden=forbidden) if device else contextlib.nullcontext():
            results.append(step(number, images[:count], targets[:count], sizes))
    figures = [[float(one.loss), float(one.accuracy)] for one in results]
    return [figures, *(value.tolist() for value in model_state.tensors(model).values())]


CASES = [
    *zip(FAMILIES, itertools.cycle(("sgd", "adam", "adamw"))),
    ("quicknet", "muon"),
    *(("lenet5", name) for name in ("rmsprop", "torch:NAdam")),
]


@pytest.mark.parametrize(("family", "optimizer"), CASES)
def test_a_step_waits_for_nothing_and_has_the_same_bits(
    family: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, has_dropout = FAMILIES[family]
    arguments = arguments | ({"dropout": 0.3} if has_dropout else {})

    def steps(device: SecondDevice | None) -> list[Any]:
        torch.manual_seed(0)
        size = (SIDE, SIDE)
        model = models.create(family, arguments, num_classes=3, in_channels=1, image_size=size)
        return do_steps(model, optimizer, device, microbatches=4)

    expected = steps(None)
    with second_device(monkeypatch) as device:
        assert steps(device) == expected


def test_parameters_without_a_gradient_cost_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(device: SecondDevice | None) -> list[Any]:
        return do_steps(Net(norm=True), "sgd", device, microbatches=4)

    expected = steps(None)
    with second_device(monkeypatch) as device:
        assert steps(device) == expected


@pytest.mark.parametrize(
    "name", ["Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "RAdam", "Rprop"]
)
def test_no_optimiser_of_torch_waits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some round otherwise where they leave numbers on the device that the host has on the CPU."""
    expected = do_steps(Net(), f"torch:{name}", None, microbatches=4)
    monkeypatch.setattr(optimizers_on_gpus, "CAPTURABLE_DEVICES", ("meta",))
    for word in optimizers_on_gpus.CAPTURABLE:
        module = importlib.import_module(f"torch.optim.{word.lower()}")
        monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda: ["meta"])
    with second_device(monkeypatch) as device:
        found = do_steps(
            Net(), f"torch:{name}", device, microbatches=4, first_may_wait=name == "ASGD"
        )
    assert len(found) == len(expected)
    for here, there in zip(expected, found, strict=True):
        assert np.allclose(here, there, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop", "muon"])
def test_the_scaling_of_fp16_costs_no_wait(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that is a power of two changes no bit; one that overflows, no weight."""
    expected = do_steps(Net(), optimizer, None, microbatches=4)
    with second_device(monkeypatch) as device:
        assert do_steps(Net(), optimizer, device, microbatches=4, scale=1024.0) == expected
        _, *weights = do_steps(Net(), optimizer, device, microbatches=4, scale=math.inf)
    assert weights == [value.tolist() for value in Net().state_dict().values()]


@pytest.mark.parametrize("policy", [[name] for name in TABLE] + ["flip_shift_cutout"], ids=str)
def test_images_are_augmented_without_waiting(
    policy: str | list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.from_numpy(pixels(20)).permute(0, 3, 1, 2).contiguous()
    augment = Augmentation(augmentations.canonical(policy), seed=3)
    expected = augment(images, torch.arange(20), 1)
    with second_device(monkeypatch) as device:
        there = images.to(DEVICE)
        with device.without_waiting():
            found = augment(there, torch.arange(20), 1)
        assert torch.equal(found.cpu(), expected)


def test_the_second_device_refuses_what_a_gpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above could not fail."""
    with second_device(monkeypatch) as device:
        there = torch.arange(3.0, device="meta")
        assert (there * torch.tensor(2.0)).tolist() == [0.0, 2.0, 4.0]
        assert device.waits == ["a copy to the host"]
        with pytest.raises(RuntimeError, match="all tensors on one device"):
            there + torch.ones(3)
        for wait in (
            lambda: there.sum().item(),
            lambda: there[there > 1],
            there.nonzero,
            lambda: torch.tensor([1.0], device="meta"),
            lambda: bool(there.isfinite().all()),
            lambda: torch.equal(there, there),
            there.cpu,
            there.numpy,
            lambda: there.copy_(torch.ones(3)),
        ):
            with device.without_waiting(), pytest.raises((AssertionError, RuntimeError)):
                wait()
