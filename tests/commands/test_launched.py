"""Commands behind a launcher of two processes: all work together, or rank 0 alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.distributed.launch import run_forked
from trainer.__main__ import COMMANDS, ON_RANK_0

TOGETHER = {
    *("crossval", "doctor", "evaluate", "features", "inspect-data", "lr-find", "predict"),
    *("profile", "replay", "train", "verify"),
}
REFUSED = {"demo": ["none"], "sweep": ["--space", "none.yaml"]}
ARGUMENTS = {
    **{name: ["none"] for name in ("bench", "compare", "report", "summary")},
    "cache": ["--cache_dir", "none"],
    "convert-weights": ["mine.pt"],
    "export": ["none", "--format", "onnx"],
    "explain": ["none", "none.png"],
    "models": ["none"],
    "push": ["none", "me/mine"],
    "submit": ["--config", "none.yaml"],
}
WORKS = ("cache", "convert-weights")
"""those that rank 0 can do with these; of the others nothing is there"""


def test_every_command_is_of_one_kind() -> None:
    kinds = [TOGETHER, ON_RANK_0, set(REFUSED)]
    assert sum(map(len, kinds)) == len(COMMANDS)
    assert set().union(*kinds) == set(COMMANDS)


def test_rank_0_works_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the commands that need the machine for themselves end with one message."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    torch.save({"layer.weight": torch.ones(2, 3)}, here / "mine.pt")
    loop = f"""
import sys
from trainer import __main__
for words in {[[name, *more] for name, more in {**ARGUMENTS, **REFUSED}.items()]}:
    sys.argv = ["trainer", *words]
    try:
        __main__.main()
    except SystemExit as end:
        print("ended", end.code, words[0])
"""

    def ends_of(rank: int) -> tuple[dict[str, str], str]:
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        done = run_forked(1, tmp_path, "-c", loop, **variables)
        assert done.returncode == 0, done.stderr
        ends = [line.split() for line in done.stdout.splitlines() if line.startswith("ended")]
        return {name: code for _, code, name in ends}, done.stderr

    ends, errors = ends_of(1)
    assert ends == dict.fromkeys(ON_RANK_0, "0") | dict.fromkeys(REFUSED, "2")
    assert errors == ""
    assert [path.name for path in here.iterdir()] == ["mine.pt"]
    ends, errors = ends_of(0)
    assert ends == dict.fromkeys(COMMANDS.keys() - TOGETHER, "2") | dict.fromkeys(WORKS, "0")
    assert len(errors.splitlines()) == len(ends) - len(WORKS)
    assert (here / "mine.safetensors").is_file()
