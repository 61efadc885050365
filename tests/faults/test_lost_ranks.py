"""If a rank dies or hangs, the others end and say which one it was."""

from __future__ import annotations

import platform
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.distributed import forked_runs
from tests.distributed.launch import ACCELERATE, own_words
from tests.faults.running import Started, ranks_of, start
from tests.runs import Run, command, train_apart, train_forked


def start_ranks(
    folder: Path, *more: str, processes: int = 2
) -> tuple[Started, list[psutil.Process]]:
    """Start a run that does not end by itself; return torchrun and its ranks."""
    process = start(folder, "--train.epochs", "10000", *more, ranks=processes)
    return process, ranks_of(process)


EARLY = """
import os
from models.quicknet import QuickNet
from trainer.training import exchange

exchange.BUCKET_BYTES = 2048
os.environ["LOCAL_WORLD_SIZE"] = "1"

class Early(QuickNet):
    pass
"""
"""exchanges gradients in a thread during the backward pass, as large ones on several machines"""


@pytest.mark.parametrize(("victim", "is_early"), [(0, False), (1, False), (1, True)])
def test_a_rank_that_is_killed_is_named(victim: int, is_early: bool, tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text(EARLY)
    early = ["--model.name", f"{tmp_path / 'early.py'}:Early"] if is_early else []
    launched, ranks = start_ranks(tmp_path / "run", *early)
    ranks[victim].kill()
    output, _ = launched.communicate(timeout=60)
    assert launched.returncode == 1
    here = platform.node()
    # Its end is seen: nobody waits for an answer.
    assert f"rank {1 - victim} on {here}: rank {victim} on {here} died (" in output, output
    assert "Traceback" not in output.split("torch/distributed")[0]
    assert psutil.wait_procs(ranks, timeout=1)[1] == []
    if victim == 1:
        assert Run(tmp_path / "run", 1).json("status.json")["state"] == "failed"


def test_a_rank_that_hangs_is_named_within_the_time_that_is_configured(tmp_path: Path) -> None:
    launched, ranks = start_ranks(tmp_path / "run", "--timeout_seconds", "4")
    ranks[1].send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    ranks[0].wait(timeout=60)
    assert time.monotonic() - stopped_s < 4 + 10 + 5, "the time, and that for others to answer"
    ranks[1].kill()  # otherwise the launcher would wait half a minute for it
    output, _ = launched.communicate(timeout=60)
    assert f"rank 1 on {platform.node()} died, or has not answered in time" in output
    assert psutil.wait_procs(ranks, timeout=1)[1] == []


def test_only_the_killed_one_of_many_ranks_is_named_and_once(tmp_path: Path) -> None:
    """Rank 0 does not exchange anything with rank 3 itself, and learns of it from the others."""
    launched, ranks = start_ranks(tmp_path / "run", processes=4)
    ranks[3].kill()
    output, _ = launched.communicate(timeout=60)
    host = platform.node()
    said = re.findall(rf"^rank \d on {host}: (.*)", output, re.MULTILINE)
    assert len(said) == 1, output
    assert said[0].startswith(f"rank 3 on {host} died (")
    root_cause = output.partition("Root Cause (first observed failure)")[2]
    assert "rank      : 3 (" in root_cause
    assert "Signal 9 (SIGKILL)" in root_cause


FAILING = """
import os, warnings
from models.quicknet import QuickNet

class Broken(QuickNet):
    def forward(self, images):
        if len(images) > 2 and self.training and os.environ["RANK"] in os.environ["BROKEN_RANKS"]:
            warnings.warn("the files of this model are old")
            raise FileNotFoundError("calibration.bin")
        return super().forward(images)
"""


@pytest.mark.parametrize("broken", ["2", "01"], ids=["one rank", "all ranks, accelerate launch"])
def test_one_rank_reports_a_mistake_in_the_code_and_last(broken: str, tmp_path: Path) -> None:
    plugin, folder = tmp_path / "broken.py", tmp_path / "run"
    plugin.write_text(FAILING)
    more, env = ["--model.name", f"{plugin}:Broken"], {"BROKEN_RANKS": broken}
    if broken == "2":
        words = command(folder, *more)[1:]
        torchrun = forked_runs.start(tmp_path / "output", *words, ranks=4, **env)
        output, _ = torchrun.communicate(timeout=120)
        run = Run(folder, torchrun.wait(), errors=output)
    else:
        run = train_apart(folder, *more, launcher=ACCELERATE, **env)
    assert run.exit_code == 1
    rank = re.search(rf"^rank (\d) on {platform.node()}: {plugin}, line", run.errors, re.MULTILINE)
    assert rank is not None, run.errors
    assert rank[1] in broken
    error = (
        f"rank {rank[1]} on {platform.node()}: {plugin}, line 9: forward fails, in code that is "
        f"not Lockstep's: FileNotFoundError: calibration.bin"
    )
    said, _, table = run.errors.partition("Root Cause (first observed failure)")
    assert said.splitlines().count(error) == 1
    assert said.count("FileNotFoundError: calibration.bin\n") == 1, "no other rank"
    last = [line for line in table.splitlines() if line.strip("= ")][-1]
    assert last.strip().removeprefix("traceback : ") == error
    assert ": Traceback" not in said, "of any rank"
    assert said.count("UserWarning: the files of this model") == ("0" in broken), "only rank 0"


ALONE = """
import os
import torch
from models.quicknet import QuickNet

class Alone(QuickNet):
    def forward(self, images):
        if len(images) > 16 and os.environ["RANK"] == "1":
            torch.distributed.all_reduce(torch.zeros(5))
        return super().forward(images)
"""


def test_a_rank_that_calls_another_collective_is_named_with_its_line(tmp_path: Path) -> None:
    """Where torch compares the calls of all ranks."""
    plugin, host = tmp_path / "alone.py", platform.node()
    plugin.write_text(ALONE)
    more = ["--model.name", f"{plugin}:Alone", "--train.microbatches", "3"]
    run = train_forked(tmp_path / "run", 3, *more, TORCH_DISTRIBUTED_DEBUG="DETAIL")
    assert run.exit_code in (1, 2)
    said = re.findall(rf"^rank \d on {host}: (.*)", run.errors, re.MULTILINE)
    assert len(said) == 1, run.errors
    assert said[0].startswith(
        f"the ranks do not call the same collective: rank 1 on {host} ALLREDUCE of [5] in "
        f"{plugin}, line 9; rank 0 on {host} and 1 more ALLREDUCE of [1] in trainer/"
    )


def test_a_user_error_is_said_once_and_last_in_the_launchers_table(tmp_path: Path) -> None:
    words = command(tmp_path / "run", "--model.name", "lenet7")[1:]
    torchrun = forked_runs.start(tmp_path / "output", *words, ranks=2)
    output, _ = torchrun.communicate(timeout=120)
    run = Run(tmp_path / "run", torchrun.wait(), errors=output)
    assert run.exit_code == 1  # the launcher's own; status.json has ours
    assert run.json("status.json") == {"state": "failed", "exit_code": 2, "step": 0}
    assert own_words(run.errors).count("model.name, model.args: ") == 1
    said, _, table = run.errors.partition("Root Cause (first observed failure)")
    assert said.splitlines()[0].startswith("model.name, model.args: ")
    assert "traceback : model.name, model.args: " in table
