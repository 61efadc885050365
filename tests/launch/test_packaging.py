"""The project files agree with each other and with what the code imports; the wheel is whole."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY
from tests.distributed.launch import environment

BUILT_FROM = ("LICENSE", "README.md", "pyproject.toml", "train.py", "trainer", "models", "configs")
NOT_INSTALLED = ("benchmarks", "examples", "launch", "tests")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text) for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts
]
THIRD_PARTY = [each for each in REQUIREMENTS if each.name != PROJECT["name"]]


def constraints() -> list[Requirement]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


PINS = {canonicalize_name(pin.name): pin for pin in constraints()}


@pytest.mark.parametrize("requirement", THIRD_PARTY, ids=lambda requirement: requirement.name)
def test_each_dependency_is_pinned_to_a_version_that_its_bound_admits(
    requirement: Requirement,
) -> None:
    (pin,) = PINS[canonicalize_name(requirement.name)].specifier
    assert pin.operator == "=="
    assert requirement.specifier.contains(pin.version)


def test_constraints_are_exact_and_name_each_package_once() -> None:
    assert len(PINS) == len(constraints())
    for pin in PINS.values():
        assert [each.operator for each in pin.specifier] == ["=="], pin
        assert pin.url is None
        # A local version such as +cpu would be found on a few machines only.
        assert "+" not in str(pin.specifier)


def test_torchvision_comes_with_the_timm_extra_only() -> None:
    assert "torchvision" not in {each.name for each in REQUIREMENTS}
    assert "timm" not in {Requirement(text).name for text in PROJECT["dependencies"]}


def imported_names() -> Iterator[str]:
    for folder in ("trainer", "models"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    yield node.module.partition(".")[0]


def test_whatever_the_code_imports_is_declared() -> None:
    ours = {"trainer", "models", "train"}
    names = set(imported_names()) - set(sys.stdlib_module_names) - ours
    assert "torch" in names
    declared = {canonicalize_name(each.name) for each in THIRD_PARTY}
    distributions = packages_distributions()
    missing = {
        name
        for name in names
        if not declared & {canonicalize_name(each) for each in distributions.get(name, [name])}
    }
    assert not missing


def test_the_change_log_begins_with_this_version() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    (newest, *_) = re.findall(r"^## \[([\d.]+)\]", text, re.MULTILINE)
    assert newest == PROJECT["version"]


def test_every_extra_is_documented() -> None:
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("launch/*")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert [name for name in EXTRAS if not re.search(rf"\[[\w,]*\b{name}\b", text)] == []


def test_the_checks_before_a_commit_are_those_of_ci_in_the_versions_of_the_environment() -> None:
    text = (REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repository,) = yaml.safe_load(text)["repos"]
    # Another repository would come with a version of its own.
    assert repository["repo"] == "local"
    own = [hook["entry"] for hook in repository["hooks"] if hook["language"] == "system"]
    assert all(entry.startswith(".venv/bin/") for entry in own)
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    checks = re.findall(r"^(\.venv/bin/python -m .+?)(?: \.)? \|\|", script, re.MULTILINE)
    assert len(checks) == 3
    for check in checks:
        assert any(entry.startswith(check) for entry in own), check


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, as a build leaves files where it is done."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*BUILT_FROM, *NOT_INSTALLED):
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, its programs in bin."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", folder, wheel)
    return folder


def pip(command: str, *words: str | Path) -> None:
    """Run pip without downloads."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--no-index", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def run_installed(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with the installation before the repository's."""
    return subprocess.run(
        words,
        cwd=folder,
        env=environment(PYTHONPATH=str(installed), PYTHONSAFEPATH="1"),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_packages_the_recipes_and_the_licence_only(wheel: Path) -> None:
    patterns = [
        "trainer/**/*.py",
        "trainer/run/report/templates/*",
        "trainer/commands/demo/page/*.[!p]*",
        "models/**/*.py",
        "configs/*.yaml",
        "configs/spaces/*.yaml",
    ]
    expected = {
        path.relative_to(REPOSITORY).as_posix()
        for pattern in patterns
        for path in REPOSITORY.glob(pattern)
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"trainer/run/report/templates/report.html", "configs/digits.yaml"} <= expected
    information = f"lockstep_trainer-{PROJECT['version']}.dist-info/"
    assert {name for name in names if not name.startswith(information)} == expected
    assert f"{information}licenses/LICENSE" in names


def test_an_installation_trains_from_any_folder(installed: Path, tmp_path: Path) -> None:
    lockstep = str(installed / "bin" / "lockstep")
    quiet = ("--threads", "1", "--tracking.wandb", "disabled")
    words = ("train", "--config", "digits", "--train.epochs", "1", *quiet)
    done = run_installed(installed, tmp_path, lockstep, *words)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "digits"
    results = json.loads((run / "results.json").read_text())
    assert results["train"]["epochs"] == 1
    assert results["test"]["samples"] == 360
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")
    # The repository, which is installed too, has no part in it.
    where = "import trainer, models; print(trainer.__file__, models.__file__)"
    found = run_installed(installed, tmp_path, sys.executable, "-c", where).stdout.split()
    assert found == [str(installed / name / "__init__.py") for name in ("trainer", "models")]


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--help"], 0, "usage: lockstep [-h] COMMAND"),
        (["train", "--help"], 0, "usage: lockstep train [--config CONFIG]"),
        (["train", "--config", "digitz"], 2, "digitz"),
        (["train", "--config", "digits", "--train.epochz", "3"], 2, "did you mean train.epochs?"),
        (["submit", "--config", "digits"], 2, "submit from a clone of the repository"),
    ],
    ids=str,
)
def test_the_console_command(
    installed: Path, tmp_path: Path, words: list[str], code: int, expected: str
) -> None:
    done = run_installed(installed, tmp_path, str(installed / "bin" / "lockstep"), *words)
    assert done.returncode == code, done.stderr
    assert expected in (done.stderr if code else done.stdout)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
