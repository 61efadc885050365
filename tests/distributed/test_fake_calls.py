"""All ranks of a run make the same collectives, which torch's fake process group does not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.distributed import worker
from tests.distributed.fake_ranks import Message, be_rank, note_messages, play
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig, RunConfig, replace
from trainer.ranks import collectives, process_group
from trainer.ranks.caller_settings import preserve_caller_settings


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


def train_as_rank(rank: int, folder: Path, calls: Calls) -> list[list[Message]]:
    """Train, save and load as one of four ranks; return its messages."""
    config = replace(RunConfig(), {"data.name": "digits"} | RUN)
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "none",
    }
    with (
        be_rank(rank, 4),
        preserve_caller_settings(),
        pytest.MonkeyPatch.context() as patch,
        note_messages() as notes,
        calls,
    ):
        for name, value in {**variables, "ACCELERATE_USE_CPU": "true"}.items():
            patch.setenv(name, value)
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
