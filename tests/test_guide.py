"""The pages' keys, files and links are right; that of the commands is `--help`'s.

Write the page again: python -m tests.test_guide > docs/commands.md
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands.command import run_command
from tests.conftest import REPOSITORY
from tests.pages.shown import PAGES
from trainer.__main__ import COMMANDS
from trainer.config.schema import RunConfig, flatten

GUIDE = REPOSITORY / "docs" / "guide.md"
COMMANDS_PAGE = REPOSITORY / "docs" / "commands.md"


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
            "`python -m trainer COMMAND` does the rest, or `lockstep COMMAND` where the package is",
            "installed; `--help` behind it says what it takes. All but `train`, `report` and",
            "`submit` print for programs with `--json`. Bad input ends with one message and exit",
            "code 2.",
            "",
            "| command | what it does | example |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


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


def headings(page: Path) -> set[str]:
    """What a link names the headings of the page by."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_keys_files_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sections = "data|train|optimizer|schedule|checkpoint|tracking"
    keys = re.findall(rf"`(?:--)?((?:{sections})\.[a-z]\w+)[ `]", text)
    of_results = {"train.skipped_steps", "train.peak_memory_bytes"}
    assert sorted({*keys} - {*flatten(RunConfig()), "train.py"} - of_results) == []
    folders = "trainer|models|tests|configs|launch|benchmarks|docs|examples"
    for file in re.findall(rf"`((?:{folders})/[\w./]*)`", text):
        assert (REPOSITORY / file).exists(), file
    for link, heading in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
        target = page.parent / link if link else page
        assert target.exists(), link
        if heading:
            assert heading in headings(target), f"{link}#{heading}"


def test_the_page_of_commands_is_that_of_the_help() -> None:
    assert COMMANDS_PAGE.read_text(encoding="utf-8") == commands_page(), __doc__


if __name__ == "__main__":
    print(commands_page(), end="")
