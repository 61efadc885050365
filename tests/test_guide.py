"""The guide's commands, keys and links are right, and the page of commands is that of `--help`.

Write the page again: python -m tests.test_guide > docs/commands.md
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.commands.command import run_command
from tests.conftest import REPOSITORY
from trainer import command_line
from trainer.__main__ import COMMANDS, build_parser
from trainer.config import RunConfig, flatten

GUIDE = REPOSITORY / "docs" / "guide.md"
COMMANDS_PAGE = REPOSITORY / "docs" / "commands.md"


def shown_commands(text: str) -> list[list[str]]:
    """The words of the `python` commands in the page's blocks; what stands behind # is left out."""
    block = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^    python (?:-m )?(.+)$", block, re.MULTILINE)
    return [shlex.split(re.sub(r"\s{2,}[^-\s'].*$", "", line), comments=True) for line in lines]


def commands_page() -> str:
    """docs/commands.md, from the commands' own help."""
    rows = []
    for name, module in sorted(COMMANDS.items()):
        first, *others = re.sub(r"\\\n\s*", "", module.__doc__ or "").splitlines()
        example = next(line for line in others if line.startswith("example: "))
        words = first.removesuffix(".").replace("|", "\\|")
        rows.append(f"| `{name}` | {words} | `{example.removeprefix('example: ')}` |")
    return "\n".join(
        [
            "# Commands",
            "",
            "`python train.py` trains; `python train.py --help` has every key of a configuration.",
            "`python -m trainer COMMAND` does the rest; `--help` behind it says what it takes, and",
            "`--json` prints for programs. Bad input ends with one message and exit code 2.",
            "",
            "| command | what it does | example |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


SHOWN = shown_commands(GUIDE.read_text(encoding="utf-8")) if GUIDE.is_file() else []


def test_the_commands_of_the_guide_are_found() -> None:
    assert len(SHOWN) > 20
    assert {words[0] for words in SHOWN} == {"train.py", "trainer"}
    assert len({words[1] for words in SHOWN if words[0] == "trainer"}) > 5


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_a_command_of_the_guide_is_taken(words: list[str]) -> None:
    if words[0] == "train.py":
        command_line.parse(words[1:])
        return
    assert words[0] == "trainer"
    arguments, others = build_parser().parse_known_args(words[1:])
    if words[1] == "models" and others:
        assert not others.pop(0).startswith("-")  # the network's name
    if others:
        assert "configuration" in arguments
        command_line.parse(others)


def test_the_layers_in_the_guide_are_those_that_the_command_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = run_command(capsys, "models", "lab_cnn")[1]
    shown = output[: output.index("\n\noutput: ")].splitlines()
    text = GUIDE.read_text(encoding="utf-8")
    assert "\n".join(f"    {line}".rstrip() for line in shown) in text
    found = json.loads(run_command(capsys, "models", "--json")[1])
    rows = {row["name"]: row for row in found["models"]}
    for name in ("lab_cnn", "lenet5", "quicknet"):
        assert f"{rows[name]['parameters']:,}" in text
        assert f"{rows[name]['multiply_adds'] / 1e6:.1f} million" in text


def test_the_keys_of_the_guide_are_those_of_a_configuration() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    known = flatten(RunConfig())
    sections = "data|model|train|optimizer|schedule|checkpoint|tracking"
    keys = re.findall(rf"`(?:--)?((?:{sections})\.\w+)", text)
    assert len(keys) > 5
    assert sorted(set(keys) - set(known)) == []


@pytest.mark.parametrize("page", [GUIDE, COMMANDS_PAGE], ids=lambda page: page.stem)
def test_links_of_the_pages(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_the_page_of_commands_is_that_of_the_help() -> None:
    assert COMMANDS_PAGE.read_text(encoding="utf-8") == commands_page(), __doc__


if __name__ == "__main__":
    print(commands_page(), end="")
