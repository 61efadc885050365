"""What the README shows works as it stands there."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import REPOSITORY
from tests.runs import Run, train_here


def test_the_example_of_ones_own_model(tmp_path: Path) -> None:
    name = f"{REPOSITORY}/examples/own_model.py:OwnModel"
    more = ["--model.name", name, "--model.args", '{"filters": 24}', "--data.augment", "none"]
    assert train_here(tmp_path / "run", *more) == 0
    assert Run(tmp_path / "run", 0).json("results.json")["test"]["accuracy"] > 0.7


def test_the_pages_that_the_readme_links_to_are_there() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(links) > 5
    for link in links:
        assert (REPOSITORY / link).is_file(), link
