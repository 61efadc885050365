"""Find the commands that a page shows."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    REPOSITORY / "benchmarks" / "README.md",
    *sorted(REPOSITORY.glob("docs/*.md")),
]
PROGRAMS = {
    *("accelerate", "curl", "git", "hf", "kubectl", "lockstep", "lscpu", "pip", "podman"),
    *("pre-commit", "python", "sbatch", "sed", "source", "ssh", "tail", "tensorboard", "torchrun"),
    "wandb",
}
"""what a line of a page's block begins with, if it is a command; or with ./, . or an option"""
OURS = {"accelerate", "lockstep", "python", "torchrun"}
PLACEHOLDERS = {"COMMAND", "...", "N", "OUTPUT_DIR/seed-*", "STUDY"}
"""words of a command in running text that stands for several"""


@dataclass(frozen=True)
class Command:
    """One command of a page, as it is typed."""

    page: Path
    text: str

    @property
    def words(self) -> list[str]:
        """Its words, without variables before it."""
        words = shlex.split(self.text.removesuffix("&"))
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        return words

    @property
    def program(self) -> str:
        """Its first word; a program of the environment by its name, an option as `--`."""
        first = self.words[0]
        return "--" if first.startswith("--") else first.removeprefix(".venv/bin/")

    def __str__(self) -> str:
        return f"{self.page.stem}: {self.text}"


def blocks(text: str) -> list[str]:
    """The lines of a page's indented blocks; a line that ends with a backslash goes on."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r" *\\\n\s*", " ", text)
    return re.findall(r"^    (\S.*)$", text, re.MULTILINE)


def without_remark(line: str) -> str:
    """A line of a block without the words that stand some blanks behind the command."""
    return re.sub(r"\s{2,}[^-\s'].*$", "", line.removeprefix("$ "))


def is_command(line: str) -> bool:
    """Whether a line of a block is a command, not output or code."""
    found = re.match(r"(?:[A-Z_]+=\S* )*(\S+)", line)
    first = found[1] if found else ""
    # "python train.py" is one, "weights  ..." of an output is none.
    return first in PROGRAMS or first.startswith((".venv/bin/", ".ci/", "./", "--"))


def chained(line: str) -> list[str]:
    """The commands of a line that && joins; those that ssh is given come without it."""
    if given := re.match(r"ssh \w+ '(.*)'", line):
        line = given[1]
    return [part for part in line.split(" && ") if not part.startswith("cd ")]


def commands(page: Path) -> list[Command]:
    """The commands of a page, in its order: those in blocks, and ours in running text."""
    text = page.read_text(encoding="utf-8")
    lines = [without_remark(line) for line in blocks(text) if is_command(line.removeprefix("$ "))]
    parts = [part for line in lines for part in chained(line)]
    running = re.findall(r"`((?:\w+=\S+ )*(?:[a-z]+|\.venv/bin/python) [^`]+)`", text)
    for each in running:
        command = Command(page, each.replace("\\|", "|"))
        words = command.words if each.count("'") % 2 == 0 else []
        launched = not words or command.program in ("lockstep", "python") or "train.py" in words
        whole = words[2:] if "-m" not in words else words[words.index("-m") + 3 :]
        if launched and whole and command.program in OURS and not PLACEHOLDERS & {*words}:
            parts.append(command.text)
    return [Command(page, part) for part in dict.fromkeys(parts)]
