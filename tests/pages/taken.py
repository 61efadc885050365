"""Give the commands of the pages to the parsers of their programs, which refuse what is wrong."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from collections.abc import Sequence

from tests.conftest import REPOSITORY
from tests.pages.shown import Command
from trainer.__main__ import build_parser
from trainer.config import command_line

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
TESTED = {*re.findall(r"^(\S+)==", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)}
PHOTOGRAPHS = [
    *("--config", "finetune", "--data.root", "my_pictures"),
    *("--data.image_size_schedule", "null"),
]
"""what the pages' options without a command are for"""


def take(command: Command) -> None:
    """Fail if the command is not one: an unknown option, key, file, module or package."""
    words, program = command.words[1:], command.program
    take_it = TAKE.get(program)
    if take_it is not None:
        take_it(words)
    elif program.startswith("--"):
        command_line.parse([*PHOTOGRAPHS, *command.words])
    elif program.startswith(("./", ".ci/")):
        assert os.access(REPOSITORY / program, os.X_OK)
        if program == "./launch/quickstart.sh":
            command_line.parse(without_help(words))
        else:
            check_files(words)
    else:
        check_files(words)


def take_torchrun(words: Sequence[str]) -> None:
    """Check torchrun's options, and what it starts."""
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(list(words))
    script = ["-m", given.training_script] if given.module else [given.training_script]
    take_python([*script, *given.training_script_args])


def take_accelerate(words: Sequence[str]) -> None:
    """Check the options of `accelerate launch`, its file, and what it starts."""
    from accelerate.commands.launch import launch_command_parser

    assert words[0] == "launch"
    given = launch_command_parser().parse_args(list(words[1:]))
    check_file(given.config_file)
    script = ["-m", given.training_script] if given.module else [given.training_script]
    take_python([*script, *given.training_script_args])


def take_sbatch(words: Sequence[str]) -> None:
    """Check what our job file is given."""
    command_line.parse(words[words.index("launch/slurm.sbatch") + 1 :])


def take_python(words: Sequence[str]) -> None:
    """Check what Python is given: a file of ours with arguments, or a module."""
    if words[0] == "train.py":
        command_line.parse(without_help(words[1:]))
    elif words[:2] == ["-m", "trainer"]:
        take_trainer(words[2:])
    elif words[:2] == ["-m", "pip"]:
        take_pip(words[2:])
    elif words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None, words[1]
    else:
        check_file(words[0])
        files = (REPOSITORY / words[0], REPOSITORY / "benchmarks" / "page.py")
        text = "".join(file.read_text() for file in files)
        for option in (word for word in words if word.startswith("--")):
            assert re.search(f'"{option}"', text), f"{words[0]} has no {option}"


def take_trainer(words: Sequence[str]) -> None:
    """Check a command of ours, and the keys of a configuration that it is given."""
    if words[0] == "train":
        command_line.parse(without_help(words[1:]))
        return
    arguments, others = build_parser().parse_known_args(list(words))
    if words[0] in ("models", "inspect-data") and others and not others[0].startswith("-"):
        others.pop(0)  # the network's name, or a run's folder
    if others:
        assert "configuration" in arguments
        command_line.parse(others)


def take_pip(words: Sequence[str]) -> None:
    """Check that extras are ours, and that packages have the version that is tested."""
    if words[0] == "install" and "-c" in words:
        check_file(words[words.index("-c") + 1])
    for word in words:
        if found := re.fullmatch(r"(?:\.|lockstep-trainer)\[(.+)\]", word):
            assert {*found[1].split(",")} <= {*PROJECT["optional-dependencies"]}, word
    if words[0] == "install" and "--target" in words and "--no-index" not in words:
        packages = {re.split("[<=]", word)[0] for word in words[words.index("--target") + 2 :]}
        assert packages & TESTED, "none has the version that is tested"


def check_files(words: Sequence[str]) -> None:
    """Check that the files of this repository that a command names are there."""
    for word in words:
        if re.match(r"(launch|tests|benchmarks|configs|examples)/", word):
            check_file(word)


def check_file(name: str | None) -> None:
    """Check that the repository has a file, or a folder."""
    assert name is None or (REPOSITORY / name).exists(), name


def without_help(words: Sequence[str]) -> list[str]:
    """The words of a command without --help, at which a parser ends."""
    return [word for word in words if word != "--help"]


TAKE = {
    "accelerate": take_accelerate,
    "lockstep": take_trainer,
    "pip": take_pip,
    "python": take_python,
    "sbatch": take_sbatch,
    "torchrun": take_torchrun,
}
"""what checks the words behind a program's name"""
