"""Compute golden digests in this process, and print them: a JSON object a line, name and digest.

python -m tests.golden.compute NAME ...
"""

from __future__ import annotations

from trainer.base import kernels

kernels.choose("portable")  # before torch is imported

import sys  # noqa: E402

sys.modules["boto3"] = None  # type: ignore[assignment]  # or accelerate imports it, in seconds

import hashlib  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402

from tests.golden import cases  # noqa: E402
from trainer.base import seeding  # noqa: E402
from trainer.base.tensor_files import weights_sha256  # noqa: E402
from trainer.checkpoint.writing import NoCheckpoints  # noqa: E402
from trainer.config.augmentations import canonical  # noqa: E402
from trainer.config.plugins import register_dataset  # noqa: E402
from trainer.config.schema import ResizeRule, RunConfig, ScheduleConfig, replace  # noqa: E402
from trainer.data import sampling  # noqa: E402
from trainer.data.augment.policy import Augmentation  # noqa: E402
from trainer.data.loading import load  # noqa: E402
from trainer.data.pictures import decoding, resizing  # noqa: E402
from trainer.data.sources.user_dataset import OwnImages  # noqa: E402
from trainer.network import model_state  # noqa: E402
from trainer.network.new_model import build_model  # noqa: E402
from trainer.ranks import process_group, processes  # noqa: E402
from trainer.ranks.preemption import StopRequest  # noqa: E402
from trainer.run.results import test_results  # noqa: E402
from trainer.training import figures  # noqa: E402
from trainer.training.engine import Engine  # noqa: E402
from trainer.training.label_metrics import LabelPredictions, label_results  # noqa: E402
from trainer.training.loss import distillation_loss  # noqa: E402
from trainer.training.metrics import Predictions  # noqa: E402
from trainer.training.optimizer_state import optimizer_state  # noqa: E402
from trainer.training.schedules import learning_rate  # noqa: E402

CLASSES = 4
SIDE = 12
OF_THEIR_OWN = (*figures.FIGURES[1:], "intervals")
"""figures that have cases of their own"""
RULES: dict[ResizeRule, float] = {"crop": 0.9, "pad": 1.0, "stretch": 1.0}


def pixels(count: int, height: int = SIDE, width: int = SIDE) -> Any:
    """Return images of noise over slopes: uint8, (count, height, width, 3)."""
    generator = np.random.Generator(np.random.Philox(key=count))
    noise = generator.integers(0, 128, (count, height, width, 3))
    slope = np.arange(height)[:, None] + np.arange(width)
    return (noise + (slope * 5 % 128)[None, :, :, None]).astype(np.uint8)


@register_dataset("golden_images")
def images(root: str | None) -> OwnImages:
    """Return 58 images to train and validate with, and 20 to test."""
    return OwnImages(pixels(58), np.arange(58) % CLASSES, pixels(20), np.arange(20) % CLASSES)


@register_dataset("golden_rare")
def rare_images(root: str | None) -> OwnImages:
    """Return the same images, of classes of unequal size."""
    classes = np.repeat(np.arange(CLASSES), (8, 31, 14, 5))
    return OwnImages(pixels(58), classes, pixels(20), np.arange(20) % CLASSES)


@register_dataset("golden_labels")
def labelled_images(root: str | None) -> OwnImages:
    """Return the same images with up to three labels each."""
    return OwnImages(pixels(58), labels(58), pixels(20), labels(20))


def labels(count: int) -> Any:
    """Return 1 where an image has a label, uint8 (count, CLASSES); some images have none."""
    return (np.arange(count)[:, None] % (3, 4, 5, 7) == 0).astype(np.uint8)


def sha256(*values: Any) -> str:
    """Return a digest of arrays and of values that JSON has."""
    digest = hashlib.sha256()
    for value in values:
        content = np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else None
        digest.update(json.dumps(value).encode() if content is None else content)
    return digest.hexdigest()


def train(accelerator: Accelerator, changes: cases.Changes) -> str:
    """Train, choose and test: of the weights, the optimiser's state and all figures."""
    config = replace(RunConfig(), changes)
    dataset = load(config.data, config.seed)
    model = build_model(config, dataset)
    engine = Engine(accelerator, config, dataset, model, NoCheckpoints(), StopRequest(), code={})
    engine.fit()
    last = model_state.digest(engine.module)
    tested = engine.test()
    results = test_results(tested.test, tested.augmented, dataset.class_names, config)
    tensors, _ = optimizer_state(engine.optimizer.optimizer)
    return sha256(
        last,
        model_state.digest(engine.module),
        weights_sha256(tensors),
        [engine.state.loss_sum, engine.state.last_accuracy],
        {key: value for key, value in results.items() if key not in OF_THEIR_OWN},
        *(
            [tested.test.probabilities]
            if isinstance(tested.test, LabelPredictions)
            else [tested.test.probability]
        ),
    )


