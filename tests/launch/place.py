"""A copy of the scripts and the project files, next to programs that only note their calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import REPOSITORY

# A Python that notes what it is asked, makes environments out of copies of itself, and fails
# where the variables FAIL_PIP, FAIL_CHECK, FAIL_DATA or EXIT_CODE say so.
PYTHON = """#!/usr/bin/env bash
if [[ "$*" != *--version* && "$*" != *sys.version_info* && "$*" != *ensurepip* ]]; then
    printf '%s\\n' "${*//$'\\n'/ }" >>"$CALLS"
fi
case "$*" in
    --version) echo Python 3.11.9 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip --version") ;;
    "-m pip install "*) exit "${FAIL_PIP:-0}" ;;
    "-m ruff"* | "-m mypy"*) [[ "$*" != "${FAIL_CHECK:-}" ]] || exit 1 ;;
    *trainer.data*) if [[ -n ${FAIL_DATA:-} ]]; then echo "$FAIL_DATA"; exit 2; fi ;;
    *train.py* | "-m pytest"*) exit "${EXIT_CODE:-0}" ;;
esac
"""

OLD_PYTHON = """#!/usr/bin/env bash
[[ $1 == --version ]] && echo Python 3.9.2 || exit 1
"""

PYTHON_WITHOUT_VENV = """#!/usr/bin/env bash
[[ "$*" != *ensurepip* ]]
"""

# Downloads a package where there are lists: the system's only if SYSTEM_LISTS is set.
APT_GET = """#!/usr/bin/env bash
echo "${*: -2}" >>"$CALLS"
[[ -z ${FAIL_APT:-} ]] || { echo "E: no network" >&2; exit 100; }
case "$*" in
    *update) touch lists/fetched ;;
    *download*) [[ -n ${SYSTEM_LISTS:-} || -f lists/fetched ]] && cp "$PACKAGE" . ;;
esac
"""


class Place:
    """A copy of the scripts under a path with spaces, next to stand-in programs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.other_folder = folder / "another folder"
        self.programs = folder / "programs"
        self.cache = folder / "the cache"
        self.calls_file = folder / "calls"
        for path in (self.root, self.other_folder, self.programs):
            path.mkdir()
        shutil.copytree(REPOSITORY / "launch", self.root / "launch")
        shutil.copytree(REPOSITORY / ".ci", self.root / ".ci")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(REPOSITORY / name, self.root)
        self.program("python3", PYTHON)
        self.program("apt-get", APT_GET)
        self.environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(self.cache),
            "CALLS": str(self.calls_file),
        }

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def run(
        self, script: str, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Start a script from another folder and forget what earlier ones called."""
        self.calls_file.write_text("")
        return subprocess.run(
            [str(self.root / script), *arguments],
            cwd=self.other_folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self) -> list[str]:
        return self.calls_file.read_text(encoding="utf-8").splitlines()

    def installs(self) -> list[str]:
        return [call for call in self.calls() if call.startswith("-m pip install")]
