"""The project files agree with each other and with what the code imports."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

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
