"""What one of several ranks calls, with torch's fake process group, which does none of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import models
from tests.distributed import worker
from tests.distributed.fake_ranks import Message, be_rank, note_messages, play
from tests.second_device import accelerator_of, second_device
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig, OptimizerConfig, RunConfig, replace
from trainer.network import model_state
from trainer.ranks import collectives, process_group
from trainer.ranks.caller_settings import preserve_caller_settings
from trainer.training import arriving_leaf, exchange, optimizers
from trainer.training.step import TrainStep


class Calls(TorchDispatchMode):
    """Notes the collectives of a rank, whose results are those that rank 0 had.

    Args:
        of_rank_0: its notes; None on rank 0 itself.
    """

    def __init__(self, of_rank_0: Calls | None) -> None:
        super().__init__()
        self.of_rank_0 = of_rank_0
        self.events: list[str] = []
        self.results: list[list[torch.Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do what is called; a collective's results are noted, or come from the notes."""
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            tensors = [each for each in tree_leaves(args) if isinstance(each, torch.Tensor)]
            # Objects are sent as bytes, as many as the longest of any rank has.
            kinds = [
                f"{each.dtype}{list(each.shape) if each.dtype is not torch.uint8 else ''}"
                for each in tensors
            ]
            self.events.append(f"{func.__name__} {' '.join(kinds)}")
            if self.of_rank_0 is not None:
                theirs = self.of_rank_0.results[len(self.results)]
                for own, other in zip(tensors, theirs, strict=True):
                    own.copy_(other)
            self.results.append([each.clone() for each in tensors])
        return result


RUN = {
    # Of 91 training images the third step has one: on most ranks it has no images.
    "data.train_size": 101,
    "data.validation_size": 10,
    "train.batch_size": 45,
    "train.microbatches": 8,
    "train.epochs": 2,
    "train.clip_norm": 1.0,
    "train.ema_decay": 0.9,
    "model.name": f"{Path(__file__).with_name('odd_model.py')}:OddModel",
}


def set_variables(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int) -> None:
    """Set a launcher's variables, of machines with one process each."""
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "none",
        "ACCELERATE_USE_CPU": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def train_as_rank(rank: int, folder: Path, calls: Calls) -> list[list[Message]]:
    """Train, save and load as one of four ranks; return its messages."""
    config = replace(RunConfig(), {"data.name": "digits"} | RUN)
    with (
        be_rank(rank, 4),
        preserve_caller_settings(),
        pytest.MonkeyPatch.context() as patch,
        note_messages() as notes,
        calls,
    ):
        set_variables(patch, rank, 4)
        accelerator = process_group.create_accelerator(config)
        collectives.check_same_configuration(accelerator, config)
        engine = worker.make_engine(accelerator, RUN, Checkpoints(folder, CheckpointConfig()))
        engine.fit()
        engine.test()
        newest = engine.run_checkpoints.newest()
        assert newest is not None
        engine.load(newest)
    return notes.groups


def test_all_ranks_call_the_same_whatever_images_they_have(tmp_path: Path) -> None:
    """In a run with checkpoints: its start, steps, log points, evaluations, and a load."""
    calls: list[Calls] = []
    ranks = []
    for rank in range(4):
        calls.append(Calls(calls[0] if calls else None))
        ranks.append(train_as_rank(rank, tmp_path / f"{rank}", calls[-1]))
    assert [each.events for each in calls[1:]] == [calls[0].events] * 3
    play(ranks)


class AtOnce:
    """Runs an exchange where it is handed over, as the host queues it on a GPU."""

    def run(self, work: Callable[[], None]) -> None:
        """Run it."""
        work()

    def finish(self) -> None:
        """Wait for nothing, as all is done."""


@pytest.mark.parametrize("early", [False, True])
def test_a_step_of_several_ranks_waits_for_no_device(
    early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether gradients leave during the backward pass or after it."""
    set_variables(monkeypatch, 1, 2)
    monkeypatch.setattr(arriving_leaf, "_Thread", AtOnce)
    if early:
        monkeypatch.setattr(exchange, "BUCKET_BYTES", 1024)
    with preserve_caller_settings(), be_rank(1, 2), second_device(monkeypatch) as device:
        config = replace(RunConfig(), {"train.microbatches": 4, "train.clip_norm": 1.0})
        accelerator = accelerator_of(config, second=True)
        monkeypatch.delenv("ACCELERATE_USE_CPU")  # Accelerate compares it with the device
        size = {"num_classes": 3, "in_channels": 1, "image_size": (12, 12)}
        model = models.create("quicknet", {"widths": [8, 16]}, **size)
        model = model_state.move(model, accelerator.device).train()
        optimizer = optimizers.build(OptimizerConfig("sgd", lr=0.01), model, 3)
        step = TrainStep(
            accelerator, model, accelerator.prepare_optimizer(optimizer), config.train, seed=0
        )
        images = torch.randn(5, 1, 12, 12).to(accelerator.device)
        targets = (torch.arange(5) % 3).to(accelerator.device)
        with note_messages() as notes:
            with device.without_waiting():
                step(1, images, targets, (3, 3, 3, 2))
                step(2, images, targets, (3, 3, 3, 2))
            # A rank without gradients has to ask which of them other ranks have.
            step(3, images[:0], targets[:0], (3, 2, 0, 0))
    assert len(notes.groups) == 3 if not early else len(notes.groups) > 12
