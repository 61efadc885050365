"""A start costs the same for any number of ranks, and they wait as long as it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.launch import run_worker
from tests.runs import Run, train_forked, train_here
from trainer.base.errors import UserError
from trainer.config.schema import RunConfig, replace
from trainer.ranks import process_group, processes

WATCHED = """
import os, sys
from models.quicknet import QuickNet

class Watched(QuickNet):
    pass

def note(event, arguments):
    if event == "open" and "step-" in str(arguments[0]):
        with os.fdopen(os.open(os.environ["OPENED"], os.O_APPEND | os.O_WRONLY), "a") as file:
            file.write(f"{os.environ['RANK']} {os.path.basename(arguments[0])}\\n")

if "OPENED" in os.environ:
    sys.addaudithook(note)
"""


def test_work_of_one_rank_may_take_longer_than_the_ranks_wait(tmp_path: Path) -> None:
    """On rank 0, on one rank of the machine before the others, and on another rank."""
    calls = tmp_path / "calls"
    outcome = run_worker(
        2, tmp_path / "outcome", name="wait", seconds=5.0, timeout_seconds=4.0, calls=str(calls)
    )
    assert outcome == [[0, -1], [0, 1]]
    assert calls.read_text().split() == ["0", "0", "1", "1"]


def test_only_rank_0_reads_a_checkpoint(tmp_path: Path) -> None:
    plugin, opened = tmp_path / "watched.py", tmp_path / "opened"
    plugin.write_text(WATCHED)
    opened.touch()
    more = ["--train.epochs", "2", "--checkpoint.every_epochs", "1"]
    more += ["--model.name", f"{plugin}:Watched"]
    assert train_here(tmp_path / "first", *more) == 0
    half_way = tmp_path / "first" / "checkpoints" / "step-00000022"
    # With torch's checks that all ranks make the same calls, from the start of a run to its end.
    env = {"OPENED": str(opened), "TORCH_DISTRIBUTED_DEBUG": "DETAIL"}
    run = train_forked(tmp_path / "second", 2, *more, "--resume", str(half_way), **env)
    assert run.exit_code == 0, run.errors
    assert run.digest == Run(tmp_path / "first", 0).digest
    found = {line for line in opened.read_text().splitlines() if "safetensors" in line}
    assert {"0 model.safetensors", "0 optimizer.safetensors"} <= found
    assert {line[0] for line in found} == {"0"}


def test_ddp_is_refused_where_torchs_checks_would_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a message, by a segmentation fault."""
    fast = replace(RunConfig(), {"train.reduction": "fast"})
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", processes.STARTED_HERE)  # they need not agree
    with pytest.raises(UserError, match=r"^TORCH_DISTRIBUTED_DEBUG: is DETAIL"):
        process_group.create_accelerator(fast)
