"""Imports point down: a module knows those of the layers below it, and none beside or above."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import REPOSITORY

# From the bottom up. A package counts as one module.
LAYERS = [
    {"allocator", "errors", "files", "environment", "limits", "observer", "ranges", "run_state"}
    | {"screen", "time_limit"},
    {"caller_settings", "config", "locks", "own_code", "seeding", "microbatch", "packing"}
    | {"out_of_memory", "preemption", "untrusted"},
    {"console", "extensions", "parser_messages", "tensor_files", "metrics", "schedules"},
    {"config_rules", "ranks", "foreign_weights", "metrics_log", "augment"} | {"model_state"},
    {"averaging", "buffers"},
    {"stored_config", "sampling", "checkpoint", "data", "hooks"},
    {"own_optimizer", "batches", "command_line", "agreement", "report"} | {"stored_scaling"},
    {"optim", "tracking", "run_folder", "exit_codes", "evaluation", "step", "results"} | {"traits"},
    {
        "run_observer",
        "step_log",
        "batch_statistics",
        "evaluation_size",
        "step_samples",
        "stored_run",
    },
    {"selection", "comparison", "starting_weights"},
    {"engine", "new_model"},
    {"stored_model", "assembly", "trial"},
    {"exporting", "session", "recomputation"},
    {"export"},
    {"training"},
    {"commands"},
    {"api"},
    {"__main__"},
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}


def modules() -> dict[str, list[Path]]:
    """Each module of `trainer` with its files."""
    found: dict[str, list[Path]] = {}
    for path in sorted((REPOSITORY / "trainer").rglob("*.py")):
        place = path.relative_to(REPOSITORY / "trainer").parts
        found.setdefault(place[0].removesuffix(".py"), []).append(path)
    found.pop("__init__")
    return found


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_its_layer() -> None:
    assert set(modules()) == set(LAYER_OF)


def test_imports_point_down() -> None:
    wrong = []
    for module, paths in modules().items():
        names = {name for path in paths for name in imported(path)}
        others = {name.split(".")[1] for name in names if name.startswith("trainer.")} - {module}
        wrong += [(module, other) for other in others if LAYER_OF[other] >= LAYER_OF[module]]
    assert wrong == []


def test_models_know_nothing_of_the_trainer() -> None:
    for path in (REPOSITORY / "models").rglob("*.py"):
        packages = {name.split(".")[0] for name in imported(path)}
        assert not {"trainer", "accelerate", "numpy"} & packages, path


def test_the_entry_point_stays_short_and_the_files_hold_one_subject() -> None:
    assert len((REPOSITORY / "train.py").read_text().splitlines()) < 60
    for path in [*REPOSITORY.glob("trainer/**/*.py"), *REPOSITORY.glob("models/*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 340, path
