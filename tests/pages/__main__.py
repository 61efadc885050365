"""Run the commands of the pages, as a reader types them, each page in a folder of its own.

    python -m tests.pages [PAGE ...] [--keep FOLDER]

PAGE is a page's name, such as guide; all without. What downloads, installs, needs a cluster or
waits for a person is left out, with its reason (`LEFT_OUT`). Runs have few images and epochs, and
photographs are small drawings; Fashion-MNIST has to be where the quickstart puts it. Exit code 1
if a command fails.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.pages.place import Place
from tests.pages.shown import PAGES, Command, commands

LEFT_OUT = {
    r"^\./launch/|^\.ci/": "installs; tests/launch/test_scripts.py runs them",
    r"^(source|pre-commit) ": "changes the shell or the clone",
    r"\bpip (install|download|wheel)|^hf ": "installs or downloads",
    r"^git |name (cifar10|mnist)|\bpush\b|timm:|cifar10\.yaml$": "downloads or uploads",
    r"cifar10\.zip|--static": "needs a file that is downloaded",
    r"configs/mnist\.yaml": "downloads, and trains on 60,000 images",
    r"resnet18\.pth": "needs a file of weights; tests/commands/test_convert_weights.py",
    r"^(kubectl|podman|sed) ": "needs a cluster; tests/launch/test_pods.py",
    r"^(sbatch|tail) |trainer submit": "needs Slurm; tests/cluster, tests/commands/test_submit.py",
    r"^ssh |--nnodes|--machine_rank": "needs two machines; tests/cluster",
    r"\bdemo RUN|demo runs/\w+( --port \d+)?$": "waits for a person; tests/commands/demo",
    r"http\.server|^curl ": "waits for a person, or asks what does; tests/commands/demo",
    r"^tensorboard ": "waits for a person; tests/run/tracking/test_tensorboard.py",
    r"^wandb ": "needs an account; tests/run/test_sweeps.py",
    r"benchmarks/": "takes long; tests/benchmarks runs it in small",
    r"-m (pytest|ruff|mypy|tests)\b|^\.venv/bin/python -m pip": ".ci/run, or writes into the clone",
    r"gpus?\.yaml": "needs a GPU",
    r"--sign|HOST|mlflow|there\.json|--data\.root DIR": "needs what only its reader has",
    r"^--": "options, no command; tests/pages/test_pages.py parses them",
}
"""patterns of commands that are not run here, and why"""


def reason(command: Command) -> str | None:
    """Why a command is not run, or None."""
    return next((why for what, why in LEFT_OUT.items() if re.search(what, command.text)), None)


def run_page(page: Path, place: Place) -> list[str]:
    """Run a page's commands one after the other; return those that fail."""
    failed = []
    for command in commands(page):
        if why := reason(command):
            print(f"    left out  {command.text}  ({why})", flush=True)
            continue
        started = time.monotonic()
        result = place.run(command.text, check=False)
        word = "ran" if result.returncode == 0 else f"exit {result.returncode}"
        print(f"    {word:9} {time.monotonic() - started:4.0f} s  {command.text}", flush=True)
        if result.returncode != 0:
            failed.append(f"{command}\n{result.stdout[-800:]}{result.stderr[-1600:]}")
    return failed


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.pages", description=__doc__)
    names = [page.stem for page in PAGES if page.parent.name != "benchmarks"]
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=", ".join(names))
    parser.add_argument("--keep", type=Path, help="a folder for what the commands write")
    given = parser.parse_args(words)
    if wrong := {*given.pages} - {*names}:
        parser.error(f"no page {', '.join(sorted(wrong))}")
    return given


def main() -> None:
    """Run the pages that the command line names."""
    given = parse()
    root = given.keep or Path(tempfile.mkdtemp(prefix="pages-"))
    prepared = Place.prepare(root / "prepared")
    failed = []
    for page in PAGES:
        if not given.pages or page.stem in given.pages:
            print(page.relative_to(REPOSITORY), flush=True)
            failed += run_page(
                page, prepared.copy(root / page.relative_to(REPOSITORY).with_suffix(""))
            )
    if not given.keep:
        shutil.rmtree(root)
    print("\n\n".join(["", *failed, f"{len(failed)} failed"]))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
