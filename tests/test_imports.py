"""Imports point down from room to room, and run in no circle inside a room."""

from __future__ import annotations

import ast
import graphlib
import tomllib
from pathlib import Path

from tests.conftest import REPOSITORY

# The rooms of `trainer/`, from the bottom up; `api` and `__main__` are modules on top of them.
FLOORS = (
    "base config ranks data network checkpoint training run finished commands api __main__".split()
)
MOST_LINES = 340


def modules() -> dict[str, Path]:
    """Each module of `trainer` with its file; a package's own code goes by the package's name."""
    found = {}
    for path in sorted((REPOSITORY / "trainer").rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def graph() -> dict[str, set[str]]:
    """Each module of `trainer` with the ones that it imports."""
    known = modules()
    found = {}
    for module, path in known.items():
        names = imported(path)
        # `from trainer.base.errors import UserError` names a module and something in it.
        names |= {name.rpartition(".")[0] for name in names if name not in known}
        found[module] = {name for name in names if name in known} - {module, "trainer"}
    found.pop("trainer")
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_is_in_a_room() -> None:
    assert {room(module) for module in graph()} == set(FLOORS)


def test_imports_point_down() -> None:
    floor = {name: number for number, name in enumerate(FLOORS)}
    wrong = [
        (module, other)
        for module, others in graph().items()
        for other in others
        if floor[room(other)] > floor[room(module)]
    ]
    assert wrong == []


def test_imports_run_in_no_circle() -> None:
    # Raises CycleError, which names the circle.
    assert list(graphlib.TopologicalSorter(graph()).static_order())


def test_every_room_says_what_lives_there() -> None:
    for folder in (REPOSITORY / "trainer").rglob("*/"):
        if any(folder.glob("*.py")):
            tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), folder


def test_tests_mirror_the_rooms() -> None:
    for name in FLOORS:
        if (REPOSITORY / "trainer" / name).is_dir():
            assert list((REPOSITORY / "tests" / name).rglob("test_*.py")), name


def test_models_know_nothing_of_the_trainer() -> None:
    for path in (REPOSITORY / "models").rglob("*.py"):
        packages = {name.split(".")[0] for name in imported(path)}
        assert not {"trainer", "accelerate", "numpy"} & packages, path


def test_the_entry_point_stays_short_and_the_files_hold_one_subject() -> None:
    assert len((REPOSITORY / "train.py").read_text().splitlines()) < 60
    for path in [*REPOSITORY.glob("trainer/**/*.py"), *REPOSITORY.glob("models/*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, path


def test_what_mutation_testing_names_is_there() -> None:
    """A module that has moved would be left out without a word."""
    named = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    settings = named["tool"]["mutmut"]
    paths = settings["only_mutate"] + settings["pytest_add_cli_args_test_selection"]
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
