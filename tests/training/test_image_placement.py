"""Images take a device's memory only where a step and an evaluation leave room, and change no bit.

The device is an imitation, which computes the CPU's bits (tests/second_device.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.second_device import DEVICE, accelerator_of, second_device
from trainer.base.device_memory import MARGIN, Need, room_bytes
from trainer.checkpoint.writing import NoCheckpoints
from trainer.config.schema import RunConfig, replace
from trainer.data.loading import load
from trainer.network import model_state
from trainer.network.new_model import build_model
from trainer.ranks.preemption import StopRequest
from trainer.training import memory_trial
from trainer.training.engine import Engine

KEYS: dict[str, Any] = {
    "data.name": "digits",
    "data.train_size": 120,
    "data.test_size": 30,
    "data.augment": "flip",
    "data.mixup": 0.3,
    "data.prefetch": 0,  # the imitation is only in the main thread
    "model.name": "quicknet",
    "model.args": {"widths": [8]},
    "train.batch_size": 50,
    "train.microbatches": 2,
    "train.epochs": 1,
    "train.ema_decay": 0.9,
    "optimizer.name": "adamw",
    "threads": 1,
}
GB = 1e-9
IMAGES = {"train": 108 * 64, "validation": 12 * 64, "test": 30 * 64}
"""bytes of each part"""


@dataclass
class MeasuredMemory:
    """A device's memory that answers as it is told, and notes what it is asked."""

    free: int
    needed: int
    name: str = "the device"
    total_bytes: int = 100_000
    asked: list[str] = field(default_factory=list)

    def free_bytes(self) -> int:
        self.asked.append("free")
        return self.free

    def begin(self) -> None:
        self.asked.append("begin")

    def end(self) -> int:
        self.asked.append("end")
        return self.needed


def train(
    monkeypatch: pytest.MonkeyPatch, limit_gb: float | None, memory: MeasuredMemory | None = None
) -> tuple[set[str], str]:
    """Return which parts of the images the device had, and the digest of the weights."""
    # On a GPU they are not there at first; only its own memory can be measured.
    config = replace(RunConfig(), {**KEYS, "data.device_memory_gb": 0.0 if memory else limit_gb})
    with second_device(monkeypatch):
        accelerator = accelerator_of(config, second=True)
        dataset = load(config.data, config.seed)
        model = build_model(config, dataset)
        engine = Engine(accelerator, config, dataset, model, NoCheckpoints(), StopRequest(), {})
        engine.config = replace(config, {"data.device_memory_gb": limit_gb})
        memory_trial.place_images(engine, memory)
        parts = {name for name in IMAGES if getattr(engine.data, name).images.device == DEVICE}
        engine.fit()
        engine.test()
        return parts, model_state.digest(engine.module)


def test_where_the_images_are_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere, expected = train(monkeypatch, None)
    assert everywhere == set(IMAGES)
    assert train(monkeypatch, 0) == (set(), expected)
    assert train(monkeypatch, (IMAGES["train"] + 1) * GB) == ({"train"}, expected)
    # What is too large for what is left stays, and a smaller part takes its place.
    memory = MeasuredMemory(free=40_000, needed=40_000 - 10_000 - IMAGES["train"] - 1_000)
    assert train(monkeypatch, None, memory) == ({"train", "validation"}, expected)
    assert memory.asked == ["begin", "end", "free"]


def test_a_limit_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MeasuredMemory(free=0, needed=0)
    parts, _ = train(monkeypatch, 1.0, memory)
    assert (parts, memory.asked) == (set(), [])


def test_processes_of_one_device_share_what_all_their_steps_leave() -> None:
    needs = [Need("a", 1000, 100), Need("b", 1000, 50), Need("a", 1000, 200)]
    free = [700, 400, 710]
    margin = 1000 * MARGIN
    assert room_bytes(needs, free, 0) == room_bytes(needs, free, 2) == (700 - 300 - margin) / 2
    assert room_bytes(needs, free, 1) == 400 - 50 - margin
    assert room_bytes([Need("a", 1000, 900)], [950], 0) == 0
    assert room_bytes([*needs[:2], Need("a", 1000, math.inf)], free, 0) == 0  # its step failed
