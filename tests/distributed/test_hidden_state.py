"""Networks with unusual state and draws: the same bits on any process count, and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from tests.distributed.launch import run_worker
from tests.nets import catalog
from tests.network.test_trial import RIGHT, configured
from trainer.checkpoint.writing import Checkpoints
from trainer.config import plugins
from trainer.config.schema import CheckpointConfig
from trainer.data.loading import load
from trainer.network import model_state
from trainer.network.new_model import build_model
from trainer.ranks.preemption import StopRequest
from trainer.training.engine import Engine

# 180 training samples: steps of 64, 64 and 52 in four pieces, two epochs.
CHANGES = {"train.epochs": 2, "data.train_size": 200, "train.batch_size": 64}
NAMES = [name for name in RIGHT if name not in ("HarmlessAttributes", "Versioned")]
AVERAGED = {"UnsavedBuffer", "LateBuffer", "GridOfTheBatch", "Merging", "SharedBuffer"}


def changes_of(name: str) -> dict[str, Any]:
    average = {"train.ema_decay": 0.9} if name in AVERAGED else {}
    return CHANGES | {"model.name": catalog.plugin(name), "model.args": {}} | average


def train(processes: int, folder: Path) -> list[Any]:
    runs = [changes_of(name) for name in NAMES]
    output = folder / f"out-{processes}"
    found: list[Any] = run_worker(processes, output, name="train", runs=runs, folder=str(folder))
    return found


def test_the_process_count_changes_nothing(tmp_path: Path) -> None:
    """Of one process with all four micro-batches of a step, and of four with one each.

    What a micro-batch leaves behind for the next one in the same process shows best there.
    """
    one, four = (dict(zip(NAMES, train(count, tmp_path), strict=True)) for count in (1, 4))
    assert [name for name in NAMES if four[name] != one[name]] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_resume_changes_nothing(name: str, tmp_path: Path) -> None:
    config = configured(name, **changes_of(name))
    dataset, accelerator = load(config.data, config.seed), Accelerator(cpu=True)

    def engine(folder: str) -> Engine:
        checkpoints = Checkpoints(tmp_path / folder, CheckpointConfig())
        model = build_model(config, dataset)
        code = plugins.fingerprints(config)
        return Engine(accelerator, config, dataset, model, checkpoints, StopRequest(), code)

    def end(engine: Engine) -> list[Any]:
        engine.fit()
        last = model_state.digest(engine.module)
        tested = engine.test().test
        return [last, model_state.digest(engine.module), tested.loss.tolist()]

    undisturbed = end(engine("whole"))
    for stop in ((1, 2), (2, 3)):  # within an epoch, and at an end of one
        before, after = engine(str(stop)), engine(str(stop))
        before.fit(stop)
        before.run_checkpoints.checkpoints.close()
        checkpoints = after.run_checkpoints.checkpoints
        saved = checkpoints.newest()
        assert saved
        after.load(saved)
        assert end(after) == undisturbed, stop
        checkpoints.close()