def rates(name: str) -> str:
    """Compute the learning rates of seven epochs of 13 steps."""
    warmup = {"warmup_epochs": 1.5} if name != "restarts" else {}
    config = ScheduleConfig(name=name, **warmup, **cases.SCHEDULES[name])  # type: ignore[arg-type]
    return sha256([learning_rate(config, 0.06, step, 91, 13, step // 30) for step in range(1, 92)])


def transform(policy: str | list[Any]) -> str:
    """Transform images of several shapes in two epochs."""
    augmentation = Augmentation(policy, seed=3)
    found = []
    for height, width in ((12, 12), (17, 31)):
        batch = torch.from_numpy(pixels(40, height, width)).permute(0, 3, 1, 2).contiguous()
        found += [augmentation(batch, torch.arange(40), epoch).numpy() for epoch in (1, 2)]
    return sha256(*found)


def picture(interpolation: Any) -> str:
    """Encode and decode files, and make them fit by every rule."""
    from PIL import Image

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "jpg", "webp"):
            file = Path(folder) / f"picture.{suffix}"
            Image.fromarray(pixels(1, 61, 83)[0]).save(file)
            for rule, share in RULES.items():
                fit = resizing.Fit(rule, share, interpolation)
                found.append(decoding.decode(file, 3, (24, 20), fit=fit))
    result = torch.empty((3, 19, 23), dtype=torch.uint8)
    resizing.resize_into(result, pixels(1, 61, 83)[0], interpolation)
    return sha256(*found, result.numpy())


def distillation() -> str:
    """Compute the loss of a teacher's answers, and its gradient."""
    values = torch.from_numpy(pixels(2).reshape(2, -1)[:, :400].astype(np.float32) / 32)
    logits = values[0].view(40, 10).requires_grad_()
    loss = distillation_loss(logits, values[1].view(40, 10), 2.0).sum()
    torch.autograd.backward(loss)
    assert logits.grad is not None
    return sha256(loss.detach().numpy(), logits.grad.numpy())


def order(kind: str) -> str:
    """Draw the samples of two epochs."""
    weights = np.arange(1, 101) ** 2 / 7
    by_class = sampling.SamplesByClass(np.arange(100) ** 2 % 7)
    draws: dict[str, Callable[[int], Any]] = {
        "uniform": lambda epoch: seeding.permutation(3, epoch, 100),
        "balanced": lambda epoch: sampling.draw_balanced(3, epoch, by_class),
        "weights": lambda epoch: sampling.draw_by_weight(3, epoch, weights),
    }
    return sha256(*(draws[kind](epoch) for epoch in (1, 2)))


def figures_of(kind: str) -> str:
    """Compute the figures of 300 images; of labels without the intervals."""
    classes = 120 if kind == "many_classes" else 7
    generator = np.random.Generator(np.random.Philox(key=classes))
    raw = generator.integers(1, 2**12, (300, classes)).astype(np.float32)
    probabilities = raw / raw.sum(1, keepdims=True, dtype=np.float32)
    loss = raw[:, 0] / 2**12
    if kind == "labels":
        target = (raw > 3000).astype(np.uint8)
        found = LabelPredictions(target, probabilities * 3, loss, np.full(classes, 0.4))
        results = label_results(found, list(map(str, range(classes))), 3)
        return sha256({key: value for key, value in results.items() if key != "intervals"})
    chosen = probabilities.argmax(1)
    own = probabilities[np.arange(300), chosen]
    kept = probabilities.astype(np.float16 if kind == "many_classes" else np.float32)
    target = np.where(raw[:, 1] > 2000, chosen, np.arange(300) % classes)
    return sha256(figures.compute(Predictions(target, chosen, own, loss, kept), 3))


def compute(accelerator: Accelerator, name: str) -> str:
    """Return the digest of a case."""
    group, _, part = name.partition(".")
    match group:
        case "schedule":
            return rates(part)
        case "transform":
            return transform(part)
        case "list":
            return transform(canonical([part]))
        case "picture":
            return picture(part)
        case "distillation":
            return distillation()
        case "order":
            return order(part)
        case "figures":
            return figures_of(part)
    return train(accelerator, cases.training_cases()[name])


def main() -> None:
    """Print the digests of the named cases."""
    config = replace(RunConfig(), cases.COMMON)
    processes.check_launch(config)
    accelerator = process_group.create_accelerator(config)
    processes.set_threads(1)
    for name in sys.argv[1:]:
        print(json.dumps([name, compute(accelerator, name)]), flush=True)


if __name__ == "__main__":
    main()
