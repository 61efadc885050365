"""Compute golden digests in this process, and print them: a JSON object a line, name and digest.

python -m tests.golden.compute NAME ...
"""

from __future__ import annotations

from trainer.base import kernels

kernels.choose("portable")  # before torch is imported

import hashlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402

from tests.golden import cases  # noqa: E402
from trainer.base.tensor_files import weights_sha256  # noqa: E402
from trainer.checkpoint.writing import NoCheckpoints  # noqa: E402
from trainer.config.augmentations import canonical  # noqa: E402
from trainer.config.plugins import register_dataset  # noqa: E402
from trainer.config.schema import ResizeRule, RunConfig, ScheduleConfig, replace  # noqa: E402
from trainer.data.augment.policy import Augmentation  # noqa: E402
from trainer.data.loading import load  # noqa: E402
from trainer.data.pictures import decoding, resizing  # noqa: E402
from trainer.data.sources.user_dataset import OwnImages  # noqa: E402
from trainer.network import model_state  # noqa: E402
from trainer.network.new_model import build_model  # noqa: E402
from trainer.ranks import process_group, processes  # noqa: E402
from trainer.ranks.preemption import StopRequest  # noqa: E402
from trainer.run.results import test_results  # noqa: E402
from trainer.training.engine import Engine  # noqa: E402
from trainer.training.figures import FIGURES  # noqa: E402
from trainer.training.loss import distillation_loss  # noqa: E402
from trainer.training.optimizer_state import optimizer_state  # noqa: E402
from trainer.training.schedules import learning_rate  # noqa: E402

CLASSES = 4
SIDE = 12
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
    figures = test_results(tested.test, tested.augmented, dataset.class_names, config)
    tensors, _ = optimizer_state(engine.optimizer.optimizer)
    return sha256(
        last,
        model_state.digest(engine.module),
        weights_sha256(tensors),
        [engine.state.loss_sum, engine.state.last_accuracy],
        {key: value for key, value in figures.items() if key not in (*FIGURES[1:], "intervals")},
        tested.test.probability,
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
        case "loss":
            return distillation()
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
