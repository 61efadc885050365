"""Each command of each page is taken by its program's parser; `python -m tests.pages` runs them."""

from __future__ import annotations

import re

import pytest

from tests.pages.__main__ import LEFT_OUT, reason
from tests.pages.shown import OURS, PAGES, Command, commands, is_command, without_remark
from tests.pages.taken import take
from trainer.__main__ import COMMANDS
from trainer.base.errors import UserError

SHOWN = list({each.text: each for page in PAGES for each in commands(page)}.values())


def test_commands_are_found() -> None:
    ours = [each.words for each in SHOWN if each.words[1:3] == ["-m", "trainer"]]
    assert {words[3] for words in ours} == {*COMMANDS}
    assert len(SHOWN) > 200


def test_what_stands_behind_a_command_is_no_part_of_it() -> None:
    line = "python train.py --help                                            every key"
    assert without_remark(line) == "python train.py --help"
    assert without_remark("$ python train.py --seed 1") == "python train.py --seed 1"
    assert is_command("ACCELERATE_USE_CPU=true torchrun train.py")
    assert not is_command("weights       /data/resnet.safetensors")


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_is_taken(command: Command) -> None:
    take(command)


@pytest.mark.parametrize(
    "text",
    [
        "python train.py --config configs/digits.yaml --train.epoch 3",
        "python train.py --config configs/numbers.yaml",
        "python -m trainer evaluate RUN --splits test",
        "python benchmarks/accuracy.py --sead 0",
        "torchrun --nproc 2 --standalone train.py --train.epoch 3",
        "accelerate launch --config_file launch/cpu_3.yaml train.py",
        "pip install -c constraints.txt -e '.[jpgs]'",
        "sbatch launch/slurm.sbatch --config configs/numbers.yaml",
        "./launch/quickstart.sh --train.epoch 1",
        "./launch/test.sh tests/test_nothing.py",
        "kubectl apply -f launch/pods.yaml",
        "--train.freeze_all true",
    ],
)
def test_a_wrong_command_is_refused(text: str) -> None:
    with pytest.raises((AssertionError, SystemExit, UserError)):
        take(Command(PAGES[0], text))


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_not_run_is_shown_somewhere(what: str) -> None:
    assert any(re.search(what, each.text) for each in SHOWN)


def test_most_are_run() -> None:
    commands_of_ours = [each for each in SHOWN if each.program in OURS]
    assert sum(reason(each) is None for each in commands_of_ours) > 100
